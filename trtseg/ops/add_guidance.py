"""What the clicks add to an image's encoding."""

from __future__ import annotations

from typing import Any

from trtseg.ops.backend import check_rank, empty_maps, native, run


def add_guidance(
    base: Any,
    guidance: Any,
    weight: Any,
    *,
    slope: float = 0.2,
    out: Any = None,
    stream: int = 0,
) -> Any:
    """leaky_relu(base + weight . guidance): the first layer, completed by what a click changes.

    Args:
        base: float32 or float16 [C, H, W], the part that depends on the image alone.
        guidance: same dtype [G, H, W], 1 to 16 click, distance and mask maps.
        weight: float32 [C, G].
        slope: of the leaky ReLU below zero.
        out: same dtype [C, H, W] to write into; may be `base` itself; allocated when None. All
            arrays are C-contiguous; in CUDA memory base and out may be channels-last instead,
            which is faster.
        stream: CUDA stream handle; 0 for the default one (torch's current one for its tensors);
            ignored on the CPU.

    Returns:
        `out`, on the device of `base`; sums are float32 and rounded once.

    Raises:
        TypeError: array library or dtype not supported, or dtypes differ.
        ValueError: shape or memory layout wrong, `out` overlaps with an input in another way than
            named above, or slope not finite.
        BackendUnavailable: an array in CUDA memory, but no `_cuda` or no usable device.
    """
    backend = native(base, "base")
    check_rank(base, "C, H, W", "base")
    if out is None:
        out = empty_maps(base, tuple(base.shape), stream)
    run(backend.add_guidance, base, guidance, weight, out, slope, stream=stream)
    return out
