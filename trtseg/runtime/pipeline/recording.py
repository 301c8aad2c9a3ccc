"""Work of fixed shape on fixed buffers, queued call by call at first and then as one CUDA graph.

A click is one such piece of work: the clicks' coordinates go up from pinned memory, guidance maps,
the first layer, `segment`, `select`, the choice of the best candidate, its mask at the image's
size, and the scores come down. All that differs from click to click lies in buffers whose
addresses and shapes do not: coordinates in an array of fixed length filled up with NaN, which
stands for no click; the base of the image and the mask before in buffers of the workspace. Before a
replay the host writes the coordinates, and queues a copy of the mask before and, when the image is
another than at the last click, of its base.

Outside the graph, and why:
- the copy of the candidates that a session keeps for undo, and the mask's way to the host: their
  targets are new with each click, and a graph has its addresses baked in;
- what follows a choice that only the host can make: a candidate the user has preferred before, or
  the seam of a focus crop. The mask is then composed from the candidates, after the graph;
- `hypercolumn`, once per image: it writes the encoding that the caller keeps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable

from trtseg.errors import EngineError
from trtseg.runtime.engine import Memory, Recorder, Work

_log = logging.getLogger(__name__)
# The first runs do extra work that must not be recorded: kernels are chosen, loaded and compiled.
RUNS_BEFORE_RECORDING = 3


class Recorded:
    """A piece of work that is recorded once it has run, and anew when what it rests on changed.

    One thread at a time runs it. It keeps no reference to the work: buffers that own one are freed
    with their last reference.

    Args:
        memory: on whose stream the work is queued.
        recorder: None to queue the work anew each time.
    """

    def __init__(self, memory: Memory, recorder: Recorder | None) -> None:
        self._memory, self._recorder = memory, recorder
        self._replay: Work | None = None
        self._key: Hashable | None = None
        self._runs = 0

    @property
    def recorded(self) -> bool:
        """Whether the next run replays, if nothing changes."""
        return self._replay is not None

    def run(self, work: Work, key: Callable[[], Hashable | None]) -> None:
        """Queue the work.

        Args:
            work: allocates nothing, waits for nothing; the same each time.
            key: what a recording has baked in besides buffers that never change, see
                `Binding.graph_key`; None where the work cannot be recorded.

        Raises:
            EngineError: a network could not be run.
        """
        with self._memory.queueing():
            now = key()
            if now != self._key:
                self._key, self._replay, self._runs = now, None, 0
            if now is not None and self._replay is None and self._runs >= RUNS_BEFORE_RECORDING:
                self._record(work)
            (self._replay or work)()
            self._runs += 1

    def _record(self, work: Work) -> None:
        if self._recorder is None:
            return
        try:
            self._replay = self._recorder(self._memory, work)
        except EngineError as error:
            _log.info("runs without a CUDA graph: %s", error)
            self._recorder = None
