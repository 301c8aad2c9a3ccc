"""From a low-resolution probability map to a finer one that keeps to an image's edges."""

from __future__ import annotations

from typing import Any

from trtseg.ops.backend import check_rank, empty, native, run


def guided_upsample(
    values: Any,
    coarse: Any,
    guide: Any,
    *,
    epsilon: float,
    model: Any = None,
    out: Any = None,
    stream: int = 0,
) -> Any:
    """Upsample a map bilinearly, and let it follow the finer image that guides it.

    The guided filter (He et al. 2013) with its model at low resolution (He and Sun 2015): around
    each cell, over 3 x 3 of them, the map is fitted by a line of the guide; its slope, upsampled,
    times what the guide has more of detail than the cells' means is added to the upsampled map.

    Args:
        values: float32 or float16 [h, w] in [0, 1], rows may lie apart.
        coarse: float32 [h, w], the guide at that size: the means of the cells.
        guide: float32 [H, W], for instance the image's grey values, of any scale.
        epsilon: above 0; the guide's variance around a cell from which on it counts as an edge.
        model: float32 [2, h, w] to write the slopes and the windows' means into; allocated when
            None.
        out: float32 [H, W] to write into; allocated when None.
        stream: CUDA stream handle; 0 for the default one (torch's current one for its tensors);
            ignored on the CPU.

    Returns:
        `out`, in [0, 1], on the device of the input.

    Raises:
        TypeError: array library or dtype not supported.
        ValueError: shape or memory layout wrong, an output shares memory with another argument, or
            epsilon is not a finite number above 0.
        BackendUnavailable: an array in CUDA memory, but no `_cuda` or no usable device.
    """
    module = native(values, "values")
    check_rank(values, "h, w", "values")
    check_rank(guide, "H, W", "guide")
    if model is None:
        model = empty(values, (2, *values.shape), "float32", stream)
    if out is None:
        out = empty(values, tuple(guide.shape), "float32", stream)
    run(module.guided_upsample, values, coarse, guide, epsilon, model, out, stream=stream)
    return out
