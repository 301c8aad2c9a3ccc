"""Clicks as channels of the network's input."""

from __future__ import annotations

import numpy as np

from trtseg import bundle, ops
from trtseg.runtime.engine import Array, Memory
from trtseg.runtime.prompts import GridPrompts


class GuidanceMaps:
    """The guidance channels of one workspace.

    Channels: click maps S_p, S_n, distance maps T_p, T_n (LD eq. 1, divided by their limit; 1
    where there is no click), then, for models that take them, the previous probability map and
    the region (see `trtseg.runtime.region`). `load` brings in what is new, `draw` is work of fixed
    shape on fixed buffers.

    Args:
        room: for so many clicks of a kind from the start. With more, `points` moves.

    Attributes:
        maps: [1, G, H, W] in the backend's memory.
        points: float32 [2, N, 2] in the backend's memory, NaN where there is no click.
    """

    def __init__(
        self,
        spec: bundle.Guidance,
        grid: tuple[int, int],
        stride: int,
        memory: Memory,
        dtype: np.dtype,
        *,
        room: int = 0,
    ) -> None:
        self.maps: Array = memory.empty((1, spec.channels, *grid), np.dtype(dtype))
        self._spec, self._memory = spec, memory
        self._limit = spec.distance_limit_px / stride
        self._sigma = spec.sigma_grid_px if spec.click_map == "gaussian" else None
        self._make_room(room)

    def load(self, prompts: GridPrompts, previous: Array | None) -> None:
        """Take over what differs from click to click.

        Args:
            prompts: on this grid.
            previous: probability map [H, W], or None for zeros; ignored by models without it.
        """
        points = prompts.positive, prompts.negative
        needed = max(map(len, points))
        if needed > self._staged.shape[1]:
            self._make_room(max(needed, 2 * self._staged.shape[1]))
        self._staged.fill(np.nan)
        for kind in (0, 1):
            self._staged[kind, : len(points[kind])] = points[kind]
        if self._spec.previous_mask:
            if previous is None:
                self._memory.fill(self.maps[0, 4], 0)
            else:
                self._memory.copy(previous, self.maps[0, 4])
        if self._spec.region:
            if prompts.region is None:
                self._memory.fill(self.maps[0, -1], 0)
            else:
                self._memory.copy(prompts.region, self.maps[0, -1])

    def draw(self) -> None:
        """Draw the clicks that were loaded."""
        self._memory.transfer(self._staged, self.points)
        ops.click_maps(
            self.points,
            self.maps[0, :4],
            limit_px=self._limit,
            sigma_px=self._sigma,
            stream=self._memory.stream,
        )

    def update(self, prompts: GridPrompts, previous: Array | None) -> None:
        """Make the maps those of these prompts: `load` and `draw`."""
        self.load(prompts, previous)
        self.draw()

    def _make_room(self, count: int) -> None:
        self._staged = self._memory.staging((2, count, 2), np.dtype(np.float32))
        self.points: Array = self._memory.empty((2, count, 2), np.dtype(np.float32))
