"""Clicks answered on a thread of a session's own, in order."""

from __future__ import annotations

import atexit
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from trtseg.errors import EngineError

EXIT_WAIT_S = 60.0  # for a job that runs when the program ends
Job = Callable[[Future], None]
_workers: weakref.WeakSet[Worker] = weakref.WeakSet()
_ending = threading.Event()


class Worker:
    """Runs one job at a time: those of `submit` in order, then the newest of `submit_latest`.

    A job is a function of its future. It must call `future.set_running_or_notify_cancel()` itself,
    at the last moment at which a cancellation can still be honoured: until then
    `future.cancel()` works, even while the job runs. The thread ends when there is nothing to do.

    When the program ends, what waits is cancelled and what runs is waited for: a thread that is
    inside native code when the interpreter goes takes the process down. What is submitted after
    that stays pending.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._queue: deque[tuple[Job, Future]] = deque()
        self._latest: tuple[Job, Future] | None = None
        self._thread: threading.Thread | None = None
        _workers.add(self)

    def submit(self, job: Job) -> Future[Any]:
        """Queue a job.

        Raises:
            EngineError: the system has no thread for it; the next call tries again.
        """
        future: Future[Any] = Future()
        with self._lock:
            if self._is_ready():
                self._queue.append((job, future))
        return future

    def submit_latest(self, job: Job) -> Future[Any]:
        """Run a job when no other waits; one of these that was still waiting is cancelled.

        Raises:
            EngineError: as `submit`.
        """
        future: Future[Any] = Future()
        replaced = None
        with self._lock:
            if self._is_ready():
                replaced, self._latest = self._latest, (job, future)
        if replaced is not None:
            replaced[1].cancel()
        return future

    def wait(self) -> None:
        """Return once no job runs or waits; at once on the worker's own thread."""
        while True:
            thread = self._thread
            if thread is None or thread is threading.current_thread() or not thread.is_alive():
                return
            thread.join()

    def end(self) -> None:
        """Cancel what waits, and wait for what runs."""
        with self._lock:
            dropped = [future for _, future in self._queue]
            if self._latest is not None:
                dropped.append(self._latest[1])
            self._queue.clear()
            self._latest = None
        for future in dropped:
            future.cancel()
        thread = self._thread
        if thread is not None and thread.is_alive():
            thread.join(EXIT_WAIT_S)

    def _is_ready(self) -> bool:
        """See that a thread will look at the queue. Under the lock, so that it cannot end before.

        An exception in here leaves a thread that finds nothing to do, or one that never started,
        which the next call replaces.
        """
        if _ending.is_set():
            return False
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            try:
                self._thread.start()
            except RuntimeError as error:
                raise EngineError(f"{self._name}: {error}") from None
        return True

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._thread is not threading.current_thread():
                    return  # given up for dead while it started: another one is at work
                if self._queue:
                    job, future = self._queue.popleft()
                elif self._latest is not None:
                    (job, future), self._latest = self._latest, None
                else:
                    self._thread = None
                    return
            try:
                if not future.cancelled():
                    job(future)
            except BaseException as error:  # delivered to whoever waits for the future
                # Its frames know the future: the circle would keep what they hold.
                traceback.clear_frames(error.__traceback__)
                # False where it was cancelled meanwhile: then nobody waits for the error.
                if future.running() or (
                    not future.done() and future.set_running_or_notify_cancel()
                ):
                    future.set_exception(error)
            del job, future


@atexit.register
def _end() -> None:
    _ending.set()
    for worker in list(_workers):
        worker.end()
