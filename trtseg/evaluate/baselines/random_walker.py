"""Random walks for image segmentation: Grady, TPAMI 2006, as scikit-image implements it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from trtseg.errors import BackendUnavailable
from trtseg.evaluate.baselines.clicks import (
    BACKGROUND,
    OBJECT,
    Baseline,
    BaselinePrediction,
    stroke_labels,
    with_border_background,
)
from trtseg.types import Click


@dataclass(frozen=True, eq=False)
class EncodedForWalk:
    """The reduced image, and how it relates to the whole."""

    image: np.ndarray  # float64 [h, w, 3], Lab in [0, 1]
    size: tuple[int, int]
    scale: float


@dataclass(frozen=True)
class RandomWalker(Baseline):
    """A pixel is object if a walker from it reaches a positive stroke first, more likely than not.

    Attributes:
        radius_px: of a click's stroke, in image pixels.
        beta: how strongly contrast holds the walker back.
        longest_side_px: larger images are reduced to this, since a click solves a linear system
            over all pixels; probabilities are enlarged again.
    """

    radius_px: float = 3.0
    beta: float = 1000.0
    longest_side_px: int = 256
    name: ClassVar[str] = "random-walker"
    source: ClassVar[str] = "Grady, TPAMI 2006; skimage.segmentation.random_walker"

    def encode(self, image: np.ndarray) -> EncodedForWalk:
        size = image.shape[0], image.shape[1]
        scale = min(1.0, self.longest_side_px / max(size))
        if scale < 1:
            reduced = max(1, round(size[1] * scale)), max(1, round(size[0] * scale))
            image = cv2.resize(image, reduced, interpolation=cv2.INTER_AREA)
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float64) / 255
        return EncodedForWalk(lab, size, scale)

    def size(self, encoded: EncodedForWalk) -> tuple[int, int]:
        return encoded.size

    def segment(
        self, encoded: EncodedForWalk, clicks: Sequence[Click], previous: np.ndarray | None
    ) -> BaselinePrediction:
        try:
            from skimage.segmentation import random_walker
        except ImportError:
            raise BackendUnavailable(
                "the random walker needs scikit-image; pip install trtseg[evaluate]"
            ) from None
        grid = encoded.image.shape[:2]
        radius = self.radius_px * encoded.scale
        labels = with_border_background(stroke_labels(clicks, grid, radius, encoded.scale))
        seeds = np.zeros(grid, np.int32)
        seeds[labels == OBJECT], seeds[labels == BACKGROUND] = 1, 2
        if not (seeds == 0).any() or not (seeds == 2).any():
            probability = (seeds != 2).astype(np.float32)
        else:
            with warnings.catch_warnings():  # it tells which optional solvers are missing
                warnings.simplefilter("ignore", UserWarning)
                reached = random_walker(
                    encoded.image,
                    seeds,
                    beta=self.beta,
                    mode="cg_j",
                    tol=1e-3,
                    return_full_prob=True,
                    channel_axis=-1,
                )
            probability = reached[0].astype(np.float32)
        if grid != encoded.size:
            height, width = encoded.size
            probability = cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR)
        return BaselinePrediction((probability > 0.5).astype(np.uint8) * 255, probability)
