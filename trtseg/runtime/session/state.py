"""All that a session is at one moment."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from trtseg.runtime.session.prediction import Prediction
from trtseg.runtime.session.snapshot import Snapshot


@dataclass(frozen=True, eq=False)
class State:
    """A session replaces it as a whole, by one assignment: an exception at any moment leaves the
    session as it was before a call, or as it is after it.

    Attributes:
        snapshots: after each event, the first before any.
        at: index of the one that is shown.
        epoch: counts the events that clicks in the background do not outlive.
        prediction: of the present snapshot; None until it is shown.
        shown: its mask, never in a caller's buffer.
    """

    snapshots: tuple[Snapshot, ...]
    at: int = 0
    epoch: int = 0
    prediction: Prediction | None = None
    shown: np.ndarray | None = None

    @property
    def present(self) -> Snapshot:
        """The snapshot that is shown."""
        return self.snapshots[self.at]

    @property
    def moment(self) -> tuple[int, int]:
        """What every event changes."""
        return self.epoch, self.at

    def followed_by(self, snapshot: Snapshot) -> State:
        """With one more snapshot, in place of what could be redone."""
        return State((*self.snapshots[: self.at + 1], snapshot), self.at + 1, self.epoch)

    def moved(self, step: int) -> State:
        """The same snapshots, another one of them shown."""
        return State(self.snapshots, self.at + step, self.epoch)

    def with_shown(self, prediction: Prediction, shown: np.ndarray) -> State:
        """With what was made of the present snapshot."""
        at = self.at
        snapshots = (*self.snapshots[:at], prediction.snapshot, *self.snapshots[at + 1 :])
        return replace(self, snapshots=snapshots, prediction=prediction, shown=shown)

    def next_epoch(self) -> State:
        """The same, after an event that drops the clicks in the background."""
        return replace(self, epoch=self.epoch + 1)
