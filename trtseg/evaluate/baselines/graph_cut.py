"""Interactive graph cuts: Boykov and Jolly, ICCV 2001."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from trtseg.evaluate.baselines.clicks import (
    BACKGROUND,
    OBJECT,
    Baseline,
    BaselinePrediction,
    stroke_labels,
    with_border_background,
)
from trtseg.evaluate.baselines.colour import ColourBins
from trtseg.evaluate.baselines.energy import HARD, Pairs, contrast_pairs, minimise
from trtseg.types import Click


@dataclass(frozen=True, eq=False)
class EncodedForCut:
    """Bins of the colour models and the contrast between neighbours."""

    colours: ColourBins
    pairs: Pairs

    @property
    def size(self) -> tuple[int, int]:
        return self.colours.index.shape


@dataclass(frozen=True)
class GraphCut(Baseline):
    """Seeds as hard constraints, colour histograms as regional term, contrast as boundary term.

    Attributes:
        radius_px: of a click's stroke.
        bins: of a histogram, per channel of Lab.
        smoothing: sigma of the Gaussian over the histogram, in bins.
        floor: share of the uniform distribution in a colour model.
        boundary: weight of the boundary term, 1 / lambda of the paper's eq. 1.
    """

    radius_px: float = 3.0
    bins: int = 32
    smoothing: float = 1.5
    floor: float = 0.02
    boundary: float = 60.0
    name: ClassVar[str] = "graph-cut"
    source: ClassVar[str] = "Boykov and Jolly, ICCV 2001; max-flow by PyMaxflow"

    def encode(self, image: np.ndarray) -> EncodedForCut:
        return EncodedForCut(
            ColourBins.of(image, self.bins, self.smoothing),
            contrast_pairs(cv2.cvtColor(image, cv2.COLOR_RGB2LAB)),
        )

    def size(self, encoded: EncodedForCut) -> tuple[int, int]:
        return encoded.size

    def segment(
        self, encoded: EncodedForCut, clicks: Sequence[Click], previous: np.ndarray | None
    ) -> BaselinePrediction:
        labels = stroke_labels(clicks, encoded.size, self.radius_px)
        object_cost, other_cost = self.costs(encoded, labels)
        parents = self.parents(encoded, clicks)
        mask = minimise(object_cost, other_cost, self.weighted(encoded.pairs), parents)
        return BaselinePrediction(mask.astype(np.uint8) * 255)

    def costs(self, encoded: EncodedForCut, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What each pixel costs as object and as background, float64 [H, W] each."""
        samples = with_border_background(labels, always=True)
        object_cost = encoded.colours.cost(samples == OBJECT, self.floor)
        other_cost = encoded.colours.cost(samples == BACKGROUND, self.floor)
        least = np.minimum(object_cost, other_cost)
        object_cost, other_cost = object_cost - least, other_cost - least
        object_cost[labels == BACKGROUND] = HARD
        other_cost[labels == OBJECT] = HARD
        return object_cost, other_cost

    def weighted(self, pairs: Pairs) -> Pairs:
        """The contrast with this method's weight."""
        return Pairs(pairs.first, pairs.second, self.boundary * pairs.weight)

    def parents(self, encoded: EncodedForCut, clicks: Sequence[Click]) -> np.ndarray | None:
        """What shape the mask must have; any, for a plain graph cut."""
        return None
