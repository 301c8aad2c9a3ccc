"""Calls side by side: each borrows a lane, a stream with buffers of its own."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

from trtseg.runtime.engine import Memory
from trtseg.runtime.pipeline.buffers import ClickBuffers, EncodeBuffers, Model

LANES = 4  # calls at the same moment; more wait for one of them
IDLE_WORKSPACES = 4  # sizes of each kind that a lane keeps buffers for
LOOK_AGAIN_S = 1.0  # for a lane that was lost, of which nobody is told
_T = TypeVar("_T")


class _BySize(Generic[_T]):
    """Buffers by size: made on demand, the least recently used dropped."""

    def __init__(self, make: Callable[[tuple[int, int]], _T]) -> None:
        self._make = make
        self.kept: OrderedDict[tuple[int, int], _T] = OrderedDict()

    def take(self, size: tuple[int, int]) -> _T:
        """Those of a size; `keep` gives them back. What is not given back is dropped."""
        kept = self.kept.pop(size, None)
        return self._make(size) if kept is None else kept

    def keep(self, size: tuple[int, int], buffers: _T) -> None:
        self.kept[size] = buffers
        while len(self.kept) > IDLE_WORKSPACES:
            self.kept.popitem(last=False)


class Lane:
    """What one call at a time needs: a stream with its scratch memory, and buffers by size."""

    def __init__(self, model: Model) -> None:
        memory = model.engines.memory.lane()
        self.memory = memory
        self.encoders = _BySize(lambda size: EncodeBuffers(model, memory, size))
        self.clicks = _BySize(lambda size: ClickBuffers(model, memory, size))

    def clear(self) -> None:
        """Give back the memory of all buffers."""
        self.encoders.kept.clear()
        self.clicks.kept.clear()


class Lanes:
    """At most `LANES` lanes: made on demand, lent to one thread at a time, kept.

    A lane that an exception keeps from coming back is not missed: it counts as lent while
    somebody holds it, and no longer.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._free = threading.Condition()
        self._idle: list[Lane] = []
        self._lent: weakref.WeakSet[Lane] = weakref.WeakSet()

    @contextmanager
    def encoders(self, size: tuple[int, int]) -> Iterator[tuple[Memory, EncodeBuffers]]:
        """A lane's memory and its buffers for encoding at a working size."""
        with self._lend(lambda lane: size in lane.encoders.kept) as lane:
            buffers = lane.encoders.take(size)
            yield lane.memory, buffers
            # On an error the buffers are dropped: what they hold is then unknown.
            lane.encoders.keep(size, buffers)

    @contextmanager
    def clicks(self, size: tuple[int, int]) -> Iterator[tuple[Memory, ClickBuffers]]:
        """A lane's memory and its buffers for clicks at a working size."""
        with self._lend(lambda lane: size in lane.clicks.kept) as lane:
            buffers = lane.clicks.take(size)
            yield lane.memory, buffers
            lane.clicks.keep(size, buffers)

    def clear(self) -> None:
        """Give back the memory of all buffers that no call is using."""
        with self._free:
            for lane in self._idle:
                lane.clear()

    @contextmanager
    def _lend(self, suits: Callable[[Lane], bool]) -> Iterator[Lane]:
        loan: list[Lane] = []
        try:
            self._take(suits, loan)
            # What was queued outside of any lane, such as the map that a click starts from.
            loan[0].memory.follow(self._model.engines.memory)
            yield loan[0]
        except BaseException:
            # Buffers that a failing call used are dropped, and what is queued still writes there.
            for lane in loan:
                with suppress(RuntimeError):  # the device's own: what failed first is told
                    lane.memory.synchronize()
            raise
        finally:
            with self._free:
                self._free.notify()
                for lane in loan:
                    if lane not in self._idle:  # where it still is if taking it did not end
                        self._idle.append(lane)
                    self._lent.discard(lane)

    def _take(self, suits: Callable[[Lane], bool], loan: list[Lane]) -> None:
        """Put a lane into `loan`, from which it comes back whatever happens."""
        with self._free:
            while not self._idle and len(self._lent) >= LANES:
                self._free.wait(LOOK_AGAIN_S)
            if self._idle:
                # The last one used, among those that have the buffers if there are such.
                order = [(suits(lane), index) for index, lane in enumerate(self._idle)]
                loan.append(self._idle[max(order)[1]])
                self._lent.add(loan[0])
                self._idle.remove(loan[0])
            else:
                loan.append(Lane(self._model))
                self._lent.add(loan[0])
