"""Binary energies on the pixel grid, minimised exactly by a maximum flow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trtseg.errors import BackendUnavailable

# (dy, dx) to half of the 8 neighbours; the other half are the same pairs
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
# a cost that no minimiser pays unless it must, still exact in float64 beside costs of 1e-3
HARD = 1e6
# for constraints that not even hard seeds may break
UNBREAKABLE = 1e10


@dataclass(frozen=True, eq=False)
class Pairs:
    """Neighbouring pixels and what it costs to separate them.

    Attributes:
        first, second: int64 [E], flat indices.
        weight: float64 [E], >= 0.
    """

    first: np.ndarray
    second: np.ndarray
    weight: np.ndarray


def contrast_pairs(image: np.ndarray) -> Pairs:
    """exp(-|I_p - I_q|^2 / (2 sigma^2)) / |p - q| over 8 neighbours (Boykov and Jolly, eq. 3).

    Args:
        image: [H, W, C]; sigma^2 is the mean of |I_p - I_q|^2 over all pairs.
    """
    height, width = image.shape[:2]
    values = image.astype(np.float64)
    indices = np.arange(height * width).reshape(height, width)
    first, second, squared, length = [], [], [], []
    for dy, dx in NEIGHBOURS:
        here = np.s_[: height - dy, max(0, -dx) : width - max(0, dx)]
        there = np.s_[dy:, max(0, dx) : width + min(0, dx)]
        first.append(indices[here].ravel())
        second.append(indices[there].ravel())
        squared.append(((values[here] - values[there]) ** 2).sum(2).ravel())
        length.append(np.full(first[-1].size, np.hypot(dy, dx)))
    difference = np.concatenate(squared)
    mean = difference.mean() if difference.size else 0.0
    exponent = difference / (2 * mean) if mean > 0 else np.zeros_like(difference)
    weight = np.exp(-exponent) / np.concatenate(length)
    # the edges of a pixel side by side in memory: a maximum flow is a tenth faster
    order = np.argsort(np.concatenate(first), kind="stable")
    return Pairs(np.concatenate(first)[order], np.concatenate(second)[order], weight[order])


def minimise(
    object_cost: np.ndarray,
    other_cost: np.ndarray,
    pairs: Pairs,
    parents: np.ndarray | None = None,
) -> np.ndarray:
    """The labelling of least sum of pixel costs and weights of separated pairs.

    Args:
        object_cost: float64 [H, W], of a pixel being object.
        other_cost: float64 [H, W], of a pixel not being object.
        pairs: see `Pairs`.
        parents: int64 [H, W]: flat index of a pixel that must be object if this one is (its next
            on the way to a star's centre); -1 for none.

    Returns:
        bool [H, W], True for object. Of several minima, one with the fewest object pixels.

    Raises:
        BackendUnavailable: PyMaxflow is not installed.
    """
    try:
        import maxflow
    except ImportError:
        raise BackendUnavailable(
            "graph cuts need PyMaxflow; pip install trtseg[evaluate]"
        ) from None
    graph = maxflow.Graph[float](object_cost.size, len(pairs.first) + object_cost.size)
    nodes = graph.add_grid_nodes(object_cost.shape)
    graph.add_grid_tedges(nodes, other_cost, object_cost)
    graph.add_edges(pairs.first, pairs.second, pairs.weight, pairs.weight)
    if parents is not None:
        children = np.flatnonzero(parents.ravel() >= 0)
        onto = parents.ravel()[children]
        graph.add_edges(
            children, onto, np.full(children.size, UNBREAKABLE), np.zeros(children.size)
        )
    graph.maxflow()
    # the object is what is still reached from the source
    return ~graph.get_grid_segments(nodes)
