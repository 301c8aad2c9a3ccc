"""Pictures of masks for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from trtseg.types import Click

OBJECT = (30, 144, 255)
POSITIVE = (60, 220, 90)
NEGATIVE = (240, 60, 60)
GAP_PX = 6
WIDEST = 4  # a picture on a sheet over the sheet's height; a panorama gets lower instead


def overlay(
    rgb: np.ndarray, mask: np.ndarray, clicks: Sequence[Click] = (), *, strength: float = 0.45
) -> np.ndarray:
    """A photo with the mask tinted and outlined, and the clicks as dots.

    Args:
        rgb: uint8 [H, W, 3].
        mask: uint8 [H, W], 0 and 255.
        clicks: green where positive, red where not.
        strength: of the tint, 0 to 1.

    Returns:
        uint8 [H, W, 3], a new array.
    """
    tint = np.full_like(rgb, OBJECT)
    tinted = cv2.addWeighted(rgb, 1 - strength, tint, strength, 0)
    picture = np.where(mask[..., None] > 0, tinted, rgb)
    unit = max(rgb.shape[:2]) / 640
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, (255, 255, 255), max(1, round(2 * unit)), cv2.LINE_AA)
    for click in clicks:
        centre = click.pixel[::-1]
        for radius, colour in ((9, (255, 255, 255)), (6, POSITIVE if click.positive else NEGATIVE)):
            cv2.circle(picture, centre, max(1, round(radius * unit)), colour, -1, cv2.LINE_AA)
    return picture


def contact_sheet(
    rgb: np.ndarray,
    mask: np.ndarray,
    candidates: np.ndarray,
    scores: np.ndarray,
    selected: int,
    clicks: Sequence[Click],
    *,
    height: int = 480,
) -> np.ndarray:
    """The selected mask at the left, all candidates side by side at its right, in two rows.

    Args:
        rgb: uint8 [H, W, 3].
        mask: uint8 [H, W].
        candidates: uint8 [M, H, W].
        scores: [M], see `Prediction.scores`.
        selected: which of them is framed.
        clicks: drawn on the left picture.
        height: of the sheet in pixels.

    Returns:
        uint8 [height, width, 3]; pictures wider than four sheets are high get lower.
    """
    widest = WIDEST * height
    large = _fit(overlay(rgb, mask, clicks), height, widest)
    tile_height = (height - GAP_PX) // 2
    tiles = []
    for index, candidate in enumerate(candidates):
        tile = _fit(overlay(rgb, candidate), tile_height, widest)
        _label(tile, f"{index}: {scores[index]:.0%}")
        if index == selected:
            cv2.rectangle(tile, (1, 1), (tile.shape[1] - 2, tile.shape[0] - 2), POSITIVE, 3)
        tiles.append(tile)
    columns = (len(tiles) + 1) // 2
    width = large.shape[1] + columns * (tiles[0].shape[1] + GAP_PX)
    sheet = np.full((height, width, 3), 255, np.uint8)
    sheet[: large.shape[0], : large.shape[1]] = large
    for index, tile in enumerate(tiles):
        top = (index // columns) * (tile_height + GAP_PX)
        left = large.shape[1] + GAP_PX + (index % columns) * (tile.shape[1] + GAP_PX)
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet


def _fit(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """As large as fits, in the same proportions."""
    scale = min(height / picture.shape[0], width / picture.shape[1])
    rows, columns = (max(1, round(side * scale)) for side in picture.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(picture, (columns, rows), interpolation=method)


def _label(tile: np.ndarray, text: str) -> None:
    # large enough for a sheet that a document shows at half its width
    for colour, thickness in (((0, 0, 0), 6), ((255, 255, 255), 2)):
        cv2.putText(
            tile, text, (8, 36), cv2.FONT_HERSHEY_SIMPLEX, 1.1, colour, thickness, cv2.LINE_AA
        )
