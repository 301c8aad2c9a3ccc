"""The guidance channels that clicks give."""

from __future__ import annotations

from typing import Any

from trtseg.ops.backend import check_rank, native, run


def click_maps(
    points: Any, out: Any, *, limit_px: float, sigma_px: float | None = None, stream: int = 0
) -> Any:
    """Click maps and distance maps (LD eq. 1) of positive and negative clicks, in one pass.

    Args:
        points: float32 [2, N, 2], C-contiguous: positive, then negative clicks, (y, x) in pixels
            of the maps; N may be 0. A point of NaN is none: an array of fixed length holds any
            number of clicks.
        out: float32 or float16 [4, H, W], rows may lie apart. Receives S_p, S_n: 1 on the pixel
            nearest to each click, else 0 (or Gaussians, see `sigma_px`); then T_p, T_n: the
            distance to the nearest click over `limit_px`, at most 1, and 1 without clicks.
        limit_px: larger distances become this; finite, > 0.
        sigma_px: makes S exp(-d^2 / (2 sigma^2)) of the truncated distance d; None for points.
        stream: CUDA stream handle; 0 for the default one (torch's current one for its tensors);
            ignored on the CPU.

    Returns:
        `out`.

    Raises:
        TypeError: array library or dtype not supported.
        ValueError: shape or memory layout wrong, `out` shares memory with the points, or
            limit_px or sigma_px out of its range.
        BackendUnavailable: an array in CUDA memory, but no `_cuda` or no usable device.
    """
    check_rank(out, "4, H, W", "out")
    run(native(points, "points").click_maps, points, out, limit_px, sigma_px, stream=stream)
    return out
