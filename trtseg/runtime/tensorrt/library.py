"""The door to TensorRT: finds the installed flavour and keeps its messages.

One code path serves `tensorrt` 10, `tensorrt` 11 and `tensorrt_rtx` (TensorRT for RTX): features
are probed by attribute, never by version number. Nothing here is imported before an engine is
asked for, and this module is the only one that imports TensorRT.
"""

from __future__ import annotations

import functools
import importlib
import logging
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from trtseg.errors import BackendUnavailable

_log = logging.getLogger(__name__)

_MODULES = {
    None: ("tensorrt", "tensorrt_rtx", "tensorrt_bindings"),
    "tensorrt": ("tensorrt", "tensorrt_bindings"),
    "rtx": ("tensorrt_rtx",),
}
_INSTALL = """\
Install the flavour for the GPU that will run the engine:
  RTX cards (GeForce RTX 20 to 50, RTX PRO; compute capability 7.5, 8.6, 8.9, 12.0, 12.1):
      TensorRT for RTX, module tensorrt_rtx: pip install tensorrt-rtx (fetches its libraries
      from https://pypi.nvidia.com; also at https://developer.nvidia.com/tensorrt-rtx)
  data centre cards (T4, A100, L4, H100, H200, B200):
      TensorRT, module tensorrt: pip install tensorrt (fetches its libraries from
      https://pypi.nvidia.com)
  RTX cards with PyPI alone: pip install onnxruntime onnxruntime-ep-nv-tensorrt-rtx-cu13 and
      backend="onnxruntime", device="tensorrt-rtx"; it builds its engines when first used"""


@dataclass(frozen=True, slots=True)
class TensorRT:
    """An imported TensorRT.

    Attributes:
        module: the Python module, typed loosely because three packages provide it.
        flavour: "tensorrt" or "tensorrt_rtx".
        version: the module's version string.
        logger: the process-wide logger; TensorRT keeps the first one it is given.
        recorder: the process-wide error recorder; a builder counts references to it in its
            destructor, so it must outlive every builder, also one held by a traceback.
    """

    module: Any
    flavour: str
    version: str
    logger: Any
    recorder: Any


class Messages:
    """What TensorRT said during one call; thread-safe, bounded, the newest kept.

    The builder reports from its own threads, so messages are collected per process and not per
    thread: `collect` is for calls that run one at a time, as builds do.
    """

    def __init__(self, limit: int = 200) -> None:
        self._lock = threading.Lock()
        self._errors: deque[str] = deque(maxlen=limit)
        self._warnings: deque[str] = deque(maxlen=limit)

    def add(self, text: str, *, error: bool) -> None:
        with self._lock:
            kept = self._errors if error else self._warnings
            if text not in kept:
                kept.append(text)

    def errors(self) -> list[str]:
        with self._lock:
            return list(self._errors)

    def warnings(self) -> list[str]:
        with self._lock:
            return list(self._warnings)

    def summary(self, limit: int = 6) -> str:
        """The errors, joined, for the end of one exception message."""
        lines = self.errors() or self.warnings()
        if not lines:
            return "TensorRT gave no reason"
        more = [f"and {len(lines) - limit} more"] if len(lines) > limit else []
        return "; ".join(lines[:limit] + more)


_collecting: list[Messages] = []
_collecting_lock = threading.Lock()


@contextmanager
def collect() -> Iterator[Messages]:
    """Collect every message that TensorRT logs in this process during the block."""
    messages = Messages()
    with _collecting_lock:
        _collecting.append(messages)
    try:
        yield messages
    finally:
        with _collecting_lock:
            _collecting.remove(messages)


def _tell(text: str, *, error: bool) -> bool:
    with _collecting_lock:
        sinks = list(_collecting)
    for sink in sinks:
        sink.add(text, error=error)
    return bool(sinks)


def load_tensorrt(target: str | None = None) -> TensorRT:
    """Import TensorRT.

    Args:
        target: "rtx" for TensorRT for RTX, "tensorrt" for the data centre flavour, None for the
            first that can be imported, in the order tensorrt, tensorrt_rtx, tensorrt_bindings.

    Raises:
        ValueError: another target.
        BackendUnavailable: none can be imported; the message says why for each, and what to
            install for which GPU.
    """
    if target not in _MODULES:
        raise ValueError(f"target: expected 'rtx', 'tensorrt' or None, got {target!r}")
    failures = []
    for name in _MODULES[target]:
        try:
            return _wrap(importlib.import_module(name))
        except (ImportError, OSError, AttributeError) as error:
            # A wheel without its libraries raises OSError or leaves a module without a Builder.
            failures.append(f"  {name}: {error}")
    raise BackendUnavailable(
        "no TensorRT Python module can be imported:\n" + "\n".join(failures) + "\n" + _INSTALL
    )


@functools.cache
def _wrap(module: ModuleType) -> TensorRT:
    trt: Any = module
    flavour = "tensorrt_rtx" if trt.__name__ == "tensorrt_rtx" else "tensorrt"
    return TensorRT(trt, flavour, str(trt.__version__), _make_logger(trt), _make_recorder(trt))


def _make_logger(trt: Any) -> Any:
    severity = trt.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
    }

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, level: Any, text: str) -> None:
            # An exception must not cross this callback: TensorRT would end the process.
            try:
                number = levels.get(level)
                if number is None:
                    return
                # A failing call raises with these messages; the log repeats none of them.
                told = _tell(text, error=number == logging.ERROR)
                _log.log(logging.DEBUG if told else number, "%s", text)
            except Exception:
                _log.debug("a TensorRT message was lost", exc_info=True)

    return Logger()


def _make_recorder(trt: Any) -> Any:
    class Recorder(trt.IErrorRecorder):
        def __init__(self) -> None:
            trt.IErrorRecorder.__init__(self)
            self.recorded: list[tuple[Any, str]] = []

        def clear(self) -> None:
            self.recorded.clear()

        def num_errors(self) -> int:
            return len(self.recorded)

        def get_error_code(self, index: int) -> Any:
            return self.recorded[index][0]

        def get_error_desc(self, index: int) -> str:
            return self.recorded[index][1]

        def has_overflowed(self) -> bool:
            return False

        def report_error(self, code: Any, text: str) -> bool:
            try:
                self.recorded.append((code, text))
                _tell(f"{getattr(code, 'name', code)}: {text}", error=True)
            except Exception:
                _log.debug("a TensorRT error was lost", exc_info=True)
            return False

    return Recorder()
