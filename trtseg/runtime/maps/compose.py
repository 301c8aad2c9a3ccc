"""From a probability map on the base grid to a mask of the image's size."""

from __future__ import annotations

import cv2
import numpy as np

from trtseg import ops
from trtseg.runtime.engine import Array, Memory
from trtseg.types import Region


def box_of(mask: np.ndarray) -> Region | None:
    """The box (y0, x0, y1, x1), half open, around the non-zero pixels; None without any."""
    x, y, width, height = cv2.boundingRect(mask)
    return (y, x, y + height, x + width) if width else None


def compose(
    memory: Memory,
    probability: Array,
    region: Region,
    threshold: float,
    out: np.ndarray,
    composed: np.ndarray | None = None,
) -> Region | None:
    """Write the mask of a map that lies over a region; outside of it the mask is empty.

    Args:
        memory: where the map lives; the mask is made there, too.
        probability: [h, w] on the base grid.
        region: where it lies in the image.
        threshold: a pixel is object from this probability on.
        out: uint8 [H, W] on the host, of the image's size; receives 0 and 255.
        composed: uint8 of the region's size: the map's mask, where a click has made it already.

    Returns:
        The box of the object.
    """
    y0, x0, y1, x1 = region
    size = y1 - y0, x1 - x0
    if size != out.shape:
        out.fill(0)
    inner = out[y0:y1, x0:x1]
    if isinstance(probability, np.ndarray):
        ops.compose_mask(probability, size, threshold=threshold, out=inner)
    else:
        if composed is None:
            made = memory.empty(size, np.dtype(np.uint8))
            with memory.queueing():
                ops.compose_mask(
                    probability, size, threshold=threshold, out=made, stream=memory.stream
                )
            composed = memory.host(made)
        np.copyto(inner, composed)
    found = box_of(inner)
    return None if found is None else (found[0] + y0, found[1] + x0, found[2] + y0, found[3] + x0)


def changes(
    mask: np.ndarray, previous: np.ndarray, box: Region | None, previous_box: Region | None
) -> Region | None:
    """The box of the pixels that differ, of two masks with their boxes (none of an empty one).

    All of them lie within the boxes: of a large image nothing else is read.
    """
    boxes = [each for each in (box, previous_box) if each is not None]
    if len(boxes) < 2:
        return boxes[0] if boxes else None
    (top, left), (bottom, right) = np.min(boxes, 0)[:2], np.max(boxes, 0)[2:]
    part = slice(top, bottom), slice(left, right)
    found = box_of(cv2.bitwise_xor(mask[part], previous[part]))
    if found is None:
        return None
    return (
        int(found[0] + top),
        int(found[1] + left),
        int(found[2] + top),
        int(found[3] + left),
    )


def compose_probability(
    memory: Memory, probability: Array, region: Region, size: tuple[int, int], threshold: float
) -> np.ndarray:
    """The probability at the image's size, float32 [H, W]; 0 outside of the region."""
    y0, x0, y1, x1 = region
    with memory.queueing():
        _, values = ops.compose_mask(
            probability,
            (y1 - y0, x1 - x0),
            threshold=threshold,
            return_probability=True,
            stream=memory.stream,
        )
    values = memory.host(values)
    if (y1 - y0, x1 - x0) == size:
        return values
    full = np.zeros(size, np.float32)
    full[y0:y1, x0:x1] = values
    return full
