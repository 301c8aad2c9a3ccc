"""Simulated clicks for training: the three strategies of Xu et al. 2016, and corrections."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from trtseg.evaluate.clicks import interior_distance
from trtseg.ops import distance_transform
from trtseg.parse import at_least, fractions

# shares of corrections that are not near the centre of the deepest error
ANYWHERE = 0.2
OTHER_ERROR = 0.1
# how deep in a mistake a click at its edge lies at most, in pixels of the target
EDGE_DEPTH = 2


@dataclass(frozen=True)
class PromptConfig:
    """How samples begin, and go on; distances in pixels of the crop.

    Attributes:
        stroke_fraction: share of samples that begin with a stroke along the object.
        region_fraction: with a box or a loose loop around the object, mostly without a click.
        repair_fraction: with a mask of which a region is spoiled, and a click there.
        single_fraction: of the others, which begin with clicks, with one positive click alone.
        edge_fraction: of those with one click: with one at most 5 pixels from the object's
            boundary.
        max_positive: of those with several, at most this many positives.
        max_negative: at most this many negatives per strategy.
        margins: least distance of a click to the object's boundary, one drawn per sample.
        steps: least distance between clicks of one kind, one drawn per sample.
        band: negatives near the object lie at most this far from it.
        slip_px: clicks are moved by up to so many pixels along each axis, as a hand does.
        group_fraction: the object is several labelled ones that touch, or all of them.
        corrections: at most this many rounds of clicks on the network's own mistakes.
        edge_corrections: share of these at the edge of the mistake, at most `EDGE_DEPTH` in.
        trained_rounds: of a step's rounds, so many are differentiated, the first and the last
            ones: what lies between makes masks and clicks alone. None for all of them.
    """

    stroke_fraction: float = 0.0
    region_fraction: float = 0.0
    repair_fraction: float = 0.0
    single_fraction: float = 0.65
    edge_fraction: float = 0.0
    max_positive: int = 5
    max_negative: int = 5
    margins: tuple[int, ...] = (3, 5, 10, 15)
    steps: tuple[int, ...] = (7, 10, 20)
    band: int = 40
    slip_px: int = 0
    group_fraction: float = 0.0
    corrections: int = 3
    edge_corrections: float = 0.0
    trained_rounds: int | None = None

    def __post_init__(self) -> None:
        kinds = ("stroke_fraction", "region_fraction", "repair_fraction")
        fractions(self, *kinds, "single_fraction", "edge_fraction", "group_fraction",
                  "edge_corrections")  # fmt: skip
        if sum(getattr(self, name) for name in kinds) > 1:
            raise ValueError(f"{', '.join(kinds)}: expected at most 1 together")
        at_least(self, 0, "max_negative", "corrections", "slip_px")
        at_least(self, 1, "max_positive", "trained_rounds")
        for name in ("margins", "steps"):
            if not getattr(self, name) or min(getattr(self, name)) < 0:
                raise ValueError(f"{name}: expected distances, got {getattr(self, name)}")


def central_pixel(mask: np.ndarray, rng: np.random.Generator) -> tuple[int, int] | None:
    """A random pixel (y, x) at least a random fraction of the largest depth inside `mask`.

    The fraction is uniform in [0, 1): from anywhere in the mask to its very centre.
    """
    depth = interior_distance(mask)
    deepest = float(depth.max())
    if deepest <= 0:
        return None
    return _draw(depth > rng.random() * deepest * 0.999, rng)


def _draw(allowed: np.ndarray, rng: np.random.Generator) -> tuple[int, int] | None:
    candidates = np.flatnonzero(allowed)
    if len(candidates) == 0:
        return None
    y, x = divmod(int(candidates[rng.integers(len(candidates))]), allowed.shape[1])
    return y, x


def _spread(
    allowed: np.ndarray, count: int, step: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Up to `count` random pixels of `allowed`, no two closer than `step`."""
    allowed = allowed.copy()
    points: list[tuple[int, int]] = []
    while len(points) < count and (point := _draw(allowed, rng)) is not None:
        points.append(point)
        cv2.circle(mask := allowed.view(np.uint8), (point[1], point[0]), step, 0, -1)
        allowed = mask.view(bool)
    return points


