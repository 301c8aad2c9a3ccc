"""Ctrl-C ends a network's run, between two of its operators.

Python handles a signal on the main thread, once native code has come back: that may take long. The
C part of its handling is there at once, and writes to a descriptor that a thread here listens to.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import TypeVar

from onnxruntime import RunOptions

_T = TypeVar("_T")


def interruptible(run: Callable[[RunOptions], _T]) -> _T:
    """What a run with these options gives; on the main thread, Ctrl-C stops it.

    That is so while SIGINT is Python's own and no other part of the program, such as an event
    loop, listens to signals: what others make of Ctrl-C is theirs. It costs some microseconds.

    Raises:
        KeyboardInterrupt: it was stopped.
        OSError, RuntimeError: the system has no descriptor or no thread to listen with.
    """
    global _listener
    options = RunOptions()
    # Nothing is captured. Unsaid, ONNX Runtime would find out by an error that it raises and
    # catches, which takes longer than all else here.
    options.add_run_config_entry("gpu_graph_id", "-1")
    if threading.get_ident() != threading.main_thread().ident:
        return run(options)
    if _listener is None or _listener.process != os.getpid():  # threads end in a fork
        _listener = _Listener()
    return _listener.run(run, options)


class _Listener:
    """A thread that hears of signals while the main thread is in native code."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self._running: RunOptions | None = None
        heard, self._told = socket.socketpair()
        self._told.setblocking(False)  # as `set_wakeup_fd` asks
        threading.Thread(
            target=self._listen, args=(heard,), name="trtseg-interrupts", daemon=True
        ).start()

    def run(self, run: Callable[[RunOptions], _T], options: RunOptions) -> _T:
        own = self._told.fileno()
        others = signal.set_wakeup_fd(own, warn_on_full_buffer=False)
        if others not in (-1, own):  # own: an exception came before the `try` below
            signal.set_wakeup_fd(others)
            return run(options)
        self._running = options
        try:
            return run(options)
        except Exception:
            if options.terminate:
                raise KeyboardInterrupt from None
            raise
        finally:
            self._running = None
            signal.set_wakeup_fd(-1)

    def _listen(self, heard: socket.socket) -> None:
        while numbers := heard.recv(64):
            running = self._running
            ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
            if running is not None and ours and signal.SIGINT in numbers:
                running.terminate = True


_listener: _Listener | None = None
