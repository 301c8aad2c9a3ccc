"""Relaxed Jaccard loss and click penalty of several masks at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from trtseg.ops.backend import check_rank, empty, is_torch, native, torch_ops


def jaccard(
    masks: Any,
    target: Any,
    positive: Any,
    negative: Any,
    *,
    stream: int = 0,
) -> tuple[Any, Any]:
    """Per mask: 1 - sum min(A, B) / sum max(A, B) (LD eq. 3), and the clicks it disobeys (eq. 4).

    On torch tensors both results can be differentiated with respect to `masks`.

    Args:
        masks: float32 or float16 [M, H, W] in [0, 1], M of 1 to 32.
        target: uint8 or bool [H, W]: 0 background, 255 ignored, any other value object.
        positive: int32 [P, 2], (y, x) of pixels clicked as object; P may be 0. A pixel listed twice
            counts twice, one that `target` ignores counts.
        negative: int32 [Q, 2], (y, x) of pixels clicked as background; Q may be 0.
        stream: CUDA stream handle; ignored on the CPU.

    All arrays are C-contiguous.

    Returns:
        (loss, penalty), float32 [M] each, on the device of `masks`. The loss is 0 where mask and
        target are both empty, NaN where a NaN in the mask counts. penalty = sum of
        (1 - mask) over positive and of mask over negative.

    Raises:
        TypeError: array library or dtype not supported.
        ValueError: shape or memory layout wrong, or a click outside the masks (host arrays; on a
            CUDA device such a click is skipped).
    """
    if is_torch(masks):
        return torch_ops().jaccard(masks, target, positive, negative, stream=stream)
    backend = native(masks, "masks")
    check_rank(masks, "M, H, W", "masks")
    count, height, width = masks.shape
    loss, penalty = (empty(masks, (count,), np.float32, stream) for _ in range(2))
    sums = empty(masks, (count, 2), np.float32, stream)
    scratch = empty(masks, (backend.jaccard_scratch(count, height, width),), np.uint8, stream)
    backend.jaccard(masks, target, positive, negative, loss, penalty, sums, scratch, stream)
    return loss, penalty
