"""Simulated users: where the next click goes, given the object and the current mask.

The "given-mask" protocol (DAVIS-585, Chen et al. 2022) is the standard one from a faulty mask on:
`protocol.record_object` shows it to the method, and the first click corrects it. In "spoiled-mask"
the faulty mask is the method's own, see `protocol.spoiled_mask`.

A clicker is made for one object and asked for one click after the other. It never clicks a void
pixel and never the same pixel twice, and answers None when no error is left to click on.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod

import cv2
import numpy as np

from trtseg.ops import distance_transform
from trtseg.parse import one_of
from trtseg.types import Click


def interior_distance(region: np.ndarray) -> np.ndarray:
    """Distance of each pixel of a region to the nearest pixel outside of it.

    Pixels beyond the image count as outside ("padded"), so that a click keeps away from the
    image's border as it does from any other.

    Args:
        region: bool [H, W].

    Returns:
        float32 [H, W], exact Euclidean, 0 outside the region.
    """
    # of a mask by columns, as some libraries give it, padding keeps the order
    outside = np.ascontiguousarray(np.pad(~region, 1, constant_values=True))
    return distance_transform(outside)[1:-1, 1:-1]


class Clicker(ABC):
    """The part that all simulated users share: what is wrong, and what was clicked before.

    Args:
        mask: uint8 [H, W], the truth: 1 object, 0 not, 255 void.
        rng: what users who draw draw from.

    Raises:
        ValueError: the mask is not a uint8 array of two axes.
    """

    def __init__(self, mask: np.ndarray, rng: np.random.Generator | None = None) -> None:
        self._rng = rng
        mask = np.asarray(mask)
        if mask.dtype != np.uint8 or mask.ndim != 2:
            raise ValueError(f"mask: expected uint8 [H, W], got {mask.dtype} {mask.shape}")
        self.inside = mask == 1
        self.outside = mask == 0
        self.unclicked = np.ones(mask.shape, bool)

    @property
    def rng(self) -> np.random.Generator:
        """What the click is drawn from."""
        if self._rng is None:
            raise ValueError("rng: expected a generator, for this user draws; got None")
        return self._rng

    def next_click(self, predicted: np.ndarray | None = None) -> Click | None:
        """The next click, or None when nothing is left to correct.

        Args:
            predicted: [H, W], not 0 where the current mask is; None before the first click.

        Raises:
            ValueError: `predicted` is not of the truth's size.
        """
        if predicted is None:
            predicted = np.zeros(self.inside.shape, bool)
        elif predicted.shape != self.inside.shape:
            raise ValueError(
                f"predicted: expected {self.inside.shape}, the size of the truth, "
                f"got {predicted.shape}"
            )
        predicted = predicted.astype(bool)
        found = self.choose(self.inside & ~predicted, self.outside & predicted)
        if found is None:
            return None
        y, x, positive = found
        self.unclicked[y, x] = False
        return Click(float(x), float(y), positive)

    @abstractmethod
    def choose(self, missed: np.ndarray, excess: np.ndarray) -> tuple[int, int, bool] | None:
        """(y, x, positive) of the next click in `missed` (positive) or `excess` (negative)."""


class StandardClicker(Clicker):
    """The protocol of RITM, f-BRS and FocalClick, to which published NoC refer.

    Of the exact distance transforms of the missed and of the excess pixels (each padded by one
    pixel), the larger maximum is clicked; a tie goes to the excess, and among equal pixels to
    the first in row-major order. Pixels clicked before count as distance 0.
    """

    def choose(self, missed: np.ndarray, excess: np.ndarray) -> tuple[int, int, bool] | None:
        depth_missed = interior_distance(missed) * self.unclicked
        depth_excess = interior_distance(excess) * self.unclicked
        positive = bool(depth_missed.max() > depth_excess.max())
        depth = depth_missed if positive else depth_excess
        y, x = divmod(int(depth.argmax()), depth.shape[1])
        return (y, x, positive) if depth[y, x] > 0 else None


class CentreClicker(Clicker):
    """Continuous adaptation: the centre of the largest error region.

    The region is the connected set (8 neighbours) of missed or of excess pixels with the most
    pixels; its centre is the pixel farthest from its border, the first in row-major order.
    """

    def choose(self, missed: np.ndarray, excess: np.ndarray) -> tuple[int, int, bool] | None:
        best: tuple[int, np.ndarray, bool] | None = None
        for error, positive in ((missed, True), (excess, False)):
            count, labels, stats, _ = cv2.connectedComponentsWithStats(error.astype(np.uint8))
            if count < 2:
                continue
            # a region whose every pixel was clicked has nothing more to offer
            open_pixels = np.bincount(labels[self.unclicked & error], minlength=count)
            areas = np.where(open_pixels > 0, stats[:, cv2.CC_STAT_AREA], 0)
            areas[0] = 0
            index = int(areas.argmax())
            if areas[index] > 0 and (best is None or areas[index] > best[0]):
                best = int(areas[index]), labels == index, positive
        if best is None:
            return None
        depth = interior_distance(best[1]) * self.unclicked
        y, x = divmod(int(depth.argmax()), depth.shape[1])
        return y, x, best[2]


class _RandomClicker(Clicker):
    """A click drawn with a probability per pixel."""

    def choose(self, missed: np.ndarray, excess: np.ndarray) -> tuple[int, int, bool] | None:
        weights = self.weigh(missed, excess).astype(np.float64).ravel()
        total = weights.sum()
        if total <= 0:
            return None
        index = int(self.rng.choice(weights.size, p=weights / total))
        y, x = divmod(index, missed.shape[1])
        return y, x, bool(missed[y, x])

    @abstractmethod
    def weigh(self, missed: np.ndarray, excess: np.ndarray) -> np.ndarray:
        """Probability of each pixel up to a common factor, 0 where no click may go."""


class LatentDiversityClicker(_RandomClicker):
    """LD eq. 8: P(p) proportional to the geodesic distance of p to its region's boundary.

    The region of the first click is the object; later, the misclassified pixels: the missed ones
    give positive clicks, the excess ones negative, each with the boundary of its own region. The
    geodesic distance within a region to its boundary is the Euclidean one, for the segment to the
    nearest boundary point does not leave the region.
    """

    def weigh(self, missed: np.ndarray, excess: np.ndarray) -> np.ndarray:
        return (interior_distance(missed) + interior_distance(excess)) * self.unclicked


class RandomClicker(_RandomClicker):
    """A careless user: any misclassified pixel, all alike."""

    def weigh(self, missed: np.ndarray, excess: np.ndarray) -> np.ndarray:
        return (missed | excess) & self.unclicked


class BoundaryClicker(_RandomClicker):
    """A user who traces errors at their edge: a pixel at most `band_px` inside the larger error.

    The error is chosen as the standard protocol chooses it.
    """

    band_px = 3.0

    def weigh(self, missed: np.ndarray, excess: np.ndarray) -> np.ndarray:
        depth_missed = interior_distance(missed) * self.unclicked
        depth_excess = interior_distance(excess) * self.unclicked
        depth = depth_missed if depth_missed.max() > depth_excess.max() else depth_excess
        return (depth > 0) & (depth <= self.band_px)


class JitterClicker(StandardClicker):
    """A user whose hand shakes: the standard click, displaced by a Gaussian.

    The sign is the intended one, so on a thin object the click can be wrong, as a real slip is.
    The displaced click stays inside the image and off void pixels: after 20 tries that fail, the
    click goes where it was meant to.
    """

    sigma_px = 5.0

    def choose(self, missed: np.ndarray, excess: np.ndarray) -> tuple[int, int, bool] | None:
        intended = super().choose(missed, excess)
        if intended is None:
            return None
        y, x, positive = intended
        height, width = missed.shape
        allowed = (self.inside | self.outside) & self.unclicked
        for _ in range(20):
            dy, dx = np.rint(self.rng.normal(0.0, self.sigma_px, 2)).astype(int)
            v, u = y + dy, x + dx
            if 0 <= v < height and 0 <= u < width and allowed[v, u]:
                return int(v), int(u), positive
        return y, x, positive


PROTOCOLS: dict[str, type[Clicker]] = {
    "standard": StandardClicker,
    "latent-diversity": LatentDiversityClicker,
    "continuous-adaptation": CentreClicker,
    "random": RandomClicker,
    "jitter": JitterClicker,
    "boundary": BoundaryClicker,
    "given-mask": StandardClicker,
    "spoiled-mask": StandardClicker,
}


def draws(seed: int, name: str) -> np.random.Generator:
    """What is drawn for an object: it depends on (seed, name) alone."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def make_clicker(protocol: str, mask: np.ndarray, *, seed: int = 0, name: str = "") -> Clicker:
    """The clicker of a protocol for one object.

    Args:
        protocol: one of `PROTOCOLS`.
        mask: uint8 [H, W]: 1 object, 0 not, 255 void.
        seed: of the evaluation; used by the protocols that draw.
        name: of the object. The draw depends on (seed, name) alone, hence not on the order of
            the objects, the number of workers or an interruption.

    Raises:
        ValueError: an unknown protocol.
    """
    one_of("protocol", protocol, PROTOCOLS)
    return PROTOCOLS[protocol](mask, draws(seed, name))
