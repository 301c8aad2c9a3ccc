"""The last images of a sequence, learnt from again beside the newest."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import cycle, islice
from typing import TypeVar

import numpy as np

from trtseg.adapt.learn import Example

T = TypeVar("T")


class Rehearsal:
    """Examples of the last images; see `Learning.rehearsed`.

    Steps on the newest image alone fit it, and undo in part what those before it taught.

    Args:
        images: how many are kept; 0 keeps none.
    """

    def __init__(self, images: int) -> None:
        self._kept: deque[Sequence[Example]] = deque(maxlen=images)

    def __len__(self) -> int:
        return len(self._kept)

    def beside(self, new: Sequence[Example], steps: int, seed: list[int]) -> list[Example]:
        """What each step is on: the new examples in turn, and every other time a kept one.

        Args:
            new: of the newest image.
            steps: how many there are to be.
            seed: of the draw among the kept ones.
        """
        if not self._kept:
            return list(islice(cycle(new), steps))
        # not the draw among the newest image's own moments, which has the same seed
        rng, turns = np.random.default_rng([*seed, 1]), cycle(new)
        return [
            _one_of(_one_of(self._kept, rng), rng) if step % 2 else next(turns)
            for step in range(steps)
        ]

    def keep(self, examples: Sequence[Example]) -> None:
        """Keep an image that was learnt from, in place of the oldest."""
        self._kept.append(examples)

    def clear(self) -> None:
        """Keep none."""
        self._kept.clear()


def _one_of(those: Sequence[T], rng: np.random.Generator) -> T:
    return those[int(rng.integers(len(those)))]
