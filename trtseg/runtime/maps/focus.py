"""Focus crops: where a small object is looked at more closely.

The crop has the image's aspect ratio and the image's working size, so that no buffer, engine
profile or captured graph is needed beyond those of the first click. All of this is a function of
the events of a session alone, which is what makes undo exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trtseg.types import Click, Prompt, Region, Stroke

EXPAND = 1.4  # side of the crop over side of the object's box
KEEP = 1.15  # the object's box, expanded by this, must stay inside the crop
FOCUS_BELOW = 0.6  # crop when its side is at most this part of the image's
REFINE_BELOW = 0.5  # crop again when a new crop's side is at most this part of the present one's
SMALLEST = 0.25  # of the working size's long side: never enlarge more than four times
_FAR = 1e9  # pixels; further out nothing differs
SEAM = 1 / 16  # of the crop's side, over which it fades into what surrounds it


def object_box(
    mask_box: Region | None, prompts: Sequence[Prompt], whole: Region
) -> Region | None:
    """The box (y0, x0, y1, x1) around a mask's box and the prompts; None without either.

    What of the prompts lies outside of `whole` does not count.
    """
    boxes = [] if mask_box is None else [mask_box]
    for prompt in prompts:
        if isinstance(prompt, Click):
            y, x = prompt.pixel
            boxes.append((y, x, y + 1, x + 1))
            continue
        margin = min(prompt.radius_px, _FAR) if isinstance(prompt, Stroke) else 0.0
        points = prompt.points if isinstance(prompt, Stroke) else prompt.outline
        xs, ys = (np.clip(np.array(axis), -_FAR, _FAR) for axis in zip(*points, strict=True))
        y0, x0 = (int(np.floor(axis.min() - margin + 0.5)) for axis in (ys, xs))
        y1, x1 = (int(np.floor(axis.max() + margin + 0.5)) + 1 for axis in (ys, xs))
        box = _clip((y0, x0, y1, x1), whole)
        if box[0] < box[2] and box[1] < box[3]:
            boxes.append(box)
    if not boxes:
        return None
    lows, highs = np.array(boxes)[:, :2].min(0), np.array(boxes)[:, 2:].max(0)
    return int(lows[0]), int(lows[1]), int(highs[0]), int(highs[1])


def image_box(mask: np.ndarray, region: Region) -> Region | None:
    """The box (y0, x0, y1, x1) in the image around a mask, bool [H, W], on a region's grid."""
    ys, xs = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if len(ys) == 0:
        return None
    y0, x0, y1, x1 = region
    height, width = (y1 - y0) / mask.shape[0], (x1 - x0) / mask.shape[1]
    return (
        int(y0 + ys[0] * height), int(x0 + xs[0] * width),
        min(y1, int(np.ceil(y0 + (ys[-1] + 1) * height))),
        min(x1, int(np.ceil(x0 + (xs[-1] + 1) * width))),
    )  # fmt: skip


def focus_region(whole: Region, current: Region, box: Region | None, long_side_px: int) -> Region:
    """The region on which the next click works.

    Args:
        whole: what was encoded for the session.
        current: the region of the present state.
        box: see `object_box`, the new click included.
        long_side_px: of the working size.

    Returns:
        `whole` while the object is large or unknown; `current` while it still fits and a new crop
        would gain little; else a crop around the box.
    """
    if box is None:
        return whole
    height, width = whole[2] - whole[0], whole[3] - whole[1]
    zoom = max(
        (box[2] - box[0]) * EXPAND / height,
        (box[3] - box[1]) * EXPAND / width,
        long_side_px * SMALLEST / max(height, width),
    )
    if current != whole:
        kept = _clip(_expand(box, KEEP), whole)
        inside = all(kept[i] >= current[i] and kept[i + 2] <= current[i + 2] for i in (0, 1))
        if inside and zoom * height > REFINE_BELOW * (current[2] - current[0]):
            return current
    if zoom > FOCUS_BELOW:
        return whole
    sides = max(1, round(height * zoom)), max(1, round(width * zoom))
    region = []
    for axis in (0, 1):
        centre = (box[axis] + box[axis + 2]) / 2
        start = round(centre - sides[axis] / 2)
        region.append(min(max(start, whole[axis]), whole[axis + 2] - sides[axis]))
    return region[0], region[1], region[0] + sides[0], region[1] + sides[1]


def _expand(box: Region, factor: float) -> Region:
    grow = [(box[axis + 2] - box[axis]) * (factor - 1) / 2 for axis in (0, 1)]
    y0, x0 = (int(np.floor(box[axis] - grow[axis])) for axis in (0, 1))
    y1, x1 = (int(np.ceil(box[axis + 2] + grow[axis])) for axis in (0, 1))
    return y0, x0, y1, x1


def _clip(box: Region, whole: Region) -> Region:
    y0, x0 = max(box[0], whole[0]), max(box[1], whole[1])
    return y0, x0, min(box[2], whole[2]), min(box[3], whole[3])


def resample(values: np.ndarray, source: Region, target: Region) -> np.ndarray:
    """A map on the grid of one region, on the same grid laid over another.

    Bilinear between cell centres, constant beyond the outermost ones.

    Args:
        values: float [H, W].
        source, target: regions in image pixels.

    Returns:
        float32 [H, W].
    """
    rows, columns = (
        _positions(values.shape[axis], source, target, axis) for axis in (0, 1)
    )
    top = np.clip(np.floor(rows).astype(int), 0, max(values.shape[0] - 2, 0))
    left = np.clip(np.floor(columns).astype(int), 0, max(values.shape[1] - 2, 0))
    down = np.clip(rows - top, 0, 1).astype(np.float32)[:, None]
    right = np.clip(columns - left, 0, 1).astype(np.float32)
    values = values.astype(np.float32, copy=False)
    bottom = np.minimum(top + 1, values.shape[0] - 1)
    lines = values[top] * (1 - down) + values[bottom] * down
    return lines[:, left] * (1 - right) + (
        lines[:, np.minimum(left + 1, values.shape[1] - 1)] * right
    )


def covers(grid: tuple[int, int], source: Region, target: Region) -> np.ndarray:
    """bool [H, W]: which cells of `target`'s grid have their centre in `source`."""
    inside = []
    for axis in (0, 1):
        at = _positions(grid[axis], source, target, axis)
        inside.append((at >= -0.5) & (at <= grid[axis] - 0.5))
    return inside[0][:, None] & inside[1][None, :]


def seam_weight(grid: tuple[int, int], region: Region, whole: Region) -> np.ndarray:
    """float32 [H, W]: 1 inside the crop, fading to 0 at borders that are not the image's."""
    lines = []
    for axis in (0, 1):
        n = grid[axis]
        cells = (np.arange(n) + 0.5) / (n * SEAM)
        low = cells if region[axis] > whole[axis] else np.ones(n)
        high = cells[::-1] if region[axis + 2] < whole[axis + 2] else np.ones(n)
        lines.append(np.minimum(np.minimum(low, high), 1))
    return np.minimum(lines[0][:, None], lines[1][None, :]).astype(np.float32)


def _positions(cells: int, source: Region, target: Region, axis: int) -> np.ndarray:
    """Where the cell centres of `target` lie on `source`'s grid, along one axis."""
    target_cell = (target[axis + 2] - target[axis]) / cells
    source_cell = (source[axis + 2] - source[axis]) / cells
    pixels = target[axis] + (np.arange(cells) + 0.5) * target_cell
    return (pixels - source[axis]) / source_cell - 0.5