def _around(ring: np.ndarray, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """`count` pixels of `ring`, each the farthest from those before it (Xu et al., strategy 3)."""
    points: list[tuple[int, int]] = []
    candidates = np.argwhere(ring)
    if len(candidates) == 0:
        return points
    point = candidates[rng.integers(len(candidates))]
    nearest = np.full(len(candidates), np.inf)
    for _ in range(count):
        points.append((int(point[0]), int(point[1])))
        nearest = np.minimum(nearest, ((candidates - point) ** 2).sum(1))
        point = candidates[int(nearest.argmax())]
    return points


def initial_clicks(
    target: np.ndarray, others: np.ndarray, config: PromptConfig, rng: np.random.Generator
) -> np.ndarray:
    """The clicks a sample begins with.

    Args:
        target: uint8 [H, W], 1 object, 0 background, 255 void.
        others: bool [H, W], pixels of other objects.
        config: counts and distances.
        rng: the only source of randomness.

    Returns:
        float32 [P, 3], rows (y, x, label); empty when the object is empty.
    """
    inside = target == 1
    first = central_pixel(inside, rng)
    if first is None:
        return np.zeros((0, 3), np.float32)
    if rng.random() < config.single_fraction:
        return np.asarray([(*first, 1)], np.float32)
    margin = int(rng.choice(config.margins))
    step = int(rng.choice(config.steps))
    depth = interior_distance(inside)
    # a thin object has no pixel that deep: half of its own depth is the margin then
    allowed = depth > min(margin, depth.max() / 2)
    positives = _spread(allowed, int(rng.integers(1, config.max_positive + 1)), step, rng)
    outside = target == 0
    away = distance_transform(inside)
    strategy = rng.integers(3)
    count = int(rng.integers(0, config.max_negative + 1))
    if strategy == 0:
        region = outside & (away >= margin) & (away <= config.band)
        negatives = _spread(region, count, step, rng)
    elif strategy == 1:
        negatives = _spread(others & outside & (away >= margin), count, step, rng)
    else:
        ring = outside & (away >= margin) & (away < margin + 2)
        negatives = _around(ring, count, rng)
    rows = [(y, x, 1) for y, x in positives] + [(y, x, 0) for y, x in negatives]
    return np.asarray(rows, np.float32).reshape(-1, 3)


def correction_click(
    predicted: np.ndarray, target: np.ndarray, rng: np.random.Generator, at_edge: float = 0.0
) -> tuple[int, int, int] | None:
    """A click (y, x, label) in the deeper error region; None without error.

    Mostly near the region's centre, as the standard protocol clicks, else anywhere in it or at its
    edge; now and then on the error of the other kind.

    Args:
        predicted: bool [H, W].
        target: uint8 [H, W], 1 object, 0 background, 255 void.
        rng: draws where.
        at_edge: share of clicks at the region's edge, at most `EDGE_DEPTH` in.
    """
    missed = (target == 1) & ~predicted
    excess = (target == 0) & predicted
    depth_missed, depth_excess = interior_distance(missed), interior_distance(excess)
    positive = depth_missed.max() >= depth_excess.max()
    if rng.random() < OTHER_ERROR and min(depth_missed.max(), depth_excess.max()) > 1:
        positive = not positive
    depth = depth_missed if positive else depth_excess
    if depth.max() <= 0:
        return None
    kind, share = rng.random(), rng.random()
    if kind < at_edge:
        point = _draw((depth > 0) & (depth <= EDGE_DEPTH), rng)
    else:
        central = kind >= at_edge + (1 - at_edge) * ANYWHERE
        least = 0.5 + 0.499 * share if central else 0.5 * share
        point = _draw(depth > least * depth.max(), rng)
    return None if point is None else (*point, int(positive))
