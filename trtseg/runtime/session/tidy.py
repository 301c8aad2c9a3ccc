"""Crumbs beside an object and pinholes in it: dropped and filled before a mask is shown.

On the base grid, whatever the image's size: a bilinear map has its extremes at the cells' centres,
so each island of the mask holds a cell that is object, and each hole one that is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from trtseg.runtime.prompts import on_grid
from trtseg.types import Prompt, Region

ISLAND = 0.1  # by default, of the largest part: smaller islands go
HOLE = 0.05  # by default, of the largest part: smaller holes are filled


@dataclass(frozen=True)
class Tidy:
    """What is dropped and filled.

    Attributes:
        drop_islands_px: parts with fewer image pixels go, unless a positive click lies in them;
            the largest part always stays. None for a tenth of the largest part, 0 to keep all.
        fill_holes_px: holes with fewer image pixels are filled, unless a negative click lies in
            them. None for a twentieth of the largest part, 0 to keep all.

    Raises:
        TypeError: one of them is no number.
        ValueError: one of them is negative or not finite.
    """

    drop_islands_px: float | None = None
    fill_holes_px: float | None = None

    def __post_init__(self) -> None:
        for name in ("drop_islands_px", "fill_holes_px"):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
                raise TypeError(f"{name}: expected a number, got {value!r}")
            if not 0 <= value < np.inf:
                raise ValueError(f"{name}: expected >= 0, got {value}")

    def apply(
        self, probability: np.ndarray, region: Region, clicks: Sequence[Prompt], threshold: float
    ) -> np.ndarray:
        """A map without them.

        Args:
            probability: [H, W] on the base grid.
            region: where it lies in the image.
            clicks: all prompts.
            threshold: a cell is object from this probability on.

        Returns:
            The map itself where nothing changes, else float32 [H, W]: what goes or is filled is
            mirrored at the threshold.
        """
        grid = probability.shape[0], probability.shape[1]
        cell_px = (region[2] - region[0]) * (region[3] - region[1]) / (grid[0] * grid[1])
        inside = (probability >= threshold).view(np.uint8)
        parts, labels, areas = _components(inside, 8)
        if parts < 2:
            return probability
        areas[0] = 0
        largest = int(areas.argmax())
        limit = _limit(self.drop_islands_px, cell_px, ISLAND * areas[largest])
        small = areas < limit
        small[[0, largest]] = False
        small[_under(labels, clicks, region, positive=True)] = False
        dropped = small[labels]
        limit = _limit(self.fill_holes_px, cell_px, HOLE * areas[largest])
        outside = (inside == 0) | dropped
        _, labels, areas = _components(outside.view(np.uint8), 4)
        small = areas < limit
        rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        small[rim] = False
        small[0] = False
        small[_under(labels, clicks, region, positive=False)] = False
        filled = small[labels]
        if not (dropped.any() or filled.any()):
            return probability
        tidied = probability.astype(np.float32)
        mirrored = np.clip(2 * np.float32(threshold) - tidied, 0, 1)
        below = np.nextafter(np.float32(threshold), np.float32(0))
        # an island within a hole goes with it: filled last
        tidied[dropped] = np.minimum(mirrored, below)[dropped]
        tidied[filled] = np.maximum(mirrored, tidied)[filled]
        np.maximum(tidied, np.float32(threshold), out=tidied, where=filled)
        return tidied


USUAL = Tidy()


def _components(cells: np.ndarray, connectivity: int) -> tuple[int, np.ndarray, np.ndarray]:
    """(how many, label of each cell, cells of each label); label 0 is what is not set."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(cells), connectivity=connectivity
    )
    return count, labels, stats[:, cv2.CC_STAT_AREA].copy()


def _limit(pixels: float | None, cell_px: float, share: float) -> float:
    return share if pixels is None else pixels / cell_px


def _under(
    labels: np.ndarray, prompts: Sequence[Prompt], region: Region, *, positive: bool
) -> np.ndarray:
    """The labels of the cells that hold clicks or strokes of a kind."""
    grid = labels.shape[0], labels.shape[1]
    drawn = on_grid(prompts, region, grid)
    cells = np.floor((drawn.positive if positive else drawn.negative) + 0.5)
    rows, columns = np.clip(cells, 0, np.array(grid) - 1).astype(int).T
    return labels[rows, columns]
