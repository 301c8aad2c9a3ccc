"""One object being selected in one image."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import replace
from itertools import pairwise
from time import perf_counter

import numpy as np

from trtseg.runtime.adapter import Adapter, Observation
from trtseg.runtime.background import LatestWorker
from trtseg.runtime.encoded import EncodedImage
from trtseg.runtime.guidance import grid_points
from trtseg.runtime.pipeline import Pipeline
from trtseg.runtime.prediction import Prediction, compose_snapshot
from trtseg.runtime.snapshot import Snapshot, Stepper
from trtseg.runtime.tidy import USUAL, Tidy
from trtseg.types import Click, Timing


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
        self._lock = threading.RLock()
        self._states: list[Snapshot] = [self._stepper.start()]
        self._at = 0
        self._epoch = 0  # counts the changes that were not clicks from the background
        self._worker = LatestWorker("trtseg-session")
        self._shown: np.ndarray | None = None  # the present mask, for `changed`
        self._copy: np.ndarray | None = None  # of a mask that lives in the caller's buffer
        self._prediction: Prediction | None = None

    @property
    def encoded(self) -> EncodedImage:
        """The encoding this session works on."""
        return self._encoded

    @property
    def clicks(self) -> tuple[Click, ...]:
        """The clicks that count, the oldest first."""
        with self._lock:
            return self._states[self._at].clicks

    @property
    def can_undo(self) -> bool:
        """Whether `undo` has something to take back."""
        with self._lock:
            return self._at > 0

    @property
    def can_redo(self) -> bool:
        """Whether `redo` has something to bring again."""
        with self._lock:
            return self._at + 1 < len(self._states)

    def observations(self) -> tuple[Observation, ...]:
        """What was known at each click that counts, over all that was encoded, oldest first.

        `selected` is the candidate that the click's answer showed. Where the session looked at a
        crop, `previous` is the last mask from before it.
        """
        encoded, host = self._encoded, self._pipeline.engines.memory.host
        grid = self._pipeline.grid(encoded.working_size)
        with self._lock:
            states = self._states[: self._at + 1]
        found = [
            Observation(
                encoded,
                grid_points(after.clicks, encoded.region, grid, positive=True),
                grid_points(after.clicks, encoded.region, grid, positive=False),
                None if before.wide is None else np.asarray(host(before.wide), np.float32),
                after.clicks[-1].positive,
                after.selected,
            )
            for before, after in pairwise(states)
            if len(after.clicks) > len(before.clicks)
        ]
        # clicks from before a mask that was set do not count
        return tuple(found[len(found) - len(states[-1].clicks) :])

    @property
    def prediction(self) -> Prediction:
        """The present state; an empty mask before the first click."""
        with self._lock:
            if self._prediction is None:
                self._show(self._states[self._at], Timing(), None, perf_counter())
            assert self._prediction is not None
            return self._prediction

    @property
    def corrections_respected(self) -> float:
        """The share of the clicks whose pixel has, in the present mask, the label they gave it.

        In [0, 1]; 1 without a click.
        """
        with self._lock:
            mask = self._shown if self._shown is not None else self.prediction.mask
            clicks = self.clicks
        height, width = mask.shape
        respected = [
            bool(mask[min(round(c.y), height - 1), min(round(c.x), width - 1)]) == c.positive
            for c in clicks
        ]
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
            snapshot, timing = self._stepper.click(self._states[self._at], click)
            return self._change(snapshot, timing, out, start)

    def select(self, index: int, *, out: np.ndarray | None = None) -> Prediction:
        """Show another candidate; later clicks keep to it as far as they agree.

        After a selection each click shows, among the candidates that violate the fewest clicks,
        the one most like the selected hypothesis away from the clicks that came since; without
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
            before = self._states[self._at]
            count = 0 if before.maps is None else len(before.maps)
            if count == 0:
                raise ValueError(f"index: expected none before the first click, got {index}")
            if not 0 <= index < count:
                raise ValueError(f"index: expected 0 to {count - 1}, got {index}")
            return self._change(self._stepper.select(before, int(index)), Timing(), out, start)

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
            snapshot = self._stepper.set_mask(self._states[self._at], mask != 0)
            return self._change(snapshot, Timing(), out, start)

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
            snapshot = self._stepper.start()
            prediction = self._show(snapshot, Timing(), out, perf_counter())
            self._states, self._at = [snapshot], 0
            self._epoch += 1
            return prediction

    def submit_click(
        self, x: float, y: float, positive: bool = True
    ) -> Future[Prediction]:
        """`add_click` on a thread of the session's own.

        A newer click replaces one that still waits, whose future is then cancelled. `cancel()`
        of the future works until the moment the result is delivered, also while it is being
        computed; the session is then left as it was. When the session changes by another call
        before the result is there, the click is stale, waiting or running: it is dropped, and the
        future is cancelled. Callbacks of the future run on the session's thread, or where
        `cancel` or the newer `submit_click` is called; never under the session's lock.

        Raises:
            TypeError, ValueError: as `add_click`, at once.
        """
        click = self._checked_click(x, y, positive)
        epoch = self._epoch  # without the lock: this must not wait for a click that runs

        def job(future: Future[Prediction]) -> None:
            with self._lock:
                stale, before = epoch != self._epoch, self._states[self._at]
            if not stale:
                start = perf_counter()
                snapshot, timing = self._stepper.click(before, click)
                with self._lock:
                    stale = epoch != self._epoch
                    if not stale:
                        # From here on the result cannot be cancelled, and is delivered.
                        if not future.set_running_or_notify_cancel():
                            return
                        prediction = self._commit(snapshot, timing, None, start)
            if stale:
                future.cancel()
                future.set_running_or_notify_cancel()
                return
            future.set_result(prediction)

        return self._worker.submit(job)

    def wait(self) -> None:
        """Return once every click given to `submit_click` is answered or dropped."""
        self._worker.wait()

    def _move(self, step: int, name: str, out: np.ndarray | None) -> Prediction:
        self._check_out(out)
        with self._lock:
            start = perf_counter()
            at = self._at + step
            if not 0 <= at < len(self._states):
                raise ValueError(f"{name}: nothing to {name}")
            prediction = self._show(self._states[at], Timing(), out, start)
            self._at = at
            self._epoch += 1
            return prediction

    def _change(
        self, snapshot: Snapshot, timing: Timing, out: np.ndarray | None, start: float
    ) -> Prediction:
        """`_commit` for a call: clicks in the background that it overtook are stale."""
        prediction = self._commit(snapshot, timing, out, start)
        self._epoch += 1
        return prediction

    def _commit(
        self, snapshot: Snapshot, timing: Timing, out: np.ndarray | None, start: float
    ) -> Prediction:
        """Show a new state and make it the present one; nothing changes if that fails."""
        prediction = self._show(snapshot, timing, out, start)
        del self._states[self._at + 1 :]
        self._states.append(prediction._snapshot)
        self._at += 1
        return prediction

    def _show(
        self, snapshot: Snapshot, timing: Timing, out: np.ndarray | None, start: float
    ) -> Prediction:
        begin = perf_counter()
        mask = np.empty(self._encoded.image_size, np.uint8) if out is None else out
        threshold = self._pipeline.manifest.threshold
        before = None if self._shown is None else self._states[self._at].box
        memory = self._pipeline.engines.memory
        box, changed = compose_snapshot(
            memory, snapshot, threshold, mask, self._shown, before, self._tidy
        )
        if out is None:
            mask.flags.writeable = False
            shown = mask
        else:
            if self._copy is None:
                self._copy = np.empty_like(mask)
            np.copyto(self._copy, out)
            shown = self._copy
        now = perf_counter()
        timing = replace(
            timing, compose_ms=(now - begin) * 1e3, total_ms=(now - start) * 1e3
        )
        prediction = Prediction(
            replace(snapshot, box=box, composed=None),
            mask,
            changed,
            timing,
            threshold,
            self._encoded.source,
            memory,
            self._tidy,
        )
        self._shown, self._prediction = shown, prediction
        return prediction

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
