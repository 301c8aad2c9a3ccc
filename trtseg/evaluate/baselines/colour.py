"""Colour models: smoothed histograms in CIE Lab."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True, eq=False)
class ColourBins:
    """An image whose every pixel knows its bin.

    Attributes:
        index: int32 [H, W] into a flat histogram of `bins` ** 3.
        bins: per channel.
        sigma: in bins, of the Gaussian that smooths histograms.
    """

    index: np.ndarray
    bins: int
    sigma: float

    @classmethod
    def of(cls, image: np.ndarray, bins: int, sigma: float) -> ColourBins:
        """Bins of an image, uint8 RGB [H, W, 3]."""
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.int32) * bins // 256
        return cls((lab[..., 0] * bins + lab[..., 1]) * bins + lab[..., 2], bins, sigma)

    def likelihood(self, where: np.ndarray, floor: float = 1e-3) -> np.ndarray:
        """p(colour) of every pixel under the smoothed histogram of some pixels.

        Args:
            where: bool [H, W], the sample; an empty one gives the uniform distribution.
            floor: share of the uniform distribution that is mixed in, so that no colour is
                impossible.

        Returns:
            float64 [H, W], relative to the uniform distribution (1 is "as likely as any").
        """
        return self._density(where, floor)[self.index]

    def cost(self, where: np.ndarray, floor: float = 1e-3) -> np.ndarray:
        """-log of `likelihood`."""
        return -np.log(self._density(where, floor))[self.index]

    def _density(self, where: np.ndarray, floor: float) -> np.ndarray:
        count = self.bins**3
        histogram = np.bincount(self.index[where], minlength=count).astype(np.float64)
        if histogram.sum() == 0:
            return np.ones(count)
        cube = histogram.reshape(self.bins, self.bins, self.bins)
        for axis in range(3):
            cube = _smooth(cube, axis, self.sigma)
        density = cube.ravel() / cube.sum() * count
        return (1 - floor) * density + floor


def _smooth(cube: np.ndarray, axis: int, sigma: float) -> np.ndarray:
    if sigma <= 0:
        return cube
    bins = cube.shape[axis]
    reach = min(bins - 1, int(np.ceil(3 * sigma)))
    kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    rows = np.ascontiguousarray(np.moveaxis(cube, axis, 0)).reshape(bins, -1)
    # reflected at the ends, so that no mass is lost there
    smooth = cv2.sepFilter2D(
        rows, -1, np.ones(1), kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT
    )
    return np.moveaxis(smooth.reshape(bins, bins, bins), 0, axis)


def object_probability(object_likelihood: np.ndarray, other_likelihood: np.ndarray) -> np.ndarray:
    """P(object | colour) with equal priors, in (0, 1)."""
    return object_likelihood / (object_likelihood + other_likelihood)
