"""Truncated distance to the nearest of a few points."""

from __future__ import annotations

from typing import Any

import numpy as np

from trtseg.ops.backend import (
    check_float_type,
    check_shape,
    check_size,
    empty,
    is_torch,
    native,
    torch_ops,
)


def distance_map(
    points: Any,
    size: tuple[int, int],
    *,
    limit_px: float,
    into: Any = None,
    out: Any = None,
    dtype: Any = np.float32,
    stream: int = 0,
) -> Any:
    """Distance from every pixel to its nearest point (LD eq. 1, truncated).

    Args:
        points: float32 [N, 2], (y, x) in pixels of the map, fractions and positions outside the
            map allowed; N may be 0.
        size: (height, width) of the map.
        limit_px: larger distances become this; finite, > 0; at most 65504 for a float16 map.
        into: an existing map [H, W] to add the points to, in place: the result has the same bits
            as a map of all its points. Excludes `out`.
        out: float32 or float16 [H, W] to write into, rows may lie apart; allocated when None.
        dtype: float32 or float16, of a map that is allocated.
        stream: CUDA stream handle; ignored on the CPU.

    Returns:
        `into` or `out` or a new array, on the device of `points`; all `limit_px` when N == 0.

    Raises:
        TypeError: array library or dtype not supported.
        ValueError: shape or memory layout wrong, a map that shares memory with the points, a
            coordinate not finite (host arrays), limit_px out of its range, or both `into` and
            `out` given.
    """
    if is_torch(points):
        return torch_ops().distance_map(
            points, size, limit_px=limit_px, into=into, out=out, dtype=dtype, stream=stream
        )
    height, width = check_size(size)
    if into is not None and out is not None:
        raise ValueError("into: expected None when out is given, got both")
    backend = native(points, "points")
    target = into if into is not None else out
    if target is None:
        target = empty(points, (height, width), check_float_type(dtype), stream)
    else:
        check_shape(target, (height, width), "out" if into is None else "into")
    backend.distance_map(points, target, limit_px, into is not None, stream)
    return target
