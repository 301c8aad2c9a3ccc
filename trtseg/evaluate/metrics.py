"""Metrics of interactive segmentation, over IoUs by number of clicks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from trtseg.evaluate.datasets.dataset import VOID

BOUNDARY = 0.02  # of the diagonal: the usual width of `boundary_iou`


def iou(predicted: np.ndarray, mask: np.ndarray) -> float:
    """Intersection over union of a prediction and the truth; void pixels do not count.

    Args:
        predicted: [H, W], not 0 where the object is predicted.
        mask: uint8 [H, W]: 1 object, 0 not, 255 void.

    Returns:
        In [0, 1]; 1 when both are empty.

    Raises:
        ValueError: the shapes differ.
    """
    if predicted.shape != mask.shape:
        raise ValueError(
            f"predicted: expected {mask.shape}, the truth's size, got {predicted.shape}"
        )
    predicted = predicted.astype(bool)
    inside = mask == 1
    union = np.count_nonzero((predicted | inside) & (mask != VOID))
    if union == 0:
        return 1.0
    return np.count_nonzero(predicted & inside) / union


def boundary_iou(predicted: np.ndarray, mask: np.ndarray, width_px: int | None = None) -> float:
    """IoU of the inner rims of a prediction and the truth (Cheng et al. 2021).

    Args:
        predicted, mask: as for `iou`.
        width_px: of the rims, by chessboard distance; None for 2 % of the image's diagonal.

    Returns:
        In [0, 1]; 1 when both are empty.

    Raises:
        ValueError: the shapes differ, or width_px < 1.
    """
    if width_px is None:
        width_px = max(1, round(BOUNDARY * float(np.hypot(*mask.shape))))
    if width_px < 1:
        raise ValueError(f"width_px: expected at least 1, got {width_px}")
    predicted = predicted.astype(bool)
    if predicted.shape != mask.shape:
        raise ValueError(
            f"predicted: expected {mask.shape}, the truth's size, got {predicted.shape}"
        )
    # Void takes the prediction's side, so that no rim is asked for along it.
    inside = np.where(mask == VOID, predicted, mask == 1)
    truth = np.where(mask == VOID, VOID, _rim(inside, width_px))
    return iou(_rim(predicted, width_px), truth.astype(np.uint8))


def _rim(inside: np.ndarray, width_px: int) -> np.ndarray:
    padded = np.pad(inside.astype(np.uint8), 1)  # the image's border is a boundary, too
    core = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width_px)
    return inside & (core[1:-1, 1:-1] == 0)


def clicks_to_reach(ious: np.ndarray, target: float) -> np.ndarray:
    """Number of clicks after which each object first reaches the target; K where it never does.

    Args:
        ious: [N, K], IoU of N objects after 1..K clicks.
        target: e.g. 0.85; reached when IoU >= target.

    Returns:
        int [N], in 1..K.
    """
    ious = _checked(ious)
    reached = ious >= target
    return np.where(reached.any(1), reached.argmax(1) + 1, ious.shape[1])


def noc(ious: np.ndarray, target: float) -> float:
    """NoC@target: mean number of clicks, K where the target is not reached."""
    return float(clicks_to_reach(ious, target).mean())


def failures(ious: np.ndarray, target: float) -> int:
    """NoF: objects that do not reach the target within K clicks."""
    return int((_checked(ious).max(1) < target).sum())


def failures_at_limit(ious: np.ndarray, target: float) -> int:
    """ ">=K": objects that need K clicks or more; one solved exactly at click K counts too."""
    return int((clicks_to_reach(ious, target) >= _checked(ious).shape[1]).sum())


def mean_iou(ious: np.ndarray) -> np.ndarray:
    """IoU@k: float [K], mean over the objects after 1..K clicks."""
    return _checked(ious).mean(0)


def bootstrap_interval(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], float] = np.mean,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic, by resampling the first axis.

    Args:
        values: [N, ...], one row per object; N > 0.
        statistic: of an array like `values`; the mean is computed without a loop.
        level: probability that the interval is meant to cover.
        resamples: number of resamples.
        seed: of the resampling; the interval is reproducible.
    """
    values = np.asarray(values, np.float64)
    if len(values) == 0:
        raise ValueError("values: expected at least one row, got none")
    rng = np.random.default_rng(seed)
    if statistic is np.mean and values.ndim == 1:
        picks = rng.integers(len(values), size=(resamples, len(values)))
        found = values[picks].mean(1)
    else:
        found = np.array(
            [
                statistic(values[rng.integers(len(values), size=len(values))])
                for _ in range(resamples)
            ]
        )
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _checked(ious: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
    ious = np.asarray(ious, np.float64)
    if ious.ndim != 2 or 0 in ious.shape:
        raise ValueError(f"ious: expected [objects, clicks], neither 0, got shape {ious.shape}")
    return ious
