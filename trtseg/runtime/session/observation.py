"""What a session asks of something that learns from its clicks; `trtseg.adapt` implements it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from trtseg.runtime.encoded import EncodedImage
from trtseg.runtime.engine import Engine
from trtseg.runtime.prompts import GridPrompts, on_grid
from trtseg.types import Prompt

Weights = Any  # opaque to the runtime, immutable; one per click is kept for undo


@dataclass(frozen=True, eq=False)
class Observation:
    """What is known at a click, before its mask is predicted.

    Attributes:
        encoded: the encoding the click works on.
        prompts: all prompts so far on the base grid, the newest last of its kind.
        previous: the probability map [H, W] on the base grid before this click; None at the first.
        earlier: those of them that were there before the newest call.
        selected: index of the candidate that was shown before this click; -1 at the first.
    """

    encoded: EncodedImage
    prompts: GridPrompts
    previous: np.ndarray | None
    earlier: GridPrompts
    selected: int = -1


def observe(
    encoded: EncodedImage,
    prompts: Sequence[Prompt],
    previous: np.ndarray | None,
    selected: int,
    newest: int = 1,
) -> Observation:
    """What is known of all prompts so far on an encoding, the newest last; see `Observation`.

    Args:
        previous: [H, W] on the host, of any float dtype.
        newest: how many of the prompts the newest call gave.
    """
    return Observation(
        encoded,
        on_grid(prompts, encoded.region, encoded.grid),
        None if previous is None else np.asarray(previous, np.float32),
        on_grid(prompts[: max(0, len(prompts) - newest)], encoded.region, encoded.grid),
        selected,
    )


class Adapter(Protocol):
    """Adapts the weights of `segment`. The session keeps the `Weights` of each click, so that
    undo gives back those that belonged to it."""

    def start(self) -> Weights:
        """The weights with which a new object begins."""

    def adapt(self, weights: Weights, observation: Observation) -> Weights:
        """The weights to predict this click's mask with; `weights` itself is left as it is."""

    def engine(self, weights: Weights) -> Engine | None:
        """An engine for `segment` with these weights; None for the model's own."""
