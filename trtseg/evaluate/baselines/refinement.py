"""Graph-cut refinement of a model's probabilities: Xu et al., CVPR 2016, section 3.3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np

from trtseg.evaluate.baselines.clicks import (
    BACKGROUND,
    OBJECT,
    BaselinePrediction,
    stroke_labels,
)
from trtseg.evaluate.baselines.energy import HARD, Pairs, contrast_pairs, minimise
from trtseg.types import Click


@dataclass(frozen=True)
class Refinement:
    """-log P as pixel costs, contrast between neighbours, clicks as hard constraints.

    Attributes:
        boundary: weight of the contrast.
        radius_px: of a click's stroke.
        least: probabilities stay this far from 0 and 1.
    """

    boundary: float = 2.0
    radius_px: float = 2.0
    least: float = 1e-3
    source: ClassVar[str] = "Xu et al., CVPR 2016, section 3.3; max-flow by PyMaxflow"

    def encode(self, image: np.ndarray) -> Pairs:
        """The contrast of an image, uint8 RGB [H, W, 3]."""
        pairs = contrast_pairs(cv2.cvtColor(image, cv2.COLOR_RGB2LAB))
        return Pairs(pairs.first, pairs.second, self.boundary * pairs.weight)

    def refine(self, probability: np.ndarray, pairs: Pairs, clicks: list[Click]) -> np.ndarray:
        """uint8 [H, W], 0 and 255, from a probability map [H, W]."""
        likely = np.clip(probability.astype(np.float64), self.least, 1 - self.least)
        object_cost, other_cost = -np.log(likely), -np.log(1 - likely)
        labels = stroke_labels(clicks, probability.shape, self.radius_px)
        object_cost[labels == BACKGROUND] = HARD
        other_cost[labels == OBJECT] = HARD
        return minimise(object_cost, other_cost, pairs).astype(np.uint8) * 255


class RefinedSession:
    """Passes clicks on and refines what comes back."""

    def __init__(self, refinement: Refinement, session: Any, pairs: Pairs) -> None:
        self._refinement, self._session, self._pairs = refinement, session, pairs
        self._clicks: list[Click] = []

    def add_click(self, x: float, y: float, positive: bool = True) -> BaselinePrediction:
        """As the model's session."""
        prediction = self._session.add_click(x, y, positive)
        self._clicks.append(Click(x, y, positive))
        probability = prediction.probability
        mask = self._refinement.refine(probability, self._pairs, self._clicks)
        return BaselinePrediction(mask, probability)
