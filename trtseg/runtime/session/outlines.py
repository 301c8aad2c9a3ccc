"""Masks as polygons and run lengths."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np


class Polygon(NamedTuple):
    """One connected part of a mask.

    Attributes:
        outline: float32 [N, 2], (x, y) in image pixels, through the centres of border pixels.
        holes: outlines of the holes in it.
    """

    outline: np.ndarray
    holes: tuple[np.ndarray, ...]


def polygons(mask: np.ndarray, tolerance_px: float = 1.0) -> list[Polygon]:
    """Outlines of a mask, the part with the longest outline first.

    Args:
        mask: uint8 [H, W], non-zero is object.
        tolerance_px: how far a simplified outline may lie from the exact one; 0 keeps all points.

    Returns:
        One entry per connected part; empty for an empty mask.

    Raises:
        TypeError: tolerance_px is no number.
        ValueError: tolerance_px is negative or not finite.
    """
    given: object = tolerance_px
    if isinstance(given, bool) or not isinstance(given, (int, float, np.number)):
        raise TypeError(f"tolerance_px: expected a number, got {given!r}")
    if not 0 <= tolerance_px < np.inf:
        raise ValueError(f"tolerance_px: expected >= 0, got {tolerance_px}")
    tolerance_px = min(float(tolerance_px), float(max(mask.shape)))
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for index, contour in enumerate(contours):
        following, _, child, parent = (int(link) for link in hierarchy.reshape(-1, 4)[index])
        del following
        if parent >= 0:
            continue
        holes = []
        while child >= 0:
            holes.append(_simplified(contours[child], tolerance_px))
            child = int(hierarchy.reshape(-1, 4)[child][0])
        found.append(Polygon(_simplified(contour, tolerance_px), tuple(holes)))
    return sorted(found, key=lambda part: -cv2.arcLength(part.outline, closed=True))


def _simplified(contour: np.ndarray, tolerance_px: float) -> np.ndarray:
    if tolerance_px > 0:
        contour = cv2.approxPolyDP(contour, tolerance_px, closed=True)
    return contour.reshape(-1, 2).astype(np.float32)


def rle(mask: np.ndarray) -> dict[str, object]:
    """COCO's compressed run lengths: {"size": [H, W], "counts": text}.

    Args:
        mask: [H, W], non-zero is object.
    """
    size = [int(mask.shape[0]), int(mask.shape[1])]
    return {"size": size, "counts": _packed(run_lengths(mask))}


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's run lengths as numbers: column by column, background and object in turn.

    Args:
        mask: [H, W], non-zero is object.

    Returns:
        The first counts background, and is 0 where the mask begins with object.
    """
    flat = (mask != 0).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate(([0], changes, [flat.size]))
    counts = np.diff(edges).tolist()
    return [0, *counts] if flat[0] else counts


def _packed(counts: list[int]) -> str:
    """Each count, from the fourth on as the difference to the one two before, in 5-bit groups."""
    text = bytearray()
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            group = value & 0x1F
            value >>= 5
            more = value != (-1 if group & 0x10 else 0)
            text.append((group | (0x20 if more else 0)) + 48)
    return text.decode("ascii")
