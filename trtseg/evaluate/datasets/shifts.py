"""Distribution shifts: the same objects, as another modality might show them.

A shift is a function of an image, uint8 RGB [H, W, 3] to the same; a new one needs its line in
`SHIFTS` and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from trtseg.evaluate.datasets.dataset import LabelledImage


def inverted(image: np.ndarray) -> np.ndarray:
    """Colours complemented, channels reversed."""
    return np.ascontiguousarray(255 - image[..., ::-1])


def thermal(image: np.ndarray) -> np.ndarray:
    """One inverted, blurred grey channel of little contrast."""
    grey = 255 - cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    grey = cv2.GaussianBlur(grey, (0, 0), 1.5)
    return cv2.cvtColor((grey.astype(np.float32) * 0.6 + 40).astype(np.uint8), cv2.COLOR_GRAY2RGB)


SHIFTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"inverted": inverted, "thermal": thermal}


class ShiftedImage(LabelledImage):
    """An image of another data set under a shift; its objects are the same."""

    def __init__(self, image: LabelledImage, shift: str) -> None:
        super().__init__(image.name, image.path)
        self._image, self._shift = image, SHIFTS[shift]

    def read_image(self) -> np.ndarray:
        return self._shift(self._image.read_image())

    def read_labels(self) -> np.ndarray:
        return self._image.read_labels()

    def read_mask(self, label: int) -> np.ndarray:
        return self._image.read_mask(label)

    def object_areas(self) -> dict[int, float]:
        return self._image.object_areas()

    @property
    def annotation(self) -> Path:
        return self._image.annotation
