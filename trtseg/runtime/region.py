"""A box or a loop around the object as a map that the network reads."""

from __future__ import annotations

import cv2
import numpy as np

from trtseg import ops

# cells from the boundary at which a region map is saturated
REACH = 16.0
_SHIFT = 8  # OpenCV's fixed point: 1/256 of a cell


def fill_outline(outline: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Which cells a closed outline encloses (even-odd rule).

    Args:
        outline: float32 [N, 2], rows (y, x) in cells; the last point is joined to the first.
        size: (height, width) of the grid.

    Returns:
        uint8 [H, W], 1 inside and on the outline, else 0.
    """
    filled = np.zeros(size, np.uint8)
    limit = float(max(size)) * 4
    points = np.clip(outline[:, ::-1], -limit, limit)
    fixed = np.round(points * (1 << _SHIFT)).astype(np.int32)
    cv2.fillPoly(filled, [fixed], 1, lineType=cv2.LINE_8, shift=_SHIFT)
    return filled


def region_map(inside: np.ndarray) -> np.ndarray:
    """Signed distance to the boundary of a region, in units of REACH and clipped.

    Args:
        inside: uint8 [H, W], 1 inside, 0 outside.

    Returns:
        float32 [H, W] in [-1, 1]: positive inside; half a cell from the boundary is 1 / (2 REACH).
    """
    depth = ops.distance_transform(1 - inside, limit_px=REACH + 1)
    away = ops.distance_transform(inside, limit_px=REACH + 1)
    signed = np.where(inside != 0, depth - 0.5, 0.5 - away)
    return np.clip(signed / REACH, -1, 1).astype(np.float32)
