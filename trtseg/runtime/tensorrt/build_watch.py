"""From TensorRT's nested build phases to one rising fraction, with cancellation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trtseg.runtime.engine import Progress


class PhaseTree:
    """The nested phases of a build as one number from 0 to 1 that never falls.

    A phase counts as much as one step of its parent. TensorRT starts phases that it did not
    announce, so the number is an estimate; it is exact at the end.
    """

    def __init__(self) -> None:
        self._parent: dict[str, str | None] = {}
        self._steps: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self.fraction = 0.0

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        self._parent[phase] = parent
        self._steps[phase] = max(1, steps)
        self._done[phase] = 0

    def step(self, phase: str, step: int) -> None:
        if phase in self._done:
            self._done[phase] = min(self._steps[phase], step + 1)
            self.fraction = max(self.fraction, self._position(phase))

    def finish(self, phase: str) -> None:
        if phase in self._done:
            self.step(phase, self._steps[phase] - 1)
            del self._parent[phase], self._steps[phase], self._done[phase]

    def _position(self, phase: str) -> float:
        inside = self._done[phase] / self._steps[phase]
        parent = self._parent[phase]
        while parent is not None and parent in self._done:
            inside = min(1.0, (self._done[parent] + inside) / self._steps[parent])
            parent = self._parent[parent]
        return inside


class BuildWatch:
    """What a progress monitor reports to: the caller's callbacks, kept away from TensorRT.

    An exception must not cross TensorRT's callbacks, Ctrl-C included: it is kept in `failure`,
    the build is cancelled, and the caller of the build raises it.
    """

    def __init__(self, progress: Progress | None, cancelled: Callable[[], bool] | None) -> None:
        self._tree = PhaseTree()
        self._progress = progress
        self._cancelled = cancelled
        self.stopped = False
        self.failure: BaseException | None = None

    def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
        self._tree.start(phase, parent, steps)
        self._report(phase)

    def step_complete(self, phase: str, step: int) -> bool:
        self._tree.step(phase, step)
        self._report(phase)
        return not self.stopped

    def phase_finish(self, phase: str) -> None:
        self._tree.finish(phase)
        self._report(phase)

    def _report(self, phase: str) -> None:
        if self.stopped:
            return
        try:
            if self._progress is not None:
                self._progress(self._tree.fraction, phase)
            if self._cancelled is not None and self._cancelled():
                self.stopped = True
        except BaseException as error:
            self.failure = error
            self.stopped = True


def make_monitor(trt: Any, watch: BuildWatch) -> Any:
    """An `IProgressMonitor` that reports to `watch`; None where this TensorRT knows none."""
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            watch.phase_start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return watch.step_complete(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            watch.phase_finish(phase_name)

    return Monitor()
