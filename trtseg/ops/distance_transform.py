"""Exact Euclidean distance to the nearest True pixel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from trtseg.ops.backend import check_rank, empty, native, run


def distance_transform(
    mask: Any,
    *,
    limit_px: float | None = None,
    out: Any = None,
    stream: int = 0,
) -> Any:
    """Exact Euclidean distance from every pixel to the nearest True pixel.

    `scipy.ndimage.distance_transform_edt` and `cv2.distanceTransform` measure the distance to the
    nearest zero: this is theirs of the inverted mask.

    Args:
        mask: bool or uint8 [H, W], nonzero is True; rows may lie apart; sides at most 32767.
        limit_px: larger distances become this, which saves time; > 0; None for no limit.
        out: float32 [H, W] to write into, rows may lie apart; allocated when None.
        stream: CUDA stream handle; 0 for the default one (torch's current one for its tensors);
            ignored on the CPU.

    Returns:
        The distances, 0 on True pixels, on the device of `mask`. Without any True pixel: `limit_px`
        (infinity without limit).

    Raises:
        TypeError: array library or dtype not supported.
        ValueError: shape or memory layout wrong, `out` shares memory with `mask`, or limit_px not
            above 0.
        BackendUnavailable: an array in CUDA memory, but no `_cuda` or no usable device.
    """
    backend = native(mask, "mask")
    check_rank(mask, "H, W", "mask")
    height, width = mask.shape
    limit = math.inf if limit_px is None else limit_px
    scratch_size = backend.distance_transform_scratch(height, width)
    scratch = empty(mask, (scratch_size,), np.uint8, stream)
    target = empty(mask, (height, width), np.float32, stream) if out is None else out
    run(backend.distance_transform, mask, target, scratch, limit, stream=stream)
    return target
