"""Random sequences of calls with hostile arguments: a typed error or the right answer, always.

`TRTSEG_SEQUENCES=2000` sets how many sequences are tried.
"""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import CancelledError
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from trtseg import Box, Click, Lasso, Segmenter, Stroke, TrtsegError
from trtseg.runtime.session import Session
from trtseg.runtime.session.prediction import Prediction

SEQUENCES = int(os.environ.get("TRTSEG_SEQUENCES", "40"))
REFUSALS = (TrtsegError, ValueError, TypeError)
SIZES = [(1, 1), (1, 40), (7, 5), (33, 65), (120, 160), (200, 90)]

awkward = st.sampled_from(
    [None, "", "7", b"7", float("nan"), float("inf"), -float("inf"), -1, 1e300, -0.5, 2**70, True,
     [], [1], (1, 2), {}, 1j, np.float16(3), np.int64(2), np.array([1]), np.array(2), object()]
)  # fmt: skip
coordinate = st.one_of(st.floats(-1, 200), st.integers(-1, 200), awkward)
sign = st.one_of(st.booleans(), st.booleans(), awkward)

fraction = st.floats(-0.2, 1.2)
pairs = st.lists(st.tuples(fraction, fraction), min_size=1, max_size=6)
# On an image of one pixel; those of another size are scaled. Some lie outside, some have no area.
prompts = st.one_of(
    st.builds(Click, st.floats(0, 1), st.floats(0, 1), st.booleans()),
    st.builds(Stroke, pairs, st.booleans(), st.sampled_from([0, 0.02, 0.2, 1e9])),
    st.builds(Box, fraction, fraction, fraction, fraction),
    st.builds(Lasso, st.lists(st.tuples(fraction, fraction), min_size=3, max_size=6)),
)


@st.composite
def arrays(draw: st.DrawFn) -> object:
    """Masks and images, mostly wrong."""
    odd = [(0, 3), (3,), (), (4, 4, 2), (9, 9, 3), (9, 9, 4), (1,) * 6]
    shape = draw(st.sampled_from([*SIZES, *odd]))
    dtype = draw(st.sampled_from(["u1", "u2", ">u2", "i8", "?", "f2", "f4", "f8", "c8", "O", "U1"]))
    fill = draw(st.sampled_from([0, 1, 200, -1, float("nan"), 1e9]))
    with np.errstate(all="ignore"):
        try:
            array = np.full(shape, fill).astype(dtype)
        except (ValueError, OverflowError):
            array = np.zeros(shape, dtype)
    if draw(st.booleans()) and array.ndim >= 2:
        array = array[::-1, ::-1]
    return array


