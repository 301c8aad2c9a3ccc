"""A background click in the middle of the shown mask: another of the candidates was meant.

A correction goes on from the mask that is shown: told that it was there, the networks keep to most
of it. But a click about as deep inside as that mask goes does not correct it, it denies it.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from trtseg.runtime.maps.candidates import CandidateMaps
from trtseg.runtime.maps.choice import violations
from trtseg.runtime.maps.correction import REACH
from trtseg.runtime.prompts import cells, on_grid
from trtseg.types import Click, Prompt, Region

DEEP = 0.75  # of the greatest depth: leaks, and neighbours that were taken in, are rarely as deep


def denies(click: Click, shown: np.ndarray, region: Region, threshold: float) -> bool:
    """Whether a background click is in the middle of a mask.

    Where the mask is thinner than what a click reaches by itself, everything is its middle, and
    nothing is denied.

    Args:
        click: on the background.
        shown: [H, W] on the base grid of `region`, what the click was made on.
        region: where it lies.
        threshold: probability from which a cell is object.
    """
    mask = shown >= threshold
    ((row, column),) = cells(on_grid([click], region, mask.shape).negative, mask.shape)
    # beyond the grid is no object
    padded = np.pad(mask.view(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_5)[1:-1, 1:-1]
    return bool(depth[row, column] >= max(DEEP * depth.max(), REACH))


def meant(
    candidates: CandidateMaps,
    values: np.ndarray,
    scores: np.ndarray,
    newest: Sequence[Prompt],
    region: Region,
    threshold: float,
) -> int | None:
    """The candidate of the highest score in which the newest prompts hold.

    And that agreed with all earlier ones by itself: what was made to hold is not what was meant.

    Args:
        candidates: from before the newest prompts.
        values: the same on the host, [M, H, W] on the base grid of `region`.
        scores: float32 [M].
        newest: the prompts that came since.
        region: where the candidates lie.
        threshold: probability from which a cell is object.

    Returns:
        Its index; None where every candidate is denied.
    """
    violated = violations(values, newest, region, threshold)
    agreeing = [m for m in range(len(values)) if not violated[m] and candidates.obeyed(m)]
    return max(agreeing, key=lambda m: float(scores[m]), default=None)
