"""What happens to a session: the list of these alone decides what it shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from trtseg.types import Prompt


@dataclass(frozen=True)
class Added:
    """Prompts that were given in one call, at least one."""

    prompts: tuple[Prompt, ...]


@dataclass(frozen=True)
class Selected:
    """The user chose a candidate."""

    index: int


@dataclass(frozen=True, eq=False)
class MaskSet:
    """A mask to continue from, packed by `np.packbits`."""

    packed: np.ndarray


Event = Added | Selected | MaskSet


def edited(
    events: Sequence[Event], index: int, edit: Callable[[Prompt], Prompt | None]
) -> tuple[int, list[Event]]:
    """The events had one of the prompts that count been another one.

    Args:
        events: at least one, the oldest first.
        index: of the prompt, among those that count: those after the last mask that was set.
        edit: gives the other one, or None for none.

    Returns:
        (how many events stay as they are, the events from there on).

    Raises:
        TypeError: index is no integer.
        ValueError: there is no such prompt, or `edit` refuses.
    """
    if isinstance(index, bool) or not isinstance(index, (int, np.integer)):
        raise TypeError(f"index: expected an integer, got {index!r}")
    first = max((i + 1 for i, e in enumerate(events) if isinstance(e, MaskSet)), default=0)
    seen = 0
    for at, event in enumerate(events[first:], first):
        if not isinstance(event, Added):
            continue
        within = index - seen
        if 0 <= within < len(event.prompts):
            other = edit(event.prompts[within])
            kept = () if other is None else (other,)
            prompts = (*event.prompts[:within], *kept, *event.prompts[within + 1 :])
            changed = [replace(event, prompts=prompts)] if prompts else []
            return at, [*changed, *events[at + 1 :]]
        seen += len(event.prompts)
    expected = f"0 to {seen - 1}" if seen else "none without a prompt"
    raise ValueError(f"index: expected {expected}, got {index}")
