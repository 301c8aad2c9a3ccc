"""From an image as its owner has it to the encoder's input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trtseg.ops.backend import check_rank, native, run


def prepare_image(
    pixels: Any,
    out: Any,
    *,
    mean: Sequence[float],
    scale: Sequence[float],
    bgr: bool = False,
    stream: int = 0,
) -> Any:
    """Resize, put into RGB order and normalise: out = (255 pixel - mean) * scale
    of pixels from 0 to 1.

    An axis that shrinks takes the mean of what lies under each output pixel; one that grows is
    interpolated linearly between pixel centres.

    Args:
        pixels: [H, W, C], C of 1 (grey), 3, or 4 (the last is alpha: transparent pixels take the
            mean); uint8 or uint16, or float32 or float16 in [0, 1], which is not checked. Rows and
            pixels may lie apart.
        out: float32 or float16 [3, h, w], RGB.
        mean, scale: three numbers each, RGB, for values of 0 to 255.
        bgr: the channels of `pixels` come as BGR.
        stream: CUDA stream handle; 0 for the default one (torch's current one for its tensors);
            ignored on the CPU.

    Returns:
        `out`.

    Raises:
        TypeError: array library or dtype not supported.
        ValueError: shape or memory layout wrong, or `out` shares memory with the pixels.
        BackendUnavailable: an array in CUDA memory, but no `_cuda` or no usable device.
    """
    check_rank(pixels, "H, W, C", "pixels")
    check_rank(out, "3, h, w", "out")
    backend = native(pixels, "pixels")
    run(backend.prepare_image, pixels, tuple(mean), tuple(scale), bgr, out, stream=stream)
    return out
