"""Star-convexity priors: Gulshan, Rother, Criminisi, Blake and Zisserman, CVPR 2010.

The object is a union of stars around the positive clicks: with a pixel, every pixel on the path
from its nearest centre belongs to the object too. The constraint is kept exactly, by edges of
unbreakable weight from each pixel to the next one on its path.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from trtseg.evaluate.baselines.clicks import click_pixel
from trtseg.evaluate.baselines.geodesic import geodesic
from trtseg.evaluate.baselines.graph_cut import EncodedForCut, GraphCut
from trtseg.types import Click


def star_parents(centres: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The next pixel on the way from each pixel straight to its nearest centre.

    Rounding each step on its own would bend the paths: far from the axes they would run along
    one, then diagonally. These are consistent digital rays (Christ, Palvolgyi and Stojakovic
    2012): the diagonal steps of a path are spread over its length by van der Corput's sequence, so
    that paths to a centre form a tree and leave the straight segment by O(log length) pixels.

    Args:
        centres: int [N, 2] (y, x), N > 0; a tie between centres goes to the first.
        size: (height, width).

    Returns:
        int64 [H, W], flat indices, -1 on the centres.
    """
    rows, columns = np.indices(size)
    squared = np.full(size, np.iinfo(np.int64).max)
    dy, dx = np.zeros(size, np.int64), np.zeros(size, np.int64)
    for y, x in centres:
        to_y, to_x = y - rows, x - columns
        distance = to_y * to_y + to_x * to_x
        nearer = distance < squared
        squared[nearer], dy[nearer], dx[nearer] = distance[nearer], to_y[nearer], to_x[nearer]
    longer, shorter = np.maximum(abs(dy), abs(dx)), np.minimum(abs(dy), abs(dx))
    diagonal = _ranks(int(longer.max()))[longer] <= shorter
    step_y = np.where(diagonal | (abs(dy) == longer), np.sign(dy), 0)
    step_x = np.where(diagonal | (abs(dx) == longer), np.sign(dx), 0)
    parents = (rows + step_y) * size[1] + columns + step_x
    return np.where(squared == 0, -1, parents)


def _ranks(count: int) -> np.ndarray:
    """Rank, from 1, of the k-th of van der Corput's numbers among the first k; k = 0 ... count."""
    ranks = [1]
    sorted_values: list[int] = []
    bits = max(1, count.bit_length())
    for k in range(1, count + 1):
        value = int(f"{k:0{bits}b}"[::-1], 2)
        bisect.insort(sorted_values, value)
        ranks.append(bisect.bisect_right(sorted_values, value))
    return np.array(ranks)


def _centres(clicks: Sequence[Click], size: tuple[int, int]) -> np.ndarray:
    return np.array([click_pixel(click, size) for click in clicks if click.positive])


@dataclass(frozen=True)
class EuclideanStar(GraphCut):
    """A graph cut whose object is a union of Euclidean stars around the positive clicks.

    Parameters as in `GraphCut`.
    """

    name: ClassVar[str] = "euclidean-star"
    source: ClassVar[str] = "Gulshan et al., CVPR 2010 (ESC); max-flow by PyMaxflow"

    def parents(self, encoded: EncodedForCut, clicks: Sequence[Click]) -> np.ndarray:
        return star_parents(_centres(clicks, encoded.size), encoded.size)


@dataclass(frozen=True, eq=False)
class EncodedForGeodesicCut(EncodedForCut):
    """And the cost of a path through each pixel."""

    path_cost: np.ndarray


@dataclass(frozen=True)
class GeodesicStar(GraphCut):
    """A graph cut whose object is a union of geodesic stars around the positive clicks.

    Paths are shortest in the metric sqrt((1 - gamma) + gamma |grad I|^2) (the paper's eq. 9), with
    the gradient's magnitude in place of its component along the path. The gradient is scaled to a
    mean square of one. Other parameters as in `GraphCut`.

    Attributes:
        gamma: 0 is the Euclidean star, 1 follows the image alone.
    """

    gamma: float = 0.7
    name: ClassVar[str] = "geodesic-star"
    source: ClassVar[str] = (
        "Gulshan et al., CVPR 2010 (GSC); max-flow by PyMaxflow, paths by scikit-image"
    )

    def encode(self, image: np.ndarray) -> EncodedForGeodesicCut:
        encoded = super().encode(image)
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
        smooth = cv2.GaussianBlur(lab, (0, 0), 1.0)
        squared = (cv2.Sobel(smooth, -1, 1, 0) ** 2 + cv2.Sobel(smooth, -1, 0, 1) ** 2).sum(2)
        mean = float(squared.mean())
        relative = squared.astype(np.float64) / (mean if mean > 0 else 1.0)
        cost = np.sqrt((1 - self.gamma) + self.gamma * relative) + 1e-6
        return EncodedForGeodesicCut(encoded.colours, encoded.pairs, cost)

    def parents(self, encoded: EncodedForCut, clicks: Sequence[Click]) -> np.ndarray:
        assert isinstance(encoded, EncodedForGeodesicCut)
        seeds = np.zeros(encoded.size, bool)
        seeds[tuple(_centres(clicks, encoded.size).T)] = True
        return geodesic(encoded.path_cost, seeds)[1]
