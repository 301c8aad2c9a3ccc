"""Distribution shifts: the same objects, as another modality might show them.

A shift is a function of an image, uint8 RGB [H, W, 3] to the same; a new one needs its line in
`SHIFTS` and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from trtseg.evaluate.datasets.dataset import ImageOf, LabelledImage


def inverted(image: np.ndarray) -> np.ndarray:
    """Colours complemented, channels reversed."""
    return np.ascontiguousarray(255 - image[..., ::-1])


def thermal(image: np.ndarray) -> np.ndarray:
    """One inverted, blurred grey channel of little contrast."""
    grey = 255 - cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    grey = cv2.GaussianBlur(grey, (0, 0), 1.5)
    return cv2.cvtColor((grey.astype(np.float32) * 0.6 + 40).astype(np.uint8), cv2.COLOR_GRAY2RGB)


def faint(image: np.ndarray) -> np.ndarray:
    """Blurred, grainy, and nearly of one colour, as tissue is: far from any photograph."""
    soft = cv2.GaussianBlur(image, (0, 0), 2.0).astype(np.float32)
    grey = cv2.cvtColor(soft, cv2.COLOR_RGB2GRAY)[..., None]
    noise = np.random.default_rng(0).normal(0, 30, image.shape[:2]).astype(np.float32)
    grain = cv2.GaussianBlur(noise, (0, 0), 1.5)[..., None]
    light, colour = 0.18 * (grey - 128), 0.08 * (soft - grey)
    found = np.array([195, 140, 125], np.float32) + light + colour + grain
    return found.clip(0, 255).astype(np.uint8)


SHIFTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "inverted": inverted, "thermal": thermal, "faint": faint,
}


class ShiftedImage(ImageOf):
    """An image of another data set under a shift; its objects are the same."""

    def __init__(self, image: LabelledImage, shift: str) -> None:
        super().__init__(image)
        self._shift = SHIFTS[shift]

    def read_image(self) -> np.ndarray:
        return self._shift(super().read_image())
