"""Which candidate to show once the user has chosen one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trtseg.runtime.maps.focus import resample
from trtseg.runtime.prompts import cells, on_grid
from trtseg.types import Prompt, Region

EVIDENCE = 0.1  # of the grid's longer side: how far around a new click agreement is not asked for


@dataclass(frozen=True, eq=False)
class Preference:
    """The candidate that the user selected.

    Attributes:
        region: where its map lies.
        probability: float32 [H, W] on the base grid.
        prompts: how many there were at that time.
    """

    region: Region
    probability: np.ndarray
    prompts: int

    def choose(
        self, candidates: np.ndarray, region: Region, prompts: Sequence[Prompt], threshold: float
    ) -> int:
        """The candidate that keeps to the selected one as far as the clicks agree.

        First come the candidates that violate the fewest clicks (a click is violated when the
        cell under it is on the wrong side of the threshold). Among them, the one with the highest
        relaxed intersection over union with the selected one, leaving out the cells around the
        clicks that came after the choice: there the user asked for a change. The lowest index
        wins a tie.

        Args:
            candidates: [M, H, W] on the base grid of `region`.
            region: where the candidates lie.
            prompts: all of them, the newest last.
            threshold: probability from which a cell is object.
        """
        grid = candidates.shape[1:]
        violated = violations(candidates, prompts, region, threshold)
        agree = np.ones(grid, bool)
        radius = EVIDENCE * max(grid)
        y, x = np.ogrid[: grid[0], : grid[1]]
        newer = on_grid(prompts[self.prompts :], region, grid)
        for cy, cx in np.concatenate([newer.positive, newer.negative]):
            agree &= (y - cy) ** 2 + (x - cx) ** 2 > radius**2
        wanted = resample(self.probability, self.region, region)[agree]
        overlaps = []
        for values in candidates[:, agree].astype(np.float32):
            union = float(np.maximum(values, wanted).sum())
            overlaps.append(float(np.minimum(values, wanted).sum()) / union if union else 1.0)
        order = sorted(range(len(candidates)), key=lambda m: (violated[m], -overlaps[m], m))
        return order[0]


def violations(
    candidates: np.ndarray, prompts: Sequence[Prompt], region: Region, threshold: float
) -> np.ndarray:
    """How many clicked points of each candidate [M, H, W] have the wrong label, int [M]."""
    grid = candidates.shape[1:]
    found = np.zeros(len(candidates), int)
    drawn = on_grid(prompts, region, grid)
    for positive, points in ((True, drawn.positive), (False, drawn.negative)):
        rows, columns = cells(points, grid).T
        found += ((candidates[:, rows, columns] >= threshold) != positive).sum(1)
    return found
