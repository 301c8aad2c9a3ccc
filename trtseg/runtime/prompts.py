"""Prompts on the grid: what the networks are told of clicks, strokes, boxes and loops."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from trtseg.runtime.region import fill_outline, region_map
from trtseg.types import Click, Prompt, Region, Stroke, grid_points

# cells between two points of a stroke: a distance to it is off by at most a cell and a half
SPACING = 2
# points of a stroke at most; a longer or thicker one has wider spacing
MOST_POINTS = 256
_SHIFT = 4  # OpenCV's fixed point: 1/16 of a cell


@dataclass(frozen=True, eq=False)
class GridPrompts:
    """Prompts on the grid of a region.

    Attributes:
        positive, negative: float32 [N, 2], (y, x) in cells: S_p and S_n of LD section 2, a stroke
            being the set of its points; the newest last of its kind.
        region: float32 [H, W], see `region_map`: of the newest box or loop; None without one.
    """

    positive: np.ndarray
    negative: np.ndarray
    region: np.ndarray | None = None


def on_grid(prompts: Sequence[Prompt], region: Region, grid: tuple[int, int]) -> GridPrompts:
    """Prompts in image pixels on the grid of a region of the image.

    Args:
        prompts: the newest last.
        region: over which the grid lies.
        grid: (height, width).
    """
    points: dict[bool, list[np.ndarray]] = {True: [], False: []}
    outline = None
    for prompt in prompts:
        if isinstance(prompt, Click):
            points[prompt.positive].append(grid_points([(prompt.x, prompt.y)], region, grid))
        elif isinstance(prompt, Stroke):
            points[prompt.positive].append(stroke_points(prompt, region, grid))
        else:
            outline = prompt.outline
    around = None
    if outline is not None:
        around = region_map(fill_outline(_clipped(outline, region, grid), grid))
    return GridPrompts(_joined(points[True]), _joined(points[False]), around)


def cells(points: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """The cells, int [N, 2], under points [N, 2] on a grid (height, width); the nearest ones of
    those outside."""
    return np.clip(np.floor(points + 0.5), 0, np.array(grid) - 1).astype(int)


def _joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros((0, 2), np.float32), *parts])


def stroke_cells(stroke: Stroke, region: Region, grid: tuple[int, int]) -> np.ndarray:
    """The cells that a stroke covers, bool [H, W]; none where it lies outside of the grid."""
    drawn = np.zeros(grid, np.uint8)
    line = _clipped(stroke.points, region, grid)
    fixed = np.round(line[:, ::-1] * (1 << _SHIFT)).astype(np.int32)
    thickness = _thickness(stroke, region, grid)
    cv2.polylines(drawn, [fixed], False, 1, thickness, cv2.LINE_8, _SHIFT)
    return drawn.view(bool)


def _thickness(stroke: Stroke, region: Region, grid: tuple[int, int]) -> int:
    cell_px = (region[2] - region[0]) / grid[0]
    return max(1, round(min(2 * stroke.radius_px / cell_px, 2 * max(grid))))


def _clipped(
    points: Sequence[tuple[float, float]], region: Region, grid: tuple[int, int]
) -> np.ndarray:
    """`grid_points`, those far outside brought to where fixed point numbers reach."""
    limit = max(grid) * 4
    far = limit * max((region[2] - region[0]) / grid[0], (region[3] - region[1]) / grid[1])
    y0, x0 = region[:2]
    near = [(min(max(x, x0 - far), x0 + far), min(max(y, y0 - far), y0 + far)) for x, y in points]
    return np.clip(grid_points(near, region, grid), -limit, limit)


def stroke_points(stroke: Stroke, region: Region, grid: tuple[int, int]) -> np.ndarray:
    """Points all over a stroke, float32 [N, 2], (y, x) in cells; N is at least 1.

    They lie on the drawn cells, `SPACING` apart, whether or not the stroke leaves the grid; a
    stroke that lies outside is represented by the point of it that is nearest to the grid.
    """
    cells = np.argwhere(stroke_cells(stroke, region, grid))
    if len(cells) == 0:
        line = _clipped(stroke.points, region, grid)
        last = np.array(grid, np.float32) - 1
        away = np.maximum(np.maximum(-line, line - last), 0)
        return line[[int(np.square(away).sum(1).argmin())]]
    spacing = SPACING
    if _thickness(stroke, region, grid) > 1:
        spacing = max(spacing, math.ceil(math.sqrt(len(cells) / MOST_POINTS)))
        lattice = (cells % spacing == 0).all(1)
        if lattice.any():
            return cells[lattice].astype(np.float32)
    step = max(spacing, math.ceil(len(cells) / MOST_POINTS))
    return cells[::step].astype(np.float32)
