"""A background click in the middle of the shown mask: another of the candidates was meant.

A correction goes on from the mask that is shown: told that it was there, the networks keep to most
of it. But a click about as deep inside as that mask goes does not correct it, it denies it.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from trtseg.runtime.maps.choice import violations
from trtseg.runtime.prompts import cells, on_grid
from trtseg.types import Click, Prompt, Region

DEEP = 0.65  # of the mask's greatest depth: a leak is less deep than what it leaks from


def denies(prompt: Prompt, shown: np.ndarray, region: Region, threshold: float) -> bool:
    """Whether a prompt is a background click in the middle of a mask.

    Args:
        prompt: the newest.
        shown: [H, W] on the base grid of `region`, what the user saw.
        region: where it lies.
        threshold: probability from which a cell is object.
    """
    if not isinstance(prompt, Click) or prompt.positive:
        return False
    mask = shown >= threshold
    ((row, column),) = cells(on_grid([prompt], region, mask.shape).negative, mask.shape)
    # beyond the grid is no object
    padded = np.pad(mask.view(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_5)[1:-1, 1:-1]
    return bool(mask[row, column]) and bool(depth[row, column] >= DEEP * depth.max())


def meant(
    candidates: np.ndarray,
    scores: np.ndarray,
    prompts: Sequence[Prompt],
    region: Region,
    threshold: float,
) -> int | None:
    """The candidate of the highest score among those in which every prompt has its label.

    Args:
        candidates: [M, H, W] on the base grid of `region`, from before the newest prompt.
        scores: float32 [M].
        prompts: all of them.
        region: where the candidates lie.
        threshold: probability from which a cell is object.

    Returns:
        Its index; None where every candidate is denied.
    """
    agreeing = np.flatnonzero(violations(candidates, prompts, region, threshold) == 0)
    return int(agreeing[scores[agreeing].argmax()]) if len(agreeing) else None
