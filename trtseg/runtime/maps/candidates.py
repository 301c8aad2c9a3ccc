"""What a click found: the shown map is corrected at once, the others when one is asked for.

A program that shows one mask waits for one: correcting six on the host takes longer than a GPU
takes for the networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from trtseg.runtime.engine import Array, Memory
from trtseg.runtime.maps.correction import enforce
from trtseg.runtime.maps.tidy import Tidy
from trtseg.types import Prompt, Region


@dataclass(frozen=True)
class Correction:
    """How a map is tidied and made to hold to the prompts.

    Attributes:
        tidy: what is dropped and filled.
        prompts: all of them, the newest last.
        region: where the maps lie in the image.
        image_size: (height, width).
        threshold: a pixel is object from this probability on.
    """

    tidy: Tidy
    prompts: tuple[Prompt, ...]
    region: Region
    image_size: tuple[int, int]
    threshold: float

    def apply(self, found: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, bool]:
        """(what is shown of a map [H, W], itself where nothing changes; whether it held to the
        prompts by itself)."""
        tidied = self.tidy.apply(found, self.region, self.prompts, self.threshold)
        tidied = tidied.astype(dtype, copy=False)
        values, (obeyed,) = enforce(
            tidied[None], self.prompts, self.region, self.image_size, self.threshold
        )
        return (tidied if obeyed else values[0]), obeyed


class _Shown(NamedTuple):
    number: int
    map: Array
    obeyed: bool
    changed: bool


class _Maps(NamedTuple):
    """[M, H, W], what they still need, and which obeyed once that is done."""

    values: Array
    correction: Correction | None
    obeyed: tuple[bool, ...]


class CandidateMaps:
    """M probability maps [H, W] on the base grid, in the networks' memory; never written again.

    What is not the shown map can raise `OutOfMemory` when it is first asked for: nothing is lost.

    Args:
        memory: where they are.
        found: [M, H, W], as the networks gave them.
        shown: index of the map that is shown.
        correction: of all of them; None shows them as they are.
        before: what the shown map is before its correction, [H, W] on the host; by default as it
            was found.

    Raises:
        OutOfMemory: there is no room for the corrected map.
    """

    def __init__(
        self,
        memory: Memory,
        found: Array,
        shown: int,
        correction: Correction | None = None,
        before: np.ndarray | None = None,
    ) -> None:
        self._memory = memory
        # replaced as a whole: of two threads that ask at once, the last one's maps stay
        self._maps = _Maps(found, correction, () if correction else (True,) * len(found))
        one = found[shown]
        if correction is None:
            self._shown = _Shown(shown, one, True, False)
            return
        given = memory.host(one)
        values, obeyed = correction.apply(given if before is None else before, given.dtype)
        changed = values is not given
        self._shown = _Shown(shown, self._kept(values) if changed else one, obeyed, changed)

    def __len__(self) -> int:
        return len(self._maps.values)

    def __iter__(self) -> Iterator[Array]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Array:
        """The map [H, W] that is shown of a candidate."""
        shown = self._shown
        return shown.map if index == shown.number else self._corrected().values[index]

    def obeyed(self, index: int) -> bool:
        """Whether a candidate agreed with the prompts before it was made to."""
        shown = self._shown
        return shown.obeyed if index == shown.number else self._corrected().obeyed[index]

    @property
    def changed(self) -> bool:
        """Whether the map that is shown is another than the networks found."""
        return self._shown.changed

    def _corrected(self) -> _Maps:
        maps, shown = self._maps, self._shown
        if maps.correction is None:
            return maps
        found = self._memory.host(maps.values)
        results = [
            (self._memory.host(shown.map), shown.obeyed) if index == shown.number
            else maps.correction.apply(each, found.dtype)
            for index, each in enumerate(found)
        ]  # fmt: skip
        obeyed = tuple(each for _, each in results)
        self._maps = maps = _Maps(self._kept(np.stack([each for each, _ in results])), None, obeyed)
        return maps

    def _kept(self, values: np.ndarray) -> Array:
        result = self._memory.array(values)
        if isinstance(result, np.ndarray):
            result.flags.writeable = False
        return result
