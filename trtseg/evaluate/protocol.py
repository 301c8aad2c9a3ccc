"""One object, one simulated user, one session: click, look at the mask, click again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import cv2
import numpy as np

from trtseg.errors import DatasetError
from trtseg.evaluate.clicks import Clicker
from trtseg.evaluate.datasets.dataset import Sample
from trtseg.evaluate.metrics import iou
from trtseg.types import Click

SPOILED_AFTER = 2  # clicks
SPOILED_RADIUS = 0.35  # of the side of a square of the mask's area


class SessionLike(Protocol):
    """What the evaluation asks of a method: nothing but to answer clicks.

    The prediction has `.mask`, uint8 0/255 [H, W] of the image's size, and may have `.candidates`:
    such masks [M, H, W]. A session with `set_mask`, which takes bool [H, W], can go on from a mask.
    """

    def add_click(self, x: float, y: float, positive: bool = True) -> Any: ...


@dataclass
class ObjectRun:
    """What happened on one object.

    Lists have one entry per click; `ious` and `best_ious` are continued with their last value
    when the user finds nothing more to correct, the others are not.

    Attributes:
        ious: IoU of the returned mask.
        best_ious: IoU of the best candidate; empty for a method that offers one mask only.
        clicks: as the session got them.
        click_ms: wall time of each `add_click`, and of nothing else.
        obeyed: after each click, how many of the pixels clicked so far have the clicked label.
        masks: bool [H, W] after each click, if they were asked for.
    """

    ious: list[float] = field(default_factory=list)
    best_ious: list[float] = field(default_factory=list)
    clicks: list[Click] = field(default_factory=list)
    click_ms: list[float] = field(default_factory=list)
    obeyed: list[int] = field(default_factory=list)
    masks: list[np.ndarray] = field(default_factory=list)


def record_object(
    session: SessionLike,
    sample: Sample,
    clicker: Clicker,
    max_clicks: int = 20,
    *,
    stop_at: float | None = None,
    keep_masks: bool = False,
    initial: np.ndarray | None = None,
) -> ObjectRun:
    """Let a simulated user segment one object.

    Args:
        session: fresh, for the sample's image.
        sample: the object.
        clicker: fresh, for the sample's mask.
        max_clicks: the user gives up after as many.
        stop_at: end once this IoU is reached and continue the list with it. NoC of targets up to
            `stop_at` is unchanged; IoU@k is not, so leave it None to report that.
        keep_masks: keep the mask after each click, for pictures.
        initial: bool [H, W], a mask to begin with.

    Raises:
        ValueError: max_clicks < 1, a mask that is not of the image's size, or a method that
            cannot begin with one.
    """
    if max_clicks < 1:
        raise ValueError(f"max_clicks: expected at least 1, got {max_clicks}")
    run = ObjectRun()
    if initial is not None:
        if not hasattr(session, "set_mask"):
            raise ValueError("protocol: expected a method that can begin with a mask")
        session.set_mask(initial)
    predicted = initial
    while len(run.clicks) < max_clicks:
        click = clicker.next_click(predicted)
        if click is None:
            break
        start = time.perf_counter()
        prediction = session.add_click(click.x, click.y, click.positive)
        run.click_ms.append((time.perf_counter() - start) * 1000)
        predicted = np.array(prediction.mask, copy=True) > 0
        run.clicks.append(click)
        run.ious.append(iou(predicted, sample.mask))
        run.obeyed.append(
            sum(bool(predicted[round(c.y), round(c.x)]) == c.positive for c in run.clicks)
        )
        best = best_candidate_iou(prediction, sample.mask)
        if best is not None:
            run.best_ious.append(max(best, run.ious[-1]))
        if keep_masks:
            run.masks.append(predicted)
        if stop_at is not None and run.ious[-1] >= stop_at:
            break
    # nothing to click on at all: the empty mask is right
    last = run.ious[-1] if run.ious else 1.0
    run.ious += [last] * (max_clicks - len(run.ious))
    if run.best_ious:
        run.best_ious += [run.best_ious[-1]] * (max_clicks - len(run.best_ious))
    return run


def given_mask(sample: Sample) -> np.ndarray:
    """The mask that a data set gives to begin with, bool [H, W].

    Raises:
        DatasetError: the sample has none.
    """
    mask = sample.initial_mask
    if mask is None:
        raise DatasetError(f"{sample.source.annotation}: there is no mask to begin with")
    return mask


def spoiled_mask(
    session: SessionLike, clicker: Clicker, rng: np.random.Generator
) -> np.ndarray | None:
    """A method's own mask with one region spoiled, as of somebody who stopped too early.

    After `SPOILED_AFTER` clicks, a disk around a pixel of the mask's rim is cut away or added,
    either as likely; its radius is `SPOILED_RADIUS` of the side of a square of the mask's area.

    Args:
        session: fresh, for the object's image; of no use afterwards.
        clicker: fresh, for the object.
        rng: draws the pixel and the kind.

    Returns:
        bool [H, W]; None where the clicks give no mask.
    """
    mask: np.ndarray | None = None
    for _ in range(SPOILED_AFTER):
        click = clicker.next_click(mask)
        if click is None:
            break
        mask = np.array(session.add_click(click.x, click.y, click.positive).mask, copy=True) > 0
    if mask is None or not mask.any():
        return None
    inside = np.pad(mask.astype(np.uint8), 1)
    rim = mask & (cv2.erode(inside, np.ones((3, 3), np.uint8))[1:-1, 1:-1] == 0)
    y, x = np.argwhere(rim)[rng.integers(np.count_nonzero(rim))]
    radius = SPOILED_RADIUS * np.sqrt(np.count_nonzero(mask))
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    disk = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
    return mask | disk if rng.random() < 0.5 else mask & ~disk


def best_candidate_iou(prediction: Any, mask: np.ndarray) -> float | None:
    """IoU of the best of the prediction's candidates; None where it has fewer than two.

    Raises:
        TypeError: the candidates are probabilities, not masks.
    """
    candidates = getattr(prediction, "candidates", None)
    if candidates is None or len(candidates) < 2:
        return None
    if np.asarray(candidates[0]).dtype.kind == "f":
        raise TypeError("candidates: expected masks, got floating point")
    return max(iou(candidate, mask) for candidate in candidates)
