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
    previous: Any = None,
    return_probability: bool = False,
    out: Any = None,
    stream: int = 0,
) -> tuple[Any, Any, Any]:
    """Upsample a probability map bilinearly, threshold it, and say where the mask changed.

    Args:
        probability: float32 or float16 [h, w], one map, rows may lie apart.
        size: (height, width) of the mask.
        threshold: the mask is 255 where the upsampled probability is at least this, else 0.
        previous: uint8 [H, W] of 0 and 255, the mask to compare with; may be `out` itself.
        return_probability: also return the upsampled probability.
        out: uint8 [H, W] to write into, rows may lie apart; allocated when None.
        stream: CUDA stream handle; 0 for the default one (torch's current one for its tensors);
            ignored on the CPU.

    Returns:
        (mask, probability, box), on the device of the input: uint8 [H, W]; float32 [H, W] or None;
        int32 [4] (y0, x0, y1, x1), half open, around all pixels that differ from `previous`, zeros
        if none does, None without `previous`.

    Raises:
        TypeError: array library or dtype not supported.
        ValueError: shape or memory layout wrong, `out` overlaps with an input without being
            `previous`, or the threshold is NaN.
        BackendUnavailable: an array in CUDA memory, but no `_cuda` or no usable device.
    """
    height, width = check_size(size)
    backend = native(probability, "probability")
    if out is None:
        out = empty(probability, (height, width), np.uint8, stream)
    else:
        check_shape(out, (height, width), "out")
    upsampled = box = None
    if return_probability:
        upsampled = empty(probability, (height, width), np.float32, stream)
    if previous is not None:
        box = empty(probability, (4,), np.int32, stream)
    run(
        backend.compose_mask, probability, threshold, out, upsampled, previous, box, stream=stream
    )
    return out, upsampled, box
