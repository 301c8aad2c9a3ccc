"""COCO's compressed run lengths, read back; `trtseg.runtime.session.outlines.rle` writes them."""

from __future__ import annotations

import numpy as np


def decode(size: tuple[int, int], counts: str) -> np.ndarray:
    """A mask, uint8 [H, W], 0 and 1.

    Raises:
        ValueError: the text is no run lengths, or they do not fill `size` exactly.
    """
    height, width = size
    lengths = _lengths(counts)
    if min(lengths, default=0) < 0 or height < 1 or width < 1 or sum(lengths) != height * width:
        raise ValueError(f"counts: expected run lengths that fill {height} x {width} pixels")
    values = np.arange(len(lengths)) % 2
    flat = np.repeat(values.astype(np.uint8), lengths)
    return np.ascontiguousarray(flat.reshape(width, height).T)


def _lengths(counts: str) -> list[int]:
    found: list[int] = []
    value = shift = 0
    for letter in counts:
        group = ord(letter) - 48
        if not 0 <= group < 64 or shift > 60:
            raise ValueError(f"counts: expected compressed run lengths, got {letter!r} in them")
        value |= (group & 0x1F) << shift
        shift += 5
        if not group & 0x20:
            if group & 0x10:
                value -= 1 << shift
            found.append(value + found[-2] if len(found) > 2 else value)
            value = shift = 0
    if shift:
        raise ValueError("counts: expected compressed run lengths, got the beginning of some")
    return found
