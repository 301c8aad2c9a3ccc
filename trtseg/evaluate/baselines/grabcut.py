"""GrabCut: Rother, Kolmogorov and Blake, SIGGRAPH 2004, as OpenCV implements it."""

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
from trtseg.types import Click


@dataclass(frozen=True)
class GrabCut(Baseline):
    """Gaussian mixtures and a graph cut in turns, from clicks in place of a rectangle.

    At the first click a disk around it is probably object and the rest probably background;
    later the mask before the click takes that part.

    Attributes:
        radius_px: of a click's stroke.
        iterations: of mixtures and cut, per click.
        first_disk: radius of the probable object, as a fraction of the shorter side.
    """

    radius_px: float = 5.0
    iterations: int = 3
    first_disk: float = 0.12
    name: ClassVar[str] = "grabcut"
    source: ClassVar[str] = "Rother, Kolmogorov and Blake, SIGGRAPH 2004; cv2.grabCut"

    def encode(self, image: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(image[..., ::-1])

    def size(self, encoded: np.ndarray) -> tuple[int, int]:
        return encoded.shape[0], encoded.shape[1]

    def segment(
        self, encoded: np.ndarray, clicks: Sequence[Click], previous: np.ndarray | None
    ) -> BaselinePrediction:
        size = self.size(encoded)
        if previous is None or not previous.any():
            disk = stroke_labels(
                [click for click in clicks if click.positive], size, self.first_disk * min(size)
            )
            previous = disk == OBJECT
        labels = np.where(previous, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        strokes = stroke_labels(clicks, size, self.radius_px)
        labels[with_border_background(strokes) == BACKGROUND] = cv2.GC_PR_BGD
        labels[strokes == BACKGROUND] = cv2.GC_BGD
        labels[strokes == OBJECT] = cv2.GC_FGD
        background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.setRNGSeed(0)  # its k-means draws from OpenCV's generator
        if (labels % 2 == 0).any():  # without a background pixel it would raise
            cv2.grabCut(
                encoded,
                labels,
                (0, 0, 0, 0),  # not used in this mode
                background,
                foreground,
                self.iterations,
                cv2.GC_INIT_WITH_MASK,
            )
        return BaselinePrediction((labels % 2).astype(np.uint8) * 255)
