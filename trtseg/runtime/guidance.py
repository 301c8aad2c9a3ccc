"""Clicks as channels of the network's input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trtseg import bundle, ops
from trtseg.runtime.engine import Array, Memory
from trtseg.types import Click

Region = tuple[int, int, int, int]  # (y0, x0, y1, x1) in image pixels, half open


def grid_points(
    clicks: Sequence[Click], region: Region, grid: tuple[int, int], *, positive: bool
) -> np.ndarray:
    """The clicks of one kind on the base grid of a region.

    Pixel centres map to pixel centres: `(x - x0 + 0.5) * grid_width / region_width - 0.5`.

    Returns:
        float32 [N, 2], (y, x) in grid pixels.
    """
    y0, x0, y1, x1 = region
    scale_y, scale_x = grid[0] / (y1 - y0), grid[1] / (x1 - x0)
    points = [
        ((c.y - y0 + 0.5) * scale_y - 0.5, (c.x - x0 + 0.5) * scale_x - 0.5)
        for c in clicks
        if c.positive == positive
    ]
    return np.array(points, np.float32).reshape(-1, 2)


class GuidanceMaps:
    """The guidance channels of one workspace, kept up to date incrementally.

    Channels: click maps S_p, S_n, distance maps T_p, T_n (LD eq. 1, divided by their limit; 1
    where there is no click), then, for models that take it, the previous probability map. A
    further click costs a minimum with what is there, which is exact: the result does not depend
    on the way it was reached.

    Attributes:
        maps: [1, G, H, W] in the backend's memory.
    """

    def __init__(
        self,
        spec: bundle.Guidance,
        grid: tuple[int, int],
        stride: int,
        memory: Memory,
        dtype: np.dtype,
    ) -> None:
        self.maps: Array = memory.empty((1, spec.channels, *grid), np.dtype(dtype))
        self._spec, self._grid, self._memory = spec, grid, memory
        self._limit = spec.distance_limit_px / stride
        self._distance: Array = memory.empty((2, *grid), np.dtype(np.float32))
        self._points: list[np.ndarray | None] = [None, None]

    def update(self, points: Sequence[np.ndarray], previous: Array | None) -> None:
        """Make the maps those of these clicks.

        Args:
            points: positive and negative clicks, float32 [N, 2] (y, x) in grid pixels.
            previous: probability map [H, W], or None for zeros; ignored by 4-channel models.
        """
        for kind in (0, 1):
            self._update_kind(kind, points[kind])
        if self._spec.previous_mask:
            if previous is None:
                self._memory.fill(self.maps[0, 4], 0)
            else:
                self._memory.copy(previous, self.maps[0, 4])

    def _update_kind(self, kind: int, points: np.ndarray) -> None:
        drawn = self._points[kind]
        if drawn is not None and np.array_equal(drawn, points):
            return
        self._points[kind] = None  # if anything below fails, the next update starts afresh
        grows = (
            drawn is not None
            and 0 < len(drawn) < len(points)
            and np.array_equal(drawn, points[: len(drawn)])
        )
        distance = self._distance[kind]
        new = points[len(drawn) :] if grows and drawn is not None else points
        ops.distance_map(
            self._memory.array(new),
            self._grid,
            limit_px=self._limit,
            **({"into": distance} if grows else {"out": distance}),
            stream=self._memory.stream,
        )
        self._memory.ramp(distance, self._limit, self.maps[0, 2 + kind])
        click_map = self.maps[0, kind]
        if self._spec.click_map == "gaussian":
            self._memory.gaussian(distance, self._spec.sigma_grid_px, click_map)
        else:
            bounds = np.array(self._grid) - 1
            nearest = np.clip(np.floor(points + 0.5).astype(np.int64), 0, bounds)
            self._memory.dots(nearest, click_map)
        self._points[kind] = points
