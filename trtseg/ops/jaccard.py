"""Relaxed Jaccard loss and click penalty of several masks at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from trtseg.ops.backend import check_rank, empty, native, run


def jaccard(
    masks: Any,
    target: Any,
    positive: Any,
    negative: Any,
    *,
    stream: int = 0,
) -> tuple[Any, Any, Any]:
    """Per mask: 1 - sum min(A, B) / sum max(A, B) (LD eq. 3), and the clicks it disobeys (eq. 4).

    Args:
        masks: float32 or float16 [M, H, W] in [0, 1], M of 1 to 32.
        target: uint8 or bool [H, W]: 0 background, 255 ignored, any other value object.
        positive: int32 [P, 2], (y, x) of pixels clicked as object; P may be 0. A pixel listed twice
            counts twice, one that `target` ignores counts.
        negative: int32 [Q, 2], (y, x) of pixels clicked as background; Q may be 0.
        stream: CUDA stream handle; 0 for the default one (torch's current one for its tensors);
            ignored on the CPU.

    All arrays are C-contiguous.

    Returns:
        (loss, penalty, sums) on the device of `masks`, float32: [M], 0 where mask and target are
        both empty, NaN where a NaN in the mask counts; [M], the sum of (1 - mask) over positive and
        of mask over negative; [M, 2], what `jaccard_gradient` needs.

    Raises:
        TypeError: array library or dtype not supported.
        ValueError: shape or memory layout wrong, or a click outside the masks (host arrays; on a
            CUDA device such a click is skipped).
        BackendUnavailable: an array in CUDA memory, but no `_cuda` or no usable device.
    """
    backend = native(masks, "masks")
    check_rank(masks, "M, H, W", "masks")
    count, height, width = masks.shape
    loss, penalty = (empty(masks, (count,), np.float32, stream) for _ in range(2))
    sums = empty(masks, (count, 2), np.float32, stream)
    scratch = empty(masks, (backend.jaccard_scratch(count, height, width),), np.uint8, stream)
    arrays = (masks, target, positive, negative, loss, penalty, sums, scratch)
    run(backend.jaccard, *arrays, stream=stream)
    return loss, penalty, sums


def jaccard_gradient(
    target: Any,
    positive: Any,
    negative: Any,
    sums: Any,
    loss_weight: Any,
    penalty_weight: Any,
    out: Any,
    *,
    stream: int = 0,
) -> Any:
    """The gradient of sum(loss_weight * loss + penalty_weight * penalty) in the masks.

    Args:
        target, positive, negative: as `jaccard` took them.
        sums: as `jaccard` gave them; the masks themselves are not needed again.
        loss_weight, penalty_weight: float32 [M].
        out: float32 or float16 [M, H, W] to write into.
        stream: as above.

    Returns:
        `out`.

    Raises:
        TypeError, ValueError: as above.
        BackendUnavailable: an array in CUDA memory, but no `_cuda` or no usable device.
    """
    backend = native(out, "out")
    arrays = (target, positive, negative, sums, loss_weight, penalty_weight, out)
    run(backend.jaccard_gradient, *arrays, stream=stream)
    return out
