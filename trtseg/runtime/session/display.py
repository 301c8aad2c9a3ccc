"""The masks of a session's states, in buffers of the caller's or of their own."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

import numpy as np

from trtseg.runtime.encoded import EncodedImage
from trtseg.runtime.pipeline import Pipeline
from trtseg.runtime.session.prediction import Prediction, compose_snapshot
from trtseg.runtime.session.snapshot import Snapshot
from trtseg.runtime.session.state import State
from trtseg.types import Timing


class Display:
    """Makes predictions of snapshots."""

    def __init__(self, pipeline: Pipeline, encoded: EncodedImage) -> None:
        self._encoded, self._with_room = encoded, pipeline.with_room
        self._threshold, self._memory = pipeline.manifest.threshold, pipeline.engines.memory
        # Two copies of masks that live in the caller's buffers: the shown one, and the next.
        self._copies: list[np.ndarray] = []

    def show(
        self,
        before: State,
        snapshot: Snapshot,
        out: np.ndarray | None,
        start: float,
        timing: Timing,
    ) -> Prediction:
        """Write a snapshot's mask, and tell what differs from the one that is shown.

        Args:
            before: what is shown.
            snapshot: whose mask is written.
            out: uint8 [H, W] for it; allocated when None.
            start: when the answer began.
            timing: of the networks.
        """
        begin = perf_counter()
        mask = np.empty(self._encoded.image_size, np.uint8) if out is None else out
        previous_box = None if before.shown is None else before.present.box
        box, changed = self._with_room(
            lambda: compose_snapshot(
                self._memory, snapshot, self._threshold, mask, before.shown, previous_box
            )
        )
        if out is None:
            mask.flags.writeable = False
        now = perf_counter()
        timing = replace(timing, compose_ms=(now - begin) * 1e3, total_ms=(now - start) * 1e3)
        shown = replace(snapshot, box=box, composed=None)
        source = self._encoded.source
        return Prediction(shown, mask, changed, timing, self._threshold, source, self._memory)

    def keep(self, mask: np.ndarray, shown: np.ndarray | None) -> np.ndarray:
        """A copy of a mask in the caller's buffer, not where the shown one is kept."""
        for copy in self._copies:
            if copy is not shown:
                break
        else:
            copy = np.empty(mask.shape, np.uint8)
            self._copies.append(copy)
        np.copyto(copy, mask)
        return copy
