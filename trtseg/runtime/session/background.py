"""Clicks answered on a thread of their own, the newest first in line."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class LatestWorker:
    """Runs one job at a time; of the jobs waiting, only the newest survives.

    A job is a function of its future. It must call `future.set_running_or_notify_cancel()` itself,
    at the last moment at which a cancellation can still be honoured: until then
    `future.cancel()` works, even while the job runs. The thread ends when there is nothing to do.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._waiting: tuple[Callable[[Future], None], Future] | None = None
        self._running = False
        self._idle = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None

    def submit(self, job: Callable[[Future], None]) -> Future[Any]:
        """Queue a job; one that was still waiting is cancelled."""
        future: Future[Any] = Future()
        with self._lock:
            replaced, self._waiting = self._waiting, (job, future)
            start, self._running = not self._running, True
        if replaced is not None:
            replaced[1].cancel()
        if start:
            try:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
            except RuntimeError:  # no thread to be had: the next submission tries again
                with self._lock:
                    self._waiting, self._running = None, False
                    self._idle.notify_all()
                raise
        return future

    def wait(self) -> None:
        """Return once no job runs or waits; at once on the worker's own thread."""
        if threading.current_thread() is self._thread:
            return
        with self._lock:
            while self._running:
                self._idle.wait()

    def _work(self) -> None:
        while True:
            with self._lock:
                taken, self._waiting = self._waiting, None
                if taken is None:
                    self._running = False
                    self._idle.notify_all()
                    return
            job, future = taken
            try:
                if not future.cancelled():
                    job(future)
            except BaseException as error:  # delivered to whoever waits for the future
                # False where it was cancelled meanwhile: then nobody waits for the error.
                if future.running() or (
                    not future.done() and future.set_running_or_notify_cancel()
                ):
                    future.set_exception(error)
            del job, future, taken
