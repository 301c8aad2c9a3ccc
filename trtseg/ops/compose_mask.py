"""From a low-resolution probability map to the mask at the image's size."""

from __future__ import annotations

from typing import Any

import numpy as np

from trtseg.ops.backend import check_shape, check_size, empty, native, run


def compose_mask(
    probability: Any,
    size: tuple[int, int],
    *,
    threshold: float = 0.5,
    return_probability: bool = False,
    out: Any = None,
    stream: int = 0,
) -> tuple[Any, Any]:
    """Upsample a probability map bilinearly, and threshold it.

    Args:
        probability: float32 or float16 [h, w], one map, rows may lie apart.
        size: (height, width) of the mask.
        threshold: the mask is 255 where the upsampled probability is at least this, else 0.
        return_probability: also return the upsampled probability.
        out: uint8 [H, W] to write into, rows may lie apart; allocated when None.
        stream: CUDA stream handle; 0 for the default one (torch's current one for its tensors);
            ignored on the CPU.

    Returns:
        (mask, probability), on the device of the input: uint8 [H, W]; float32 [H, W] or None.

    Raises:
        TypeError: array library or dtype not supported.
        ValueError: shape or memory layout wrong, `out` overlaps with the input, or the threshold
            is NaN.
        BackendUnavailable: an array in CUDA memory, but no `_cuda` or no usable device.
    """
    height, width = check_size(size)
    backend = native(probability, "probability")
    if out is None:
        out = empty(probability, (height, width), np.uint8, stream)
    else:
        check_shape(out, (height, width), "out")
    upsampled = None
    if return_probability:
        upsampled = empty(probability, (height, width), np.float32, stream)
    run(backend.compose_mask, probability, threshold, out, upsampled, stream=stream)
    return out, upsampled
