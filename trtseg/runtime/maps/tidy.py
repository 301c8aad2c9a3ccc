"""Crumbs beside an object and pinholes in it: dropped and filled before a mask is shown.

On the base grid, whatever the image's size: a bilinear map has its extremes at the cells' centres,
so each island of the mask holds a cell that is object, and each hole one that is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

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
            object.__setattr__(self, name, float(value))

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
        mask = (probability >= threshold).view(np.uint8)
        x, y, width, height = cv2.boundingRect(mask)
        # Beyond its box there is nothing to drop, and what reaches the box's rim is no hole.
        box = slice(y, y + height), slice(x, x + width)
        inside = np.ascontiguousarray(mask[box])
        if not width or _outlines(inside) == 1:
            return probability
        under = partial(_under, prompts=clicks, region=region, grid=grid, corner=(y, x))
        labels, areas = _components(inside, 8)
        areas[0] = 0
        largest = int(areas.argmax())
        limit = _limit(self.drop_islands_px, cell_px, ISLAND * areas[largest])
        small = areas < limit
        small[[0, largest]] = False
        small[under(labels, positive=True)] = False
        dropped = small[labels]
        limit = _limit(self.fill_holes_px, cell_px, HOLE * areas[largest])
        outside = (inside == 0) | dropped
        labels, areas = _components(outside.view(np.uint8), 4)
        small = areas < limit
        rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        small[rim] = False
        small[0] = False
        small[under(labels, positive=False)] = False
        filled = small[labels]
        if not (dropped.any() or filled.any()):
            return probability
        tidied = probability.astype(np.float32)
        mirrored = np.clip(2 * np.float32(threshold) - tidied[box], 0, 1)
        below = np.nextafter(np.float32(threshold), np.float32(0))
        # an island within a hole goes with it: filled last
        part = tidied[box]
        part[dropped] = np.minimum(mirrored[dropped], below)
        part[filled] = np.maximum(np.maximum(mirrored, part)[filled], np.float32(threshold))
        return tidied


def _outlines(cells: np.ndarray) -> int:
    """How many there are, around parts and around holes: much quicker than their areas."""
    return len(cv2.findContours(cells, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0])


def _components(cells: np.ndarray, connectivity: int) -> tuple[np.ndarray, np.ndarray]:
    """(label of each cell, cells of each label); label 0 is what is not set."""
    count, labels = cv2.connectedComponents(cells, connectivity=connectivity)
    return labels, np.bincount(labels.ravel(), minlength=count)


def _limit(pixels: float | None, cell_px: float, share: float) -> float:
    return share if pixels is None else pixels / cell_px


def _under(
    labels: np.ndarray,
    prompts: Sequence[Prompt],
    region: Region,
    grid: tuple[int, int],
    corner: tuple[int, int],
    *,
    positive: bool,
) -> np.ndarray:
    """The labels of the cells that hold clicks or strokes of a kind; `labels` begin at a corner."""
    drawn = on_grid(prompts, region, grid)
    cells = np.floor((drawn.positive if positive else drawn.negative) + 0.5)
    cells = np.clip(cells, 0, np.array(grid) - 1).astype(int) - corner
    cells = cells[((cells >= 0) & (cells < labels.shape)).all(1)]
    return labels[cells[:, 0], cells[:, 1]]
