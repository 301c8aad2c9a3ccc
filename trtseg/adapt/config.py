"""How adaptation learns: the hyperparameters of CA section 4, as frozen values."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trtseg.parse import at_least, fractions, one_of

GUIDANCE = ("all", "subset", "earlier", "replay")
MASK_LOSSES = ("cross-entropy", "jaccard")
CANDIDATES = ("shown", "all")
RATE_SCALES = ("none", "loss")
LARGEST_STEPS = 1000  # a hundred times what the paper takes: a click must end
MODES = ("image", "sequence", "both")


@dataclass(frozen=True)
class Learning:
    """One kind of adaptation. See CA eq. 4 for the weights of its terms.

    Attributes:
        steps: gradient steps each time, 0 to 1000.
        learning_rate: of Adam; 0 leaves the weights as they are.
        correction_weight: lambda in [0, 1], of the cross-entropy on the corrected pixels; the
            cross-entropy to the mask predicted before has 1 - lambda.
        importance_weight: gamma, of the importance-weighted distance to the initial weights.
        guidance: which clicks the network is shown while the loss uses all of them: "all", a
            random "subset", the "earlier" ones only, without the newest, or "replay": for a
            sequence, steps take turns between what the network saw at the first click and at a
            random later one, each with the mask of that moment. A network that obeys its guidance
            maps has no loss, and learns nothing, at a click that it is shown.
        mask_loss: between the network's mask and the mask predicted before: "cross-entropy" over
            its pixels (CA eq. 3) or the relaxed "jaccard" distance (LD eq. 3), which does not
            favour the background where objects are small.
        candidates: which learn: the one that was "shown", or "all", so that whichever is shown next
            has learnt; for a sequence whose objects are of one kind.
        rate_scale: the learning rate as it is ("none"), or times the "loss" (all of CA eq. 4) where
            that is below 1. Adam takes equal steps however small the loss is: an image that was
            right at once would teach as much as one that was wrong. The distance to the initial
            weights counts, so that the rate rises a little along a sequence.
        rehearsed: of a sequence: so many of its last images are kept, and every other step is on
            one of them; 0 forgets each image once it was learnt from, as CA does.
        budget_ms: begin no step that would end later than this; None for no limit.
    """

    steps: int
    learning_rate: float
    correction_weight: float
    importance_weight: float
    guidance: str = "all"
    mask_loss: str = "cross-entropy"
    candidates: str = "shown"
    rate_scale: str = "none"
    rehearsed: int = 0
    budget_ms: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.steps <= LARGEST_STEPS:
            raise ValueError(f"steps: expected 0 to {LARGEST_STEPS}, got {self.steps}")
        for name, known in (
            ("guidance", GUIDANCE), ("mask_loss", MASK_LOSSES), ("candidates", CANDIDATES),
            ("rate_scale", RATE_SCALES),
        ):
            one_of(name, getattr(self, name), known)
        fractions(self, "correction_weight")
        at_least(self, 0, "rehearsed")
        for name in ("learning_rate", "importance_weight"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name}: expected a number of at least 0, got {value}")
        if self.budget_ms is not None and not self.budget_ms > 0:
            raise ValueError(f"budget_ms: expected a positive number, got {self.budget_ms}")


# CA: image adaptation, after every click
PAPER_IMAGE = Learning(
    steps=10, learning_rate=1e-6, correction_weight=1.0, importance_weight=1.0
)
# CA: sequence adaptation, after every image
PAPER_SEQUENCE = Learning(
    steps=1,
    learning_rate=1e-6,
    correction_weight=0.5,
    importance_weight=2.0,
    guidance="subset",
)


@dataclass(frozen=True)
class AdaptConfig:
    """What adapts, and how.

    Attributes:
        image: learning after every click.
        sequence: learning after every image.
        layers: how many of f's last layers adapt, with what lies behind them; None for all. They
            are 3x3 layers of a context aggregation network; of a pyramid 1 is the way up (so is 0)
            and 2 the whole, of a U-Net every number the whole.
            What lies before is computed once per click.
        bf16: run the steps in bfloat16, on float32 master weights, where the processor has units
            for it; without them it would be six to eight times slower.
        seed: of the random subsets of clicks.
    """

    image: Learning = PAPER_IMAGE
    sequence: Learning = PAPER_SEQUENCE
    layers: int | None = None
    bf16: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.image.guidance == "replay":
            raise ValueError("image: guidance 'replay' needs the end of an image; see sequence")
        if self.image.rehearsed:
            raise ValueError("image: rehearsed: expected 0, images are of a sequence")
        at_least(self, 0, "layers", "seed")

