"""The sum of the bilinear upsamplings of projected feature levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trtseg.ops.backend import (
    check_levels,
    check_rank,
    check_shape,
    check_size,
    empty_maps,
    is_channels_last,
    native,
    run,
)


def hypercolumn(
    levels: Sequence[Any],
    size: tuple[int, int],
    *,
    image: Any = None,
    image_weight: Any = None,
    bias: Any = None,
    out: Any = None,
    stream: int = 0,
) -> Any:
    """sum_l upsample(levels[l]) + image_weight . image + bias, in one pass.

    A 1x1 convolution of concatenated upsampled levels equals the sum of the upsampled levels, each
    projected at its own resolution: the concatenation never exists. Upsampling is bilinear with
    half-pixel centres and clamped edges, as torch's `align_corners=False`.

    Args:
        levels: 1 to 8 maps, float32 or float16 [C, h_l, w_l]; rows and planes may lie apart. In
            CUDA memory levels and `out` may be channels-last instead, all of them, which is faster.
        size: (height, width) of the result.
        image: same dtype [3, H, W]; comes together with `image_weight`.
        image_weight: float32 [C, 3].
        bias: float32 [C].
        out: same dtype [C, H, W] to write into, rows may lie apart, sharing no memory with what
            is read; allocated when None.
        stream: CUDA stream handle; 0 for the default one (torch's current one for its tensors);
            ignored on the CPU.

    Returns:
        `out`, on the device of `levels`; sums are float32 and rounded once.

    Raises:
        TypeError: array library or dtype not supported, or dtypes differ.
        ValueError: shape or memory layout wrong, `out` overlaps with an input, or only one of image
            and image_weight given.
        BackendUnavailable: an array in CUDA memory, but no `_cuda` or no usable device.
    """
    check_levels(levels)
    height, width = check_size(size)
    backend = native(levels[0], "levels[0]")
    check_rank(levels[0], "C, h, w", "levels[0]")
    shape = (levels[0].shape[0], height, width)
    if out is None:
        # a map of one pixel does not tell
        out = empty_maps(next(filter(is_channels_last, levels), levels[0]), shape, stream)
    else:
        check_shape(out, shape, "out")
    run(backend.hypercolumn, list(levels), image, image_weight, bias, out, stream=stream)
    return out
