"""An object on a transparent ground, with a hard edge or a soft one."""

from __future__ import annotations

import importlib.util

import cv2
import numpy as np

from trtseg.runtime.image import Picture

BAND = 0.02  # half the width of a soft edge's band, over the diagonal of the mask's box
NARROWEST_PX = 3
MATTING_PX = 500_000  # alpha of more pixels is estimated on a reduced copy: it takes 10 us a pixel


def cutout(
    picture: Picture, mask: np.ndarray, probability: np.ndarray | None = None
) -> np.ndarray:
    """The picture's colours, with a mask as alpha.

    Args:
        picture: of the mask's size.
        mask: uint8 [H, W], non-zero is object.
        probability: float32 [H, W]; for a soft edge.

    Returns:
        RGBA [H, W, 4], uint16 or uint8 as the picture; zeros where nothing is to be seen.
    """
    colours, own = picture.colours(), picture.alpha()
    full = np.iinfo(colours.dtype).max
    alpha = (mask != 0).astype(np.float32)
    if probability is not None:
        _soften(colours, alpha, probability)
    if own is not None:
        alpha *= own.astype(np.float32) / full
    opacity = np.rint(alpha * full).astype(colours.dtype)
    colours[opacity == 0] = 0
    return np.dstack((colours, opacity))


def _soften(colours: np.ndarray, alpha: np.ndarray, probability: np.ndarray) -> None:
    """Give alpha, 0 and 1, a soft edge in place, and the edge the object's own colours."""
    x, y, width, height = cv2.boundingRect(alpha.astype(np.uint8))
    if not width:
        return
    half = max(NARROWEST_PX, round(BAND * float(np.hypot(width, height))))
    rows = slice(max(0, y - 2 * half), y + height + 2 * half)
    columns = slice(max(0, x - 2 * half), x + width + 2 * half)
    inner, soft = alpha[rows, columns], probability[rows, columns]
    band = _band(inner, half)
    if not band.any():
        return
    if importlib.util.find_spec("pymatting") is None:
        inner[band] = soft[band]
        return
    matted, foreground = _matting(colours[rows, columns], inner, band)
    inner[band] = matted[band]
    colours[rows, columns][band] = foreground[band]


def _band(mask: np.ndarray, half: int) -> np.ndarray:
    """bool: as near to the contour; thin objects keep a core outside of it."""
    inside = mask.astype(np.uint8)
    depth = cv2.distanceTransform(np.pad(inside, 1, mode="edge"), cv2.DIST_L2, 5)[1:-1, 1:-1]
    beyond = cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)
    within = min(half, depth.max() / 2)
    return ((inside != 0) & (depth <= within)) | ((inside == 0) & (beyond <= half))


def _matting(
    colours: np.ndarray, mask: np.ndarray, band: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(alpha float32 [H, W], the object's colours [H, W, 3]) by closed-form matting."""
    import pymatting

    full = np.iinfo(colours.dtype).max
    image = colours / np.float64(full)
    trimap = np.where(band, 0.5, mask).astype(np.float64)
    scale = min(1.0, (MATTING_PX / mask.size) ** 0.5)
    if not ((trimap == 0).any() and (trimap == 1).any()):
        return mask, colours  # all of one kind: there is nothing to tell apart
    if scale < 1:
        small = tuple(max(1, round(side * scale)) for side in mask.shape[::-1])
        alpha = pymatting.estimate_alpha_cf(
            cv2.resize(image, small, interpolation=cv2.INTER_AREA),
            cv2.resize(trimap, small, interpolation=cv2.INTER_NEAREST),
        )
        alpha = cv2.resize(alpha, mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
    else:
        alpha = pymatting.estimate_alpha_cf(image, trimap)
    alpha = np.where(band, np.clip(alpha, 0, 1), mask)
    foreground = pymatting.estimate_foreground_ml(image, alpha)
    return alpha.astype(np.float32), np.rint(np.clip(foreground, 0, 1) * full).astype(colours.dtype)