class CallSequences(RuleBasedStateMachine):
    segmenter: Segmenter

    @initialize(size=st.sampled_from(SIZES), focus=st.sampled_from(["auto", None]))
    def begin(self, size: tuple[int, int], focus: str | None) -> None:
        y, x = np.mgrid[: size[0], : size[1]]
        image = ((np.sin(x / 9) + np.cos(y / 7)) * 60 + 120).astype(np.uint8)
        self.focus, self.encoded = focus, self.segmenter.encode(image)
        self.session = self.segmenter.session(self.encoded, focus=focus)
        self.lists: list[list[tuple]] = [[]]  # of events, after each call
        self.undone: list[list[tuple]] = []
        self.seen: dict[tuple, bytes] = {}

    @property
    def events(self) -> list[tuple]:
        return self.lists[-1]

    def happened(self, events: list[tuple]) -> None:
        self.lists.append(events)
        self.undone.clear()

    def attempt(self, events: list[tuple], call: object, *arguments: object) -> None:
        """Make a call that gives these events; a refusal must leave everything as it was."""
        before, prompts = self.session.prediction, self.session.prompts
        try:
            call(*arguments)  # type: ignore[operator]
        except REFUSALS as error:
            check_message(error)
            assert self.session.prediction is before
            assert self.session.prompts == prompts
        else:
            self.happened(events)

    @rule(x=coordinate, y=coordinate, positive=sign)
    def click(self, x: object, y: object, positive: object) -> None:
        event = ("add_click", x, y, positive)
        self.attempt([*self.events, event], self.session.add_click, x, y, positive)

    @rule(x=st.floats(0, 1), y=st.floats(0, 1), positive=st.booleans())
    def good_click(self, x: float, y: float, positive: bool) -> None:
        height, width = self.encoded.image_size
        self.click(x * (width - 1), y * (height - 1), positive)

    @rule(x=coordinate, y=coordinate, positive=sign, cancel=st.booleans())
    def background_click(self, x: object, y: object, positive: object, cancel: bool) -> None:
        def call() -> None:
            future = self.session.submit_click(x, y, positive)  # type: ignore[arg-type]
            if cancel and future.cancel():
                raise ValueError("cancelled")
            future.result(60)

        self.attempt([*self.events, ("add_click", x, y, positive)], call)

    @rule(drawn=st.lists(prompts, min_size=1, max_size=3), background=st.booleans())
    def prompt(self, drawn: list, background: bool) -> None:
        scaled = [scale(prompt, self.encoded.image_size) for prompt in drawn]

        def call() -> None:
            if background:
                self.session.submit(*scaled).result(60)
            else:
                self.session.add(*scaled)

        self.attempt([*self.events, ("add", *scaled)], call)

    @rule(index=st.one_of(st.integers(-1, 4), awkward))
    def remove(self, index: object) -> None:
        self.attempt(changed(self.events, index, None), self.session.remove, index)

    @rule(index=st.one_of(st.integers(-1, 4), awkward), x=coordinate, y=coordinate)
    def move(self, index: object, x: object, y: object) -> None:
        self.attempt(changed(self.events, index, (x, y)), self.session.move, index, x, y)

    @rule()
    def save_and_open(self) -> None:
        """What is opened is the session from here on; what could be redone is gone."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "session.json"
            self.session.save(path)
            opened = self.segmenter.open(path, self.encoded)
        same(opened.prediction, self.session.prediction)
        self.session = opened
        events = self.events
        self.lists = [events[:count] for count in range(len(events) + 1)]
        self.undone.clear()

    @rule(index=st.one_of(st.integers(-1, 3), awkward))
    def select(self, index: object) -> None:
        self.attempt([*self.events, ("select", index)], self.session.select, index)

    @rule(mask=st.one_of(arrays(), awkward))
    def set_mask(self, mask: object) -> None:
        self.attempt([*self.events, ("set_mask", mask)], self.session.set_mask, mask)

    @rule(density=st.sampled_from([0, 0.5, 1]), seed=st.integers(0, 3))
    def good_mask(self, density: float, seed: int) -> None:
        mask = np.random.default_rng(seed).random(self.encoded.image_size) < density
        self.set_mask(mask)

    @rule(out=st.one_of(arrays(), awkward.filter(lambda out: out is not None)))
    def hostile_buffer(self, out: object) -> None:
        good = (
            isinstance(out, np.ndarray)
            and out.dtype == np.uint8
            and out.shape == self.encoded.image_size
            and out.flags.c_contiguous
        )
        before = self.session.prediction
        try:
            self.session.add_click(0, 0, out=out)
        except REFUSALS:
            assert not good
            assert self.session.prediction is before
        else:
            assert good
            self.happened([*self.events, ("add_click", 0, 0, True)])

    @rule()
    def undo(self) -> None:
        assert self.session.can_undo == (len(self.lists) > 1)
        try:
            self.session.undo()
        except ValueError:
            assert len(self.lists) == 1
        else:
            self.undone.append(self.lists.pop())

    @rule()
    def redo(self) -> None:
        assert self.session.can_redo == bool(self.undone)
        try:
            self.session.redo()
        except ValueError:
            assert not self.undone
        else:
            self.lists.append(self.undone.pop())

    @rule()
    def reset(self) -> None:
        self.session.reset()
        self.lists = [[]]
        self.undone.clear()

    @rule(
        image=st.one_of(arrays(), awkward),
        kind=st.one_of(st.sampled_from(["RGB", "BGRA"]), awkward),
    )
    def encode(self, image: object, kind: object) -> None:
        try:
            encoded = self.segmenter.encode(image, kind)  # type: ignore[arg-type]
        except REFUSALS as error:
            check_message(error)
        else:
            mask = self.segmenter.session(encoded).add_click(0, 0).mask
            assert mask.shape == image.shape[:2]  # type: ignore[union-attr]

    @rule(tolerance=st.one_of(st.floats(0, 9), awkward))
    def look(self, tolerance: object) -> None:
        p = self.session.prediction
        assert p.candidates.shape[1:] == p.probability.shape == p.mask.shape
        assert p.cutout().shape == (*p.mask.shape, 4)
        assert p.rle()["size"] == list(p.mask.shape)
        try:
            p.polygons(tolerance)  # type: ignore[arg-type]
        except REFUSALS as error:
            check_message(error)

    @invariant()
    def the_mask_is_a_function_of_the_events(self) -> None:
        if not hasattr(self, "session"):
            return
        p = self.session.prediction
        assert p.mask.shape == self.encoded.image_size
        assert p.prompts == self.session.prompts
        key = tuple(map(str, self.events))
        assert self.seen.setdefault(key, p.mask.tobytes()) == p.mask.tobytes()

    def teardown(self) -> None:
        if not hasattr(self, "session"):
            return
        scratch = self.segmenter.session(self.encoded, focus=self.focus)
        same(replay(scratch, self.events), self.session.prediction)


def check_message(error: Exception) -> None:
    assert str(error), f"{type(error).__name__} without a message"


def replay(session: Session, events: list[tuple]) -> Prediction:
    for name, *arguments in events:
        getattr(session, name)(*arguments)
    return session.prediction


def scale(prompt: object, size: tuple[int, int]) -> object:
    """A prompt of the unit square on an image."""
    height, width = (max(side - 1, 1) for side in size)
    if isinstance(prompt, Click):
        return Click(prompt.x * (size[1] - 1), prompt.y * (size[0] - 1), prompt.positive)
    if isinstance(prompt, Box):
        return Box(prompt.x0 * width, prompt.y0 * height, prompt.x1 * width, prompt.y1 * height)
    points = [(x * width, y * height) for x, y in prompt.points]  # type: ignore[attr-defined]
    if isinstance(prompt, Lasso):
        return Lasso(points)
    return Stroke(points, prompt.positive, prompt.radius_px * width)  # type: ignore[attr-defined]


def changed(events: list[tuple], index: object, to: tuple | None) -> list[tuple]:
    """What the events are with one prompt fewer, or elsewhere; anything where that is refused."""
    since = [at for at, event in enumerate(events) if event[0] == "set_mask"]
    flat = [
        (at, place)
        for at, event in enumerate(events)
        if event[0] in ("add", "add_click") and at > max(since, default=-1)
        for place in range(len(event) - 1 if event[0] == "add" else 1)
    ]
    if type(index) not in (int, np.int64) or not 0 <= index < len(flat):  # type: ignore[operator]
        return events
    at, place = flat[index]  # type: ignore[call-overload]
    name, *given = events[at]
    given = [Click(*given)] if name == "add_click" else given
    new: list = []
    if to is not None:
        try:
            new = [moved(given[place], *to)]
        except REFUSALS:
            return events
    given[place : place + 1] = new
    middle = [("add", *given)] if given else []
    after = [*events[:at], *middle, *events[at + 1 :]]
    # a choice among nothing goes with the last prompt
    first = next((k for k, event in enumerate(after) if event[0] != "select"), len(after))
    return after[first:]


def moved(prompt: object, x: object, y: object) -> object:
    click = Click(x, y)  # type: ignore[arg-type]
    if isinstance(prompt, Click):
        return Click(x, y, prompt.positive)  # type: ignore[arg-type]
    if isinstance(prompt, Box):
        dx, dy = click.x - prompt.x0, click.y - prompt.y0
        return Box(prompt.x0 + dx, prompt.y0 + dy, prompt.x1 + dx, prompt.y1 + dy)
    dx, dy = click.x - prompt.points[0][0], click.y - prompt.points[0][1]  # type: ignore[attr-defined]
    points = [(px + dx, py + dy) for px, py in prompt.points]  # type: ignore[attr-defined]
    if isinstance(prompt, Lasso):
        return Lasso(points)
    return Stroke(points, prompt.positive, prompt.radius_px)  # type: ignore[attr-defined]


def same(a: Prediction, b: Prediction) -> None:
    np.testing.assert_array_equal(a.mask, b.mask)
    np.testing.assert_array_equal(a.probability, b.probability)
    np.testing.assert_array_equal(a.candidates, b.candidates)
    assert (a.selected, a.prompts, a.box, a.obeyed) == (b.selected, b.prompts, b.box, b.obeyed)


def test_call_sequences(segmenter: Segmenter) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    machine = type("Machine", (CallSequences,), {"segmenter": segmenter})
    limits = settings(
        max_examples=SEQUENCES,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=limits)


def test_cancelled_errors_are_no_refusals() -> None:
    """A cancelled future must not pass for a refused argument above."""
    assert not issubclass(CancelledError, REFUSALS)
