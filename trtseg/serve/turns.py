"""Whose turn it is: the networks use all cores for one answer at a time."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from time import monotonic

from trtseg.serve.refusals import Busy


class Turns:
    """One answer at a time, in order of arrival; previews only while nobody waits for an answer.

    Two answers computed side by side would both take twice as long; one after the other, the
    first person waits half of that and the second no longer.
    """

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._taken = False

    @contextlib.contextmanager
    def answer(self) -> Iterator[None]:
        """Wait for the turn and hold it.

        Raises:
            Busy: it did not come in time.
        """
        ticket, until = object(), monotonic() + self._wait_s
        with self._changed:
            self._queue.append(ticket)
            while self._taken or self._queue[0] is not ticket:
                if not self._changed.wait(max(0.0, until - monotonic())) and monotonic() >= until:
                    self._queue.remove(ticket)
                    self._changed.notify_all()
                    raise Busy(f"the server is busy: no turn within {self._wait_s:g} s")
            self._queue.popleft()
            self._taken = True
        try:
            yield
        finally:
            self._give_back()

    @contextlib.contextmanager
    def preview(self) -> Iterator[bool]:
        """Hold the turn if it is free; yields False, without it, where it is not."""
        with self._changed:
            free = not self._taken and not self._queue
            self._taken = self._taken or free
        try:
            yield free
        finally:
            if free:
                self._give_back()

    def _give_back(self) -> None:
        with self._changed:
            self._taken = False
            self._changed.notify_all()
