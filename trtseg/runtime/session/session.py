"""One object being selected in one image.

Long for what it is, the whole of a session's public face: most of it is what callers read.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from time import perf_counter

import numpy as np

from trtseg.runtime.encoded import EncodedImage
from trtseg.runtime.pipeline import Pipeline
from trtseg.runtime.session import saved
from trtseg.runtime.session.arguments import (
    check_out,
    checked_mask,
    checked_prompts,
    checked_selection,
)
from trtseg.runtime.session.background import Worker
from trtseg.runtime.session.display import Display
from trtseg.runtime.session.events import Added, Event, MaskSet, Selected, edited
from trtseg.runtime.session.observation import Adapter, Observation, observe
from trtseg.runtime.session.prediction import Prediction
from trtseg.runtime.session.snapshot import Stepper
from trtseg.runtime.session.state import State
from trtseg.types import Box, Click, Lasso, Prompt, Stroke, Timing, moved

NO_NETWORK = Timing()  # of an event that runs none


class Session:
    """Prompts for one object. Made by `Segmenter.session`.

    What it shows is a pure function of its events (prompts, selections, masks that were set):
    undo, redo and any other way to the same events give the same mask, bit for bit. An event that
    fails leaves the session as it was. Every method may be called from any thread.

    Prompts are values (`Click`, `Stroke`, `Box`, `Lasso`): `add`, `preview`, `submit` and
    `submit_preview` take any of them, several as one event; `add_click`, `add_stroke`, `add_box`,
    `add_lasso` and `submit_click` make them. Those are refused that lie outside of the image (or
    the encoded region), or that the model was not made for (see `Segmenter.accepts`).

    A correction goes on from the mask that is shown. But a background click in the middle of that
    mask denies it: then the session goes on from the best of the other candidates that agree with
    every prompt, if one does, unless one was selected or the session is `local`.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        encoded: EncodedImage,
        options: saved.Options,
        adapter: Adapter | None,
    ) -> None:
        self._pipeline, self._encoded, self._options = pipeline, encoded, options
        self._stepper = Stepper(pipeline, encoded, options, adapter)
        self._lock = threading.RLock()  # held by what changes the state
        self._state = State((self._stepper.start(),))
        self._worker = Worker("trtseg-session")
        self._display = Display(pipeline, encoded)

    @property
    def encoded(self) -> EncodedImage:
        """The encoding this session works on."""
        return self._encoded

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """The prompts that count, the oldest first: those since the last mask that was set."""
        return self._state.present.prompts

    @property
    def clicks(self) -> tuple[Click, ...]:
        """Those of `prompts` that are clicks."""
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
        """What was known at each call whose prompts count, over all that was encoded, oldest first.

        `selected` is the candidate that the answer showed; `previous` is the mask that the answer
        went on from: where the session looked at a crop, the last one from before it.
        """
        host = self._pipeline.engines.memory.host
        found: list[Observation] = []
        for after in self._state.present.history:
            if isinstance(after.event, MaskSet):
                found.clear()
            elif isinstance(after.event, Added):
                previous = None if after.carried is None else host(after.carried)
                found.append(observe(
                    self._encoded, after.prompts, previous, after.selected, len(after.event.prompts)
                ))
        return tuple(found)

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

    def add(self, *prompts: Prompt, out: np.ndarray | None = None) -> Prediction:
        """Add prompts as one event, and predict: one run of the networks.

        Args:
            prompts: at least one, the newest last.
            out: uint8 [H, W], C-contiguous, for the mask; allocated when None.

        Raises:
            TypeError: no prompt, or out no such array.
            ValueError: a prompt lies outside, the model takes none of its kind, or `out` has
                another size.
            EngineError: a network failed.
        """
        event = self._added(prompts)
        self._check_out(out)
        with self._lock:
            return self._follow(event, out)

    def add_click(
        self, x: float, y: float, positive: bool = True, *, out: np.ndarray | None = None
    ) -> Prediction:
        """Add a click and predict; see `Click` and `add`."""
        return self.add(Click(x, y, positive), out=out)

    def add_stroke(
        self,
        points: Iterable[tuple[float, float]],
        positive: bool = True,
        radius_px: float = 3.0,
        *,
        out: np.ndarray | None = None,
    ) -> Prediction:
        """Add a line drawn over the object or the background; see `Stroke` and `add`."""
        return self.add(Stroke(points, positive, radius_px), out=out)  # type: ignore[arg-type]

    def add_box(
        self, x0: float, y0: float, x1: float, y1: float, *, out: np.ndarray | None = None
    ) -> Prediction:
        """Add a rectangle around the object; see `Box` and `add`."""
        return self.add(Box(x0, y0, x1, y1), out=out)

    def add_lasso(
        self, points: Iterable[tuple[float, float]], *, out: np.ndarray | None = None
    ) -> Prediction:
        """Add a closed line around the object; see `Lasso` and `add`."""
        return self.add(Lasso(points), out=out)  # type: ignore[arg-type]

    def remove(self, index: int, *, out: np.ndarray | None = None) -> Prediction:
        """Show what there would be without one of `prompts`. `undo` brings it back.

        What came after it is done again, so that this takes as many runs of the networks.

        Raises:
            TypeError: index is no integer.
            ValueError: there is no such prompt.
            EngineError: a network failed.
        """
        return self._edit(index, lambda prompt: None, out)

    def move(
        self, index: int, x: float, y: float, *, out: np.ndarray | None = None
    ) -> Prediction:
        """Show what there would be if one of `prompts` began at (x, y); see `types.moved`.

        Raises:
            As `remove` and `add`.
        """
        return self._edit(index, lambda prompt: moved(prompt, x, y), out)

    def preview(self, *prompts: Prompt, out: np.ndarray | None = None) -> Prediction:
        """What `add` would give, for instance under a pointer that hovers.

        The session stays as it is; `changed` is the difference to the mask that it shows.

        Args, Raises: as `add`.
        """
        event = self._added(prompts)
        self._check_out(out)
        return self._preview(self._state, event, out)

    def select(self, index: int, *, out: np.ndarray | None = None) -> Prediction:
        """Show another candidate; later prompts keep to it as far as they agree.

        After a selection each prompt shows, among the candidates that violate the fewest,
        the one most like the selected candidate away from those that came since; without
        a selection the model's selector decides. `undo` takes a selection back.

        Raises:
            TypeError: index is no integer.
            ValueError: there is no such candidate.
        """
        self._check_out(out)
        with self._lock:
            shown = self._state.present.candidates
            return self._follow(checked_selection(index, 0 if shown is None else len(shown)), out)

    def set_mask(self, mask: np.ndarray, *, out: np.ndarray | None = None) -> Prediction:
        """Continue from an existing mask; earlier prompts no longer count, until undone.

        Args:
            mask: [H, W] of the image's size, bool or integer; non-zero is object.
            out: as for `add`.

        Raises:
            TypeError: not such an array.
            ValueError: of another size, or the model takes no previous mask (see
                `Segmenter.accepts`).
        """
        self._check_out(out)
        event = checked_mask(mask, self._encoded.image_size, self._pipeline.manifest)
        with self._lock:
            return self._follow(event, out)

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

    def submit(self, *prompts: Prompt) -> Future[Prediction]:
        """`add` on a thread of the session's own: all that is submitted counts, in its order.

        Each future gets its event's prediction; an editor that has fallen behind shows the last.
        `cancel()` of a future takes its prompts back until the moment the result is delivered,
        also while it is being computed. What the user does to the mask that is shown, by `undo`,
        `redo`, `select`, `set_mask`, `remove`, `move` or `reset`, drops what waits or runs, which
        he had made on a mask to come: those futures are cancelled. After an `add` meanwhile they
        count on top of it. Callbacks of the future run on the session's thread, or where `cancel`
        is called; never under the session's lock. When the program ends, what waits is dropped.

        Raises:
            TypeError, ValueError: as `add`, at once.
            EngineError: the system has no thread.
        """
        event = self._added(prompts)
        epoch = self._state.epoch  # without the lock: this must not wait for a click that runs

        def job(future: Future[Prediction]) -> None:
            while (state := self._state).epoch == epoch and not future.cancelled():
                start = perf_counter()
                snapshot, timing = self._stepper.apply(state.present, event)
                with self._lock:
                    if self._state.moment != state.moment:
                        continue  # something was added meanwhile, or this is stale
                    # From here on the result cannot be cancelled, and is delivered.
                    if not future.set_running_or_notify_cancel():
                        return
                    following = self._state.followed_by(snapshot)
                    prediction = self._show(following, None, start, timing)
                future.set_result(prediction)
                return
            _drop(future)

        return self._worker.submit(job)

    def submit_click(
        self, x: float, y: float, positive: bool = True
    ) -> Future[Prediction]:
        """`submit` of a click."""
        return self.submit(Click(x, y, positive))

    def submit_preview(self, *prompts: Prompt) -> Future[Prediction]:
        """`preview` on the session's thread, when nothing that was submitted waits.

        The newest alone is made: the future of one that still waited is cancelled, as is that of
        one on a mask that is no longer shown when it is there.

        Raises:
            As `submit`.
        """
        event = self._added(prompts)

        def job(future: Future[Prediction]) -> None:
            state = self._state
            prediction = self._preview(state, event, None)
            if self._state.moment != state.moment:
                _drop(future)
            elif future.set_running_or_notify_cancel():
                future.set_result(prediction)

        return self._worker.submit_latest(job)

    def wait(self) -> None:
        """Return once everything that was submitted is answered or dropped."""
        self._worker.wait()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what there is to a JSON file, whole or not at all; `Segmenter.open` goes on.

        All is there by value but the image and the model, which are named by their hashes. What
        could be redone is not kept, nor what an adapter has learnt but how it came to it.

        Raises:
            ValueError: the encoding is without its image (see `EncodedImage.with_image`).
            OSError: it cannot be written.
        """
        saved.write(Path(path), self._encoded, self._options, self._state.present.events)

    def _added(self, prompts: tuple[Prompt, ...]) -> Added:
        return checked_prompts(prompts, self._encoded.region, self._pipeline.manifest)

    def _follow(self, event: Event, out: np.ndarray | None) -> Prediction:
        start = perf_counter()
        state = self._state
        snapshot, timing = self._stepper.apply(state.present, event)
        following = state.followed_by(snapshot)
        if not isinstance(event, Added):
            following = following.next_epoch()
        return self._show(following, out, start, timing)

    def _edit(
        self, index: int, edit: Callable[[Prompt], Prompt | None], out: np.ndarray | None
    ) -> Prediction:
        self._check_out(out)
        with self._lock:
            start = perf_counter()
            state = self._state
            kept, again = edited(state.present.events, index, edit)
            snapshot, spent = state.present.history[kept], Timing()
            for event in again:
                if isinstance(event, Added):
                    event = self._added(event.prompts)
                elif isinstance(event, Selected) and snapshot.candidates is None:
                    continue  # what was chosen from is gone
                # Where to look next depends on the mask that is shown.
                shown = self._display.show(State((snapshot,)), snapshot, None, start, spent)
                snapshot, timing = self._stepper.apply(shown.snapshot, event)
                spent = spent + timing
            return self._show(state.followed_by(snapshot).next_epoch(), out, start, spent)

    def _preview(self, state: State, event: Added, out: np.ndarray | None) -> Prediction:
        start = perf_counter()
        snapshot, timing = self._stepper.apply(state.present, event)
        return self._display.show(state, snapshot, out, start, timing)

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
        prediction = self._display.show(before, state.present, out, start, timing)
        shown = prediction.mask
        if out is not None:
            shown = self._display.keep(out, before.shown)
        self._state = state.with_shown(prediction, shown)
        return prediction

    def _check_out(self, out: np.ndarray | None) -> None:
        check_out(out, self._encoded.image_size)


def _drop(future: Future) -> None:
    """Cancel a future whose job runs, and tell those who wait for it."""
    future.cancel()
    future.set_running_or_notify_cancel()
