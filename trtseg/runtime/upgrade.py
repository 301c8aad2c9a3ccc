"""Answering now, faster later: engines are built in the background while clicks are answered."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable
from typing import Protocol

from trtseg.bundle import Bundle
from trtseg.errors import EngineError, TrtsegError
from trtseg.runtime.engine import Engines, Progress
from trtseg.runtime.segmenter import Segmenter

_log = logging.getLogger(__name__)
EXIT_WAIT_S = 60.0  # for a build that was cancelled by the end of the program


class Loader(Protocol):
    """Loads engines and may take minutes; `trtseg.runtime.tensorrt.load` is one."""

    def __call__(
        self, bundle: Bundle, *, progress: Progress | None, cancelled: Callable[[], bool] | None
    ) -> Engines: ...


class Upgrade:
    """A segmenter that answers at once, and a better one of the same model as soon as it is there.

    An editor asks for `segmenter` whenever it opens an image or begins an object, and so moves to
    the better one by itself. Sessions that are open go on where they began: what a session shows
    is a function of its events, and engines of another precision would change it between two
    clicks.

    Args:
        first: answers until then; usually on ONNX Runtime.
        load: see `Loader`.

    Attributes:
        fraction: how much of the engine being built is done, 0 to 1.
        phase: what is being done, in TensorRT's words.
    """

    def __init__(self, first: Segmenter, load: Loader) -> None:
        self.fraction, self.phase = 0.0, "waiting"
        self._first, self._load = first, load
        self._better: Segmenter | None = None
        self._problem: str | None = None
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._work, name="trtseg-upgrade", daemon=True)
        atexit.register(self._end)
        self._thread.start()

    @property
    def segmenter(self) -> Segmenter:
        """The better one when it is ready, else the first."""
        return self._better or self._first

    @property
    def ready(self) -> bool:
        """Whether `segmenter` is the better one."""
        return self._better is not None

    @property
    def problem(self) -> str | None:
        """Why there will be no better one; None while there may be."""
        return self._problem

    def cancel(self) -> None:
        """Stop building; what answers now goes on. Returns at once."""
        self._cancelled.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of the build; True when `segmenter` is the better one."""
        self._thread.join(timeout_s)
        return self.ready

    def _end(self) -> None:
        # A thread that is inside native code when the interpreter goes takes the process down.
        self.cancel()
        self.wait(EXIT_WAIT_S)

    def _work(self) -> None:
        try:
            engines = self._load(
                self._first.bundle, progress=self._report, cancelled=self._cancelled.is_set
            )
            better = Segmenter(self._first.bundle, engines)
            if self._cancelled.is_set():
                raise EngineError("the upgrade was cancelled")
            self.fraction, self.phase = 1.0, "ready"
            self._better = better
        except TrtsegError as error:
            self._problem = str(error)
            _log.warning("%s stays on %s: %s", self._first.bundle.name,
                         self._first.engines.description, error)  # fmt: skip
        except BaseException as error:  # a thread's exception would be lost otherwise
            self._problem = f"{type(error).__name__}: {error}"
            raise
        finally:
            atexit.unregister(self._end)

    def _report(self, fraction: float, phase: str) -> None:
        self.fraction, self.phase = fraction, phase
