"""What a click found, each map corrected when it is first looked at.

Most are never looked at, and correcting six maps on the host takes longer than a GPU takes for the
networks: on an H100 it was most of a click.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from trtseg.runtime.engine import Array, Memory

# (index, map [H, W]) -> (what is shown of it, the map itself where that is the same; whether it
# held to the prompts by itself)
Correct = Callable[[int, np.ndarray], tuple[np.ndarray, bool]]


class CandidateMaps:
    """Probabilities [M, H, W] on the base grid, in the networks' memory; never written again.

    Args:
        memory: where they are.
        found: as the networks gave them.
        correct: what is shown of each; None for what was found.
        with_room: calls what allocates, see `Pipeline.with_room`.
    """

    def __init__(
        self,
        memory: Memory,
        found: Array,
        correct: Correct | None = None,
        with_room: Callable[[Callable[[], Array]], Array] = lambda make: make(),
    ) -> None:
        self._memory, self._found = memory, found
        self._correct, self._with_room = correct, with_room
        # (map, whether it obeyed, whether it is another than was found); two threads that look at
        # once make the same map twice
        self._made: dict[int, tuple[Array, bool, bool]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Array]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Array:
        """The map [H, W] that is shown of a candidate."""
        return self._of(index)[0]

    def obeyed(self, index: int) -> bool:
        """Whether a candidate agreed with the prompts before it was made to."""
        return self._of(index)[1]

    def changed(self, index: int) -> bool:
        """Whether what is shown of a candidate is another map than was found."""
        return self._of(index)[2]

    def _of(self, index: int) -> tuple[Array, bool, bool]:
        made = self._made.get(index)
        if made is None:
            made = self._made[index] = self._make(index)
        return made

    def _make(self, index: int) -> tuple[Array, bool, bool]:
        found = self._found[index]
        if self._correct is None:
            return found, True, False
        values = self._memory.host(found)
        shown, obeyed = self._correct(index, values)
        if shown is values:
            return found, obeyed, False
        result = self._with_room(lambda: self._memory.array(shown))
        if isinstance(result, np.ndarray):
            result.flags.writeable = False
        return result, obeyed, True
