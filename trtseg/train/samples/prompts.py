"""What a training sample begins with: clicks, a stroke, a box, a loop, or a mask to repair."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from trtseg.runtime.region import fill_outline, region_map
from trtseg.train.samples.clicks import (
    PromptConfig,
    central_pixel,
    correction_click,
    initial_clicks,
    interior_distance,
)

# pixels of the crop between two points of a stroke
STROKE_STEP = 4
MAX_STROKE_POINTS = 48


@dataclass
class Prompt:
    """What the network is told before its first mask.

    Attributes:
        clicks: float32 [P, 3], rows (y, x, label) in pixels of the crop; P may be 0.
        region: float32 [h, w] on the grid, see `trtseg.runtime.region.region_map`; or None.
        mask: float32 [h, w] in [0, 1] on the grid, the mask so far; or None.
    """

    clicks: np.ndarray
    region: np.ndarray | None = None
    mask: np.ndarray | None = None


def initial_prompt(
    target: np.ndarray,
    others: np.ndarray,
    config: PromptConfig,
    stride: int,
    rng: np.random.Generator,
) -> Prompt:
    """The prompt that a sample begins with.

    Args:
        target: uint8 [H, W], 1 object, 0 background, 255 void.
        others: bool [H, W], pixels of other objects.
        config: fractions, counts and distances.
        stride: crop pixels per cell of the grid.
        rng: the only source of randomness.
    """
    kind = rng.random()
    inside = target == 1
    if not inside.any():
        return Prompt(np.zeros((0, 3), np.float32))
    if kind < config.region_fraction:
        outline = box(inside, rng) if rng.random() < 0.6 else loop(inside, rng)
        size = target.shape[0] // stride, target.shape[1] // stride
        region = region_map(fill_outline((outline + 0.5) / stride - 0.5, size))
        clicks = np.zeros((0, 3), np.float32)
        if rng.random() < 0.25 and (point := central_pixel(inside, rng)) is not None:
            clicks = np.asarray([(*point, 1)], np.float32)
        return Prompt(clicks, region)
    kind -= config.region_fraction
    if kind < config.stroke_fraction:
        return Prompt(stroke(inside, rng))
    kind -= config.stroke_fraction
    if kind < config.repair_fraction:
        return _repair(target, stride, rng)
    if rng.random() < config.single_fraction * config.edge_fraction:
        depth = interior_distance(inside)
        places = np.argwhere((depth > 0) & (depth <= 5))
        clicks = np.append(places[rng.integers(len(places))], 1)[None].astype(np.float32)
    else:
        clicks = initial_clicks(target, others, config, rng)
    return Prompt(_slipped(clicks, target.shape, config.slip_px, rng))


def _slipped(
    clicks: np.ndarray, size: tuple[int, ...], reach: int, rng: np.random.Generator
) -> np.ndarray:
    if reach == 0:
        return clicks
    moved = clicks.copy()
    moved[:, :2] += rng.integers(-reach, reach + 1, (len(clicks), 2))
    moved[:, :2] = moved[:, :2].clip(0, np.array(size) - 1)
    return moved


def box(inside: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The corners [4, 2] (y, x) of a box as a hand draws it: a little loose, now and then tight."""
    rows, columns = np.nonzero(inside)
    low = np.array([rows.min(), columns.min()]) - 0.5
    high = np.array([rows.max(), columns.max()]) + 0.5
    loose = rng.uniform(-0.02, 0.08, (2, 2)) * (high - low) * (rng.random() < 0.8)
    (top, left), (bottom, right) = low - loose[0], high + loose[1]
    return np.array([[top, left], [top, right], [bottom, right], [bottom, left]], np.float32)


def loop(inside: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The points [N, 2] (y, x) of a loose closed line around the object."""
    reach = 2 + float(np.sqrt(inside.sum())) * rng.uniform(0.02, 0.15)
    margin = int(reach * 2) + 2
    padded = np.pad(inside.astype(np.float32), margin)
    side = int(reach) * 2 + 1
    grown = cv2.dilate(padded, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    smooth = cv2.GaussianBlur(grown, (0, 0), max(1.0, reach / 2))
    contours, _ = cv2.findContours(
        (smooth > 0.4).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    points = np.concatenate([contour[:, 0] for contour in contours])
    if len(contours) > 1:
        points = cv2.convexHull(points)[:, 0]
    wobble = rng.normal(0, reach / 8, (1, 2))
    return (points[:, ::-1] - margin + wobble).astype(np.float32)


def stroke(inside: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positive rows [P, 3] along a part of the object's ridge, or on a line through it."""
    depth = interior_distance(inside)
    ridge = (depth >= cv2.dilate(depth, np.ones((3, 3), np.uint8)) - 1e-3) & (
        depth > 0.3 * depth.max()
    )
    places = np.argwhere(ridge)
    if len(places) >= 8 and rng.random() < 0.6:
        centred = places - places.mean(0)
        axis = np.linalg.svd(centred, full_matrices=False)[2][0]
        along = centred @ axis
        length = np.ptp(along)
        start = along.min() + rng.random() * 0.4 * length
        kept = places[(along >= start) & (along <= start + rng.uniform(0.4, 1.0) * length)]
        order = rng.permutation(len(kept))
        points = kept[order]
    else:
        ends = [central_pixel(inside, rng) for _ in range(int(rng.integers(2, 4)))]
        knots = np.array([end for end in ends if end is not None], float)
        pieces = []
        for first, second in pairwise(knots):
            count = max(2, int(np.abs(second - first).max() / STROKE_STEP))
            pieces.append(np.linspace(first, second, count))
        points = np.concatenate([*pieces, knots[-1:]]).round().astype(int)
        points = points[inside[points[:, 0], points[:, 1]]]
    chosen: list[np.ndarray] = []
    free = np.ones(inside.shape, np.uint8)
    for y, x in points:
        if free[y, x] and len(chosen) < MAX_STROKE_POINTS:
            chosen.append(np.array([y, x, 1.0]))
            cv2.circle(free, (int(x), int(y)), STROKE_STEP - 1, 0, -1)
    return np.asarray(chosen, np.float32).reshape(-1, 3)


def _repair(target: np.ndarray, stride: int, rng: np.random.Generator) -> Prompt:
    """A good mask of which one region is missing or too much, and a click there."""
    inside = target == 1
    spoiled = inside.astype(np.uint8)
    rows, columns = np.nonzero(inside)
    radius = max(4, int(np.sqrt(len(rows)) * rng.uniform(0.15, 0.5)))
    index = rng.integers(len(rows))
    centre = np.array([rows[index], columns[index]])
    if rng.random() < 0.5:
        cv2.circle(spoiled, (int(centre[1]), int(centre[0])), radius, 0, -1)
    else:
        edge = np.argwhere((interior_distance(inside) <= 1.5) & inside)
        y, x = edge[rng.integers(len(edge))] + rng.integers(-radius, radius + 1, 2)
        cv2.circle(spoiled, (int(x), int(y)), radius, 1, -1)
    click = correction_click(spoiled > 0, target, rng)
    size = target.shape[1] // stride, target.shape[0] // stride
    mask = cv2.resize(spoiled.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 2.0))
    rows_of_click = np.zeros((0, 3), np.float32) if click is None else np.array([click])
    return Prompt(rows_of_click.astype(np.float32), None, mask)
