"""Shortest paths over the pixel grid, by scikit-image."""

from __future__ import annotations

import numpy as np

from trtseg.errors import BackendUnavailable


def geodesic(cost: np.ndarray, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Length of the shortest path from the seeds to every pixel, and where it comes from.

    A step between 8 neighbours costs their mean cost times its Euclidean length.

    Args:
        cost: float64 [H, W], > 0.
        seeds: bool [H, W].

    Returns:
        (distance, parents): float64 [H, W], infinite without a seed, and int64 [H, W], the flat
        index of the pixel before on the path, -1 on seeds.

    Raises:
        BackendUnavailable: scikit-image is not installed.
    """
    try:
        from skimage.graph import MCP_Geometric
    except ImportError:
        raise BackendUnavailable(
            "geodesic distances need scikit-image; pip install trtseg[evaluate]"
        ) from None
    starts = np.argwhere(seeds)
    if len(starts) == 0:
        return np.full(cost.shape, np.inf), np.full(cost.shape, -1, np.int64)
    paths = MCP_Geometric(np.ascontiguousarray(cost, np.float64))
    distance, trace = paths.find_costs(starts)
    trace = np.asarray(trace)
    # trace[p] numbers the step that led to p; -1 on the seeds
    steps = np.array([dy * cost.shape[1] + dx for dy, dx in paths.offsets], np.int64)
    indices = np.arange(cost.size).reshape(cost.shape)
    parents = np.where(trace >= 0, indices - steps[np.maximum(trace, 0)], -1)
    return np.array(distance), parents
