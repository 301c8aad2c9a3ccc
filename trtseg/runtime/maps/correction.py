"""Corrections that stay local and hold: what a session changes of the networks' maps.

All of it happens to the probabilities on the base grid, before they are kept: what is shown, what
the next click builds on, and what is learnt from are one.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from trtseg.runtime.prompts import stroke_cells
from trtseg.types import Click, Prompt, Region, Stroke, grid_points

TOUCH = 2  # cells around a prompt in which a change counts as touched by it
RIM = 2  # cells around a change that come with it, so that its edge is the networks'
REACH = 3.0  # cells that an enforced click reaches, where no opposite one is nearer
# How far beyond the threshold an enforced cell goes, as a part of what there is to 0 or 1; and the
# least that a clicked pixel lies beyond it, more than half precision and interpolation lose.
FIRM, LEAST = 0.4, 0.004
PROJECTIONS = 200  # at most; clicks of both kinds within a cell need some


def keep_local(
    previous: np.ndarray,
    values: np.ndarray,
    newest: Sequence[Prompt],
    region: Region,
    threshold: float,
) -> np.ndarray:
    """The new map near what the newest prompts ask for, the previous one elsewhere.

    Of the cells whose label changes, the connected parts that no new prompt touches are taken
    back (progressive merge, as in FocalClick). A box or a lasso is about the whole object.

    Args:
        previous, values: float32 [H, W] on the grid of the region.
        newest: the prompts that came between them.
        region: where the maps lie.
        threshold: a cell is object from this probability on.

    Returns:
        float32 [H, W]; `values` itself where nothing is taken back.
    """
    if not all(isinstance(prompt, (Click, Stroke)) for prompt in newest):
        return values
    changed = (values >= threshold) != (previous >= threshold)
    _, parts = cv2.connectedComponents(changed.view(np.uint8), connectivity=8)
    near = _dilated(_touched(newest, region, values.shape), TOUCH)
    kept = np.unique(parts[near & changed])
    about = np.isin(parts, kept[kept > 0])
    if (about == changed).all() and about.any():
        return values
    return np.where(_dilated(about, RIM) & (about | ~changed), values, previous)


def _touched(prompts: Sequence[Prompt], region: Region, grid: tuple[int, ...]) -> np.ndarray:
    size = grid[0], grid[1]
    cells = np.zeros(size, bool)
    for prompt in prompts:
        if isinstance(prompt, Stroke):
            cells |= stroke_cells(prompt, region, size)
        elif isinstance(prompt, Click):
            cells[_cell(prompt, region, size)] = True
    return cells


def _cell(click: Click, region: Region, grid: tuple[int, int]) -> tuple[int, int]:
    y, x = np.floor(grid_points([(click.x, click.y)], region, grid)[0] + 0.5).astype(int)
    return min(max(int(y), 0), grid[0] - 1), min(max(int(x), 0), grid[1] - 1)


def _dilated(cells: np.ndarray, radius: int) -> np.ndarray:
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    return cv2.dilate(cells.view(np.uint8), kernel).view(bool)


def enforce(
    maps: np.ndarray,
    prompts: Sequence[Prompt],
    region: Region,
    image_size: tuple[int, int],
    threshold: float,
) -> tuple[np.ndarray, tuple[bool, ...]]:
    """Maps whose masks give every clicked pixel, and every stroke's cell, the label it was given.

    Where the maps do not, the probability is raised or lowered: on the cells of a stroke, and
    around a click by a bump that fades over `REACH` cells, so that cells which nearly agreed come
    along; then by the smallest change of the cells around the clicked pixels. Of prompts that
    contradict each other on one pixel the newest counts. Boxes and lassos only guide.

    Args:
        maps: float [M, H, W] on the grid of the region.
        prompts: all of them, the newest last.
        region: where the maps lie; prompts outside are left alone.
        image_size: (height, width), to which clicks on the edge are rounded.
        threshold: a pixel is object from this probability on.

    Returns:
        (the maps, whether each obeyed by itself); `maps` itself where all did.
    """
    grid = maps.shape[1], maps.shape[2]
    clicks, drawn = _constraints(prompts, region, image_size, grid)
    wrong = _wrong_cells(maps, drawn, threshold)
    broken = wrong.reshape(len(maps), -1).any(1) | _violated(maps, clicks, threshold).any(1)
    obeyed = np.logical_not(broken)
    if obeyed.all():
        return maps, (True,) * len(maps)
    values = maps.astype(np.float32)
    firm = np.where(drawn > 0, threshold + FIRM * (1 - threshold), threshold * (1 - FIRM))
    np.copyto(values, firm.astype(np.float32)[None], where=wrong)
    _bump(values, clicks, threshold)
    _project(values, clicks, threshold)
    return values.astype(maps.dtype, copy=False), tuple(bool(one) for one in obeyed)


class _Clicks:
    """Clicked pixels on the grid.

    Attributes:
        at: float32 [K, 2], (y, x) of the pixels' centres in cells, clamped to the outermost.
        sign: float32 [K], 1 for object, -1 for background.
        rows, columns, weights: [K, 4], the cells that a pixel's probability is interpolated from.
    """

    def __init__(
        self, pixels: dict[tuple[int, int], bool], region: Region, grid: tuple[int, int]
    ) -> None:
        last = np.array(grid, np.float32) - 1
        points = grid_points([(x, y) for y, x in pixels], region, grid)
        self.at = np.clip(points, 0, last)
        self.sign = np.where(list(pixels.values()), 1, -1).astype(np.float32)
        low = np.minimum(np.floor(self.at), np.maximum(last - 1, 0))
        part = self.at - low
        steps = np.array([(0, 0), (0, 1), (1, 0), (1, 1)])
        cells = np.minimum(low[:, None].astype(int) + steps, last.astype(int))
        self.rows, self.columns = cells[..., 0], cells[..., 1]
        self.weights = np.where(steps, part[:, None], 1 - part[:, None]).prod(2)

    def values(self, maps: np.ndarray) -> np.ndarray:
        """[M, K]: the probability at the pixels."""
        found = maps[:, self.rows, self.columns].astype(np.float32)
        return (found * self.weights).sum(2)


def _constraints(
    prompts: Sequence[Prompt], region: Region, image_size: tuple[int, int], grid: tuple[int, int]
) -> tuple[_Clicks, np.ndarray]:
    """(clicked pixels, int8 [H, W]: 1 and -1 under strokes), without what newer ones overrule."""
    drawn = np.zeros(grid, np.int8)
    pixels: dict[tuple[int, int], Click] = {}
    for prompt in prompts:
        if isinstance(prompt, Stroke):
            cells = stroke_cells(prompt, region, grid)
            drawn[cells] = 1 if prompt.positive else -1
            for pixel, click in list(pixels.items()):
                if click.positive != prompt.positive and cells[_cell(click, region, grid)]:
                    del pixels[pixel]
        elif isinstance(prompt, Click):
            y, x = (min(p, n - 1) for p, n in zip(prompt.pixel, image_size, strict=True))
            if region[0] <= y < region[2] and region[1] <= x < region[3]:
                pixels.pop((y, x), None)
                pixels[y, x] = prompt
                around = _Clicks({(y, x): True}, region, grid)
                drawn[around.rows, around.columns] = 0
    return _Clicks({p: click.positive for p, click in pixels.items()}, region, grid), drawn


def _wrong_cells(maps: np.ndarray, drawn: np.ndarray, threshold: float) -> np.ndarray:
    inside = maps >= threshold
    return (inside & (drawn < 0)) | (~inside & (drawn > 0))


def _violated(maps: np.ndarray, clicks: _Clicks, threshold: float) -> np.ndarray:
    """bool [M, K]: which pixels have, or rounded a little otherwise might have, the wrong label."""
    return (clicks.values(maps) - threshold) * clicks.sign < LEAST / 4


def _bump(values: np.ndarray, clicks: _Clicks, threshold: float) -> None:
    """Bring cells around violated clicks over the threshold, those that nearly were first."""
    y, x = np.ogrid[: values.shape[1], : values.shape[2]]
    for k, (cy, cx) in enumerate(clicks.at):
        sign = clicks.sign[k]
        opposite = clicks.at[clicks.sign != sign]
        away = np.sqrt(((opposite - (cy, cx)) ** 2).sum(1)).min(initial=np.inf)
        # a cell and a half further out begin the cells of the opposite one
        reach = min(REACH, away - 1.5)
        if reach < 1:
            continue
        weight = np.maximum(1 - ((y - cy) ** 2 + (x - cx) ** 2) / reach**2, 0)
        goal = threshold + sign * FIRM * (1 - threshold if sign > 0 else threshold)
        for m in np.flatnonzero(_violated(values, clicks, threshold)[:, k]):
            height = goal - clicks.values(values[m : m + 1])[0, k]
            values[m] = np.clip(values[m] + height * weight, 0, 1)


def _project(values: np.ndarray, clicks: _Clicks, threshold: float) -> None:
    """Cyclic projections on the half spaces of the clicks: each the least change for its pixel."""
    for _ in range(PROJECTIONS):
        violated = np.argwhere(_violated(values, clicks, threshold))
        if len(violated) == 0:
            return
        for m, k in violated:
            rows, columns, weights = clicks.rows[k], clicks.columns[k], clicks.weights[k]
            goal = threshold + clicks.sign[k] * LEAST
            missing = goal - clicks.values(values[m : m + 1])[0, k]
            change = (missing * weights / (weights**2).sum()).astype(np.float32)
            np.add.at(values[m], (rows, columns), change)
            np.clip(values[m], 0, 1, out=values[m])

