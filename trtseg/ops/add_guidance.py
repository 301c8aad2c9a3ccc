"""What the clicks add to an image's encoding."""

from __future__ import annotations

from typing import Any

from trtseg.ops.backend import check_rank, empty, is_torch, native, torch_ops


def add_guidance(
    base: Any,
    guidance: Any,
    weight: Any,
    *,
    slope: float = 0.2,
    channels_last: bool = False,
    out: Any = None,
    stream: int = 0,
) -> Any:
    """leaky_relu(base + weight . guidance): the first layer, completed by what a click changes.

    Args:
        base: float32 or float16 [C, H, W], the part that depends on the image alone.
        guidance: same dtype [G, H, W], 1 to 16 click, distance and mask maps.
        weight: float32 [C, G].
        slope: of the leaky ReLU below zero.
        channels_last: write [H, W, C] instead of [C, H, W].
        out: same dtype to write into; may be `base` itself unless channels_last; allocated when
            None. All arrays are C-contiguous.
        stream: CUDA stream handle; ignored on the CPU.

    Returns:
        `out`, on the device of `base`; sums are float32 and rounded once.

    Raises:
        TypeError: array library or dtype not supported, or dtypes differ.
        ValueError: shape or memory layout wrong, `out` overlaps with an input in another way than
            named above, or slope not finite.
    """
    if is_torch(base):
        return torch_ops().add_guidance(
            base,
            guidance,
            weight,
            slope=slope,
            channels_last=channels_last,
            out=out,
            stream=stream,
        )
    backend = native(base, "base")
    check_rank(base, "C, H, W", "base")
    if out is None:
        channels, height, width = base.shape
        shape = (height, width, channels) if channels_last else (channels, height, width)
        out = empty(base, shape, base.dtype, stream)
    backend.add_guidance(base, guidance, weight, out, slope, channels_last, stream)
    return out
