"""One object being selected in one image."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import replace
from itertools import pairwise
from time import perf_counter

import numpy as np

from trtseg.runtime.encoded import EncodedImage
from trtseg.runtime.pipeline import Pipeline
from trtseg.runtime.session.background import Worker
from trtseg.runtime.session.observation import Adapter, Observation, observe
from trtseg.runtime.session.prediction import Prediction, compose_snapshot
from trtseg.runtime.session.snapshot import Snapshot, Stepper
from trtseg.runtime.session.state import State
from trtseg.runtime.session.tidy import USUAL, Tidy
from trtseg.types import Click, Timing

NO_NETWORK = Timing()  # of an event that runs none

class Session:
    """Clicks on one object. Made by `Segmenter.session`.

    What it shows is a pure function of its events (clicks, selections, masks that were set):
    undo, redo and any other way to the same events give the same mask, bit for bit. An event that
    fails leaves the session as it was. Every method may be called from any thread.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        encoded: EncodedImage,
        *,
        focus: bool = True,
        adapter: Adapter | None = None,
        tidy: Tidy = USUAL,
    ) -> None:
        self._pipeline, self._encoded, self._tidy = pipeline, encoded, tidy
        self._stepper = Stepper(pipeline, encoded, focus=focus, adapter=adapter)
        self._lock = threading.RLock()  # held by what changes the state
        self._state = State((self._stepper.start(),))
        self._worker = Worker("trtseg-session")
        # Two copies of masks that live in the caller's buffers: the shown one, and the next.
        self._copies: list[np.ndarray] = []

    @property
    def encoded(self) -> EncodedImage:
        """The encoding this session works on."""
        return self._encoded

    @property
    def clicks(self) -> tuple[Click, ...]:
        """The clicks that count, the oldest first."""
        return self._state.present.clicks

    @property
    def can_undo(self) -> bool:
        """Whether `undo` has something to take back."""
        return self._state.at > 0

    @property
    def can_redo(self) -> bool:
        """Whether `redo` has something to bring again."""
        state = self._state
        return state.at + 1 < len(state.snapshots)

    def observations(self) -> tuple[Observation, ...]:
        """What was known at each click that counts, over all that was encoded, oldest first.

        `selected` is the candidate that the click's answer showed. Where the session looked at a
        crop, `previous` is the last mask from before it.
        """
        host = self._pipeline.engines.memory.host
        state = self._state
        found = [
            observe(
                self._encoded,
                after.clicks,
                None if before.wide is None else host(before.wide),
                after.selected,
            )
            for before, after in pairwise(state.snapshots[: state.at + 1])
            if len(after.clicks) > len(before.clicks)
        ]
        # clicks from before a mask that was set do not count
        return tuple(found[len(found) - len(state.present.clicks) :])

    @property
    def prediction(self) -> Prediction:
        """The present state; an empty mask before the first click."""
        prediction = self._state.prediction
        if prediction is not None:
            return prediction
        with self._lock:
            state = self._state
            if state.prediction is not None:
                return state.prediction
            return self._show(state, None, perf_counter())

    @property
    def corrections_respected(self) -> float:
        """The share of the clicks whose pixel has, in the present mask, the label they gave it.

        In [0, 1]; 1 without a click.
        """
        state = self._state
        mask = self.prediction.mask if state.shown is None else state.shown
        clicks = state.present.clicks
        height, width = mask.shape
        respected = []
        for click in clicks:
            y, x = click.pixel  # on the image's edge, of the pixel beyond
            respected.append(bool(mask[min(y, height - 1), min(x, width - 1)]) == click.positive)
        return sum(respected) / len(respected) if respected else 1.0

    def add_click(
        self, x: float, y: float, positive: bool = True, *, out: np.ndarray | None = None
    ) -> Prediction:
        """Add a click and predict.

        Args:
            x, y: image pixels; 0, 0 is the centre of the top-left pixel.
            positive: True on the object, False on the background.
            out: uint8 [H, W], C-contiguous, for the mask; allocated when None.

        Raises:
            TypeError: x or y is no number, positive no bool, or out no such array.
            ValueError: the click lies outside the image (or the encoded region), or `out` has
                another size.
            EngineError: a network failed.
        """
        click = self._checked_click(x, y, positive)
        self._check_out(out)
        with self._lock:
            start = perf_counter()
            state = self._state
            snapshot, timing = self._stepper.click(state.present, click)
            return self._show(state.followed_by(snapshot), out, start, timing)

    def preview(
        self, x: float, y: float, positive: bool = True, *, out: np.ndarray | None = None
    ) -> Prediction:
        """What `add_click` would give, for instance under a pointer that hovers.

        The session stays as it is; `changed` is the difference to the mask that it shows.

        Args, Raises: as `add_click`.
        """
        click = self._checked_click(x, y, positive)
        self._check_out(out)
        return self._preview(self._state, click, out)

    def select(self, index: int, *, out: np.ndarray | None = None) -> Prediction:
        """Show another candidate; later clicks keep to it as far as they agree.

        After a selection each click shows, among the candidates that violate the fewest clicks,
        the one most like the selected candidate away from the clicks that came since; without
        a selection the model's selector decides. `undo` takes a selection back.

        Raises:
            TypeError: index is no integer.
            ValueError: there is no such candidate.
        """
        self._check_out(out)
        if isinstance(index, bool) or not isinstance(index, (int, np.integer)):
            raise TypeError(f"index: expected an integer, got {index!r}")
        with self._lock:
            start = perf_counter()
            state = self._state
            before = state.present
            count = 0 if before.candidates is None else len(before.candidates)
            if count == 0:
                raise ValueError(f"index: expected none before the first click, got {index}")
            if not 0 <= index < count:
                raise ValueError(f"index: expected 0 to {count - 1}, got {index}")
            snapshot = self._stepper.select(before, int(index))
            return self._show(state.followed_by(snapshot).next_epoch(), out, start)

    def set_mask(self, mask: np.ndarray, *, out: np.ndarray | None = None) -> Prediction:
        """Continue from an existing mask; earlier clicks no longer count, until undone.

        Args:
            mask: [H, W] of the image's size, bool or integer; non-zero is object.
            out: as for `add_click`.

        Raises:
            TypeError: not such an array.
            ValueError: of another size, or the model takes no previous mask (see
                `Segmenter.accepts_mask`).
        """
        self._check_out(out)
        size = self._encoded.image_size
        if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "bui":
            kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
            raise TypeError(f"mask: expected a bool or integer array, got {kind}")
        if mask.shape != size:
            raise ValueError(f"mask: expected shape {list(size)}, got {list(mask.shape)}")
        if not self._pipeline.manifest.guidance.previous_mask:
            raise ValueError("mask: this model takes no previous mask")
        with self._lock:
            start = perf_counter()
            state = self._state
            snapshot = self._stepper.set_mask(state.present, mask != 0)
            return self._show(state.followed_by(snapshot).next_epoch(), out, start)

    def undo(self, *, out: np.ndarray | None = None) -> Prediction:
        """Take the last event back. Exact, and no network runs.

        Raises:
            ValueError: there is nothing to undo (see `can_undo`).
        """
        return self._move(-1, "undo", out)

    def redo(self, *, out: np.ndarray | None = None) -> Prediction:
        """Bring the event again that `undo` took back.

        Raises:
            ValueError: there is nothing to redo (see `can_redo`).
        """
        return self._move(1, "redo", out)

    def reset(self, *, out: np.ndarray | None = None) -> Prediction:
        """Forget all events; waiting and running background clicks are dropped.

        Returns:
            The empty state; its `changed` is where the mask was.
        """
        self._check_out(out)
        with self._lock:
            start = State((self._stepper.start(),), epoch=self._state.epoch)
            return self._show(start.next_epoch(), out, perf_counter())

    def submit_click(
        self, x: float, y: float, positive: bool = True
    ) -> Future[Prediction]:
        """`add_click` on a thread of the session's own: all clicks count, in their order.

        Each future gets its click's prediction; an editor that has fallen behind shows the last.
        `cancel()` of a future takes its click back until the moment the result is delivered, also
        while it is being computed. What the user does to the mask that is shown, by `undo`,
        `redo`, `select`, `set_mask` or `reset`, drops the clicks that wait or run, which he had
        made on a mask to come: their futures are cancelled. After an `add_click` meanwhile they
        count on top of it. Callbacks of the future run on the session's thread, or where `cancel`
        is called; never under the session's lock. When the program ends, what waits is dropped.

        Raises:
            TypeError, ValueError: as `add_click`, at once.
            EngineError: the system has no thread.
        """
        click = self._checked_click(x, y, positive)
        epoch = self._state.epoch  # without the lock: this must not wait for a click that runs

        def job(future: Future[Prediction]) -> None:
            while (state := self._state).epoch == epoch and not future.cancelled():
                start = perf_counter()
                snapshot, timing = self._stepper.click(state.present, click)
                with self._lock:
                    if self._state.moment != state.moment:
                        continue  # a click was added meanwhile, or this one is stale
                    # From here on the result cannot be cancelled, and is delivered.
                    if not future.set_running_or_notify_cancel():
                        return
                    following = self._state.followed_by(snapshot)
                    prediction = self._show(following, None, start, timing)
                future.set_result(prediction)
                return
            _drop(future)

        return self._worker.submit(job)

    def submit_preview(
        self, x: float, y: float, positive: bool = True
    ) -> Future[Prediction]:
        """`preview` on the session's thread, when no click waits.

        The newest alone is made: the future of one that still waited is cancelled, as is that of
        one on a mask that is no longer shown when it is there.

        Raises:
            As `submit_click`.
        """
        click = self._checked_click(x, y, positive)

        def job(future: Future[Prediction]) -> None:
            state = self._state
            prediction = self._preview(state, click, None)
            if self._state.moment != state.moment:
                _drop(future)
            elif future.set_running_or_notify_cancel():
                future.set_result(prediction)

        return self._worker.submit_latest(job)

    def wait(self) -> None:
        """Return once everything that was submitted is answered or dropped."""
        self._worker.wait()

    def _preview(self, state: State, click: Click, out: np.ndarray | None) -> Prediction:
        start = perf_counter()
        snapshot, timing = self._stepper.click(state.present, click)
        return self._compose(state, snapshot, out, start, timing)

    def _move(self, step: int, name: str, out: np.ndarray | None) -> Prediction:
        self._check_out(out)
        with self._lock:
            start = perf_counter()
            state = self._state
            if not 0 <= state.at + step < len(state.snapshots):
                raise ValueError(f"{name}: nothing to {name}")
            return self._show(state.moved(step).next_epoch(), out, start)

    def _show(
        self, state: State, out: np.ndarray | None, start: float, timing: Timing = NO_NETWORK
    ) -> Prediction:
        """Make the mask of a state, and make it the present one; nothing changes if that fails."""
        before = self._state
        prediction = self._compose(before, state.present, out, start, timing)
        shown = prediction.mask
        if out is not None:
            shown = self._spare(before.shown)
            np.copyto(shown, out)
        self._state = state.with_shown(prediction, shown)
        return prediction

    def _compose(
        self,
        before: State,
        snapshot: Snapshot,
        out: np.ndarray | None,
        start: float,
        timing: Timing,
    ) -> Prediction:
        """Write a snapshot's mask, and tell what differs from the one that is shown."""
        begin = perf_counter()
        mask = np.empty(self._encoded.image_size, np.uint8) if out is None else out
        threshold, memory = self._pipeline.manifest.threshold, self._pipeline.engines.memory
        previous_box = None if before.shown is None else before.present.box
        box, changed = compose_snapshot(
            memory, snapshot, threshold, mask, before.shown, previous_box, self._tidy
        )
        if out is None:
            mask.flags.writeable = False
        now = perf_counter()
        timing = replace(
            timing, compose_ms=(now - begin) * 1e3, total_ms=(now - start) * 1e3
        )
        shown = replace(snapshot, box=box, composed=None)
        source = self._encoded.source
        return Prediction(
            shown, mask, changed, timing, threshold, source, memory, self._tidy
        )

    def _spare(self, shown: np.ndarray | None) -> np.ndarray:
        """That one of the copies which is not shown."""
        for copy in self._copies:
            if copy is not shown:
                return copy
        self._copies.append(np.empty(self._encoded.image_size, np.uint8))
        return self._copies[-1]

    def _checked_click(self, x: float, y: float, positive: bool) -> Click:
        click = Click(x, y, positive)
        y0, x0, y1, x1 = self._encoded.region
        for name, value, low, high in (("x", click.x, x0, x1), ("y", click.y, y0, y1)):
            if not low - 0.5 <= value <= high - 0.5:
                raise ValueError(
                    f"{name}: expected {low} to {high - 1}, inside the image, got {value:g}"
                )
        return click

    def _check_out(self, out: np.ndarray | None) -> None:
        if out is None:
            return
        good = isinstance(out, np.ndarray) and out.dtype == np.uint8
        if not good or not out.flags.c_contiguous or not out.flags.writeable:
            raise TypeError("out: expected a writable, C-contiguous uint8 NumPy array")
        if out.shape != self._encoded.image_size:
            raise ValueError(
                f"out: expected shape {list(self._encoded.image_size)}, got {list(out.shape)}"
            )


def _drop(future: Future) -> None:
    """Cancel a future whose job runs, and tell those who wait for it."""
    future.cancel()
    future.set_running_or_notify_cancel()
