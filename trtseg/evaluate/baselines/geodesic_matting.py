"""Geodesic matting: Bai and Sapiro, ICCV 2007 and IJCV 2009."""

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
from trtseg.evaluate.baselines.colour import ColourBins, object_probability
from trtseg.evaluate.baselines.geodesic import geodesic
from trtseg.types import Click


@dataclass(frozen=True)
class GeodesicMatting(Baseline):
    """A pixel is object if a positive stroke is nearer than a negative one.

    Distances follow W = |grad P(object | colour)| (the paper's eq. 2 and 3), so that they grow only
    where the likelihood changes. The matte is the paper's eq. 5: the weights D^-r P of both sides,
    normalised; the mask is where D_object <= D_background.

    Attributes:
        radius_px: of a click's stroke.
        bins: of a colour histogram, per channel of Lab (the paper's kernel density estimate).
        smoothing: sigma of the Gaussian over the histogram, in bins.
        floor: share of the uniform distribution in a colour model.
        step: cost of a pixel where the likelihood is flat; decides ties by length.
        exponent: r of the matte.
    """

    radius_px: float = 3.0
    bins: int = 32
    smoothing: float = 1.5
    floor: float = 0.02
    step: float = 1e-3
    exponent: float = 1.0
    name: ClassVar[str] = "geodesic-matting"
    source: ClassVar[str] = "Bai and Sapiro, ICCV 2007, IJCV 2009; paths by scikit-image"

    def encode(self, image: np.ndarray) -> ColourBins:
        return ColourBins.of(image, self.bins, self.smoothing)

    def size(self, encoded: ColourBins) -> tuple[int, int]:
        return encoded.index.shape

    def segment(
        self, encoded: ColourBins, clicks: Sequence[Click], previous: np.ndarray | None
    ) -> BaselinePrediction:
        strokes = stroke_labels(clicks, self.size(encoded), self.radius_px)
        samples = with_border_background(strokes, always=True)
        likely = object_probability(
            encoded.likelihood(samples == OBJECT, self.floor),
            encoded.likelihood(samples == BACKGROUND, self.floor),
        )
        seeds = with_border_background(strokes)
        inside, outside = seeds == OBJECT, seeds == BACKGROUND
        gradient = np.hypot(cv2.Sobel(likely, -1, 1, 0, scale=0.125),
                            cv2.Sobel(likely, -1, 0, 1, scale=0.125))  # fmt: skip
        cost = gradient + self.step
        to_object, _ = geodesic(cost, inside)
        to_other, _ = geodesic(cost, outside)
        near = 1e-6
        weight = likely * np.maximum(to_object, near) ** -self.exponent
        other = (1 - likely) * np.maximum(to_other, near) ** -self.exponent
        matte = (weight / (weight + other)).astype(np.float32)
        mask = (to_object <= to_other).astype(np.uint8) * 255
        return BaselinePrediction(mask, matte)
