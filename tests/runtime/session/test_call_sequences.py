"""Random sequences of calls with hostile arguments: a typed error or the right answer, always.

`TRTSEG_SEQUENCES=2000` sets how many sequences are tried.
"""

from __future__ import annotations

import os
from concurrent.futures import CancelledError

import hypothesis.strategies as st
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from trtseg import Segmenter, TrtsegError
from trtseg.runtime.session import Session
from trtseg.runtime.session.prediction import Prediction

SEQUENCES = int(os.environ.get("TRTSEG_SEQUENCES", "40"))
REFUSALS = (TrtsegError, ValueError, TypeError)
SIZES = [(1, 1), (1, 40), (7, 5), (33, 65), (120, 160), (200, 90)]
EVENTS = ("click", "select", "set_mask")

awkward = st.sampled_from(
    [None, "", "7", b"7", float("nan"), float("inf"), -float("inf"), -1, 1e300, -0.5, 2**70, True,
     [], [1], (1, 2), {}, 1j, np.float16(3), np.int64(2), np.array([1]), np.array(2), object()]
)  # fmt: skip
coordinate = st.one_of(st.floats(-1, 200), st.integers(-1, 200), awkward)
sign = st.one_of(st.booleans(), st.booleans(), awkward)


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
        self.events: list[tuple] = []
        self.undone: list[tuple] = []
        self.seen: dict[tuple, bytes] = {}

    def attempt(self, event: tuple, call: object, *arguments: object) -> None:
        """Make a call that adds an event; a refusal must leave everything as it was."""
        before, clicks = self.session.prediction, self.session.clicks
        try:
            call(*arguments)  # type: ignore[operator]
        except REFUSALS as error:
            check_message(error)
            assert self.session.prediction is before
            assert self.session.clicks == clicks
        else:
            self.events.append(event)
            self.undone.clear()

    @rule(x=coordinate, y=coordinate, positive=sign)
    def click(self, x: object, y: object, positive: object) -> None:
        self.attempt(("click", x, y, positive), self.session.add_click, x, y, positive)

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

        self.attempt(("click", x, y, positive), call)

    @rule(index=st.one_of(st.integers(-1, 3), awkward))
    def select(self, index: object) -> None:
        self.attempt(("select", index), self.session.select, index)

    @rule(mask=st.one_of(arrays(), awkward))
    def set_mask(self, mask: object) -> None:
        self.attempt(("set_mask", mask), self.session.set_mask, mask)

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
            self.events.append(("click", 0, 0, True))
            self.undone.clear()

    @rule()
    def undo(self) -> None:
        assert self.session.can_undo == bool(self.events)
        try:
            self.session.undo()
        except ValueError:
            assert not self.events
        else:
            self.undone.append(self.events.pop())

    @rule()
    def redo(self) -> None:
        assert self.session.can_redo == bool(self.undone)
        try:
            self.session.redo()
        except ValueError:
            assert not self.undone
        else:
            self.events.append(self.undone.pop())

    @rule()
    def reset(self) -> None:
        self.session.reset()
        self.events.clear()
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
    calls = {"click": session.add_click, "select": session.select, "set_mask": session.set_mask}
    for name, *arguments in events:
        calls[name](*arguments)
    return session.prediction


def same(a: Prediction, b: Prediction) -> None:
    np.testing.assert_array_equal(a.mask, b.mask)
    np.testing.assert_array_equal(a.probability, b.probability)
    np.testing.assert_array_equal(a.candidates, b.candidates)
    assert (a.selected, a.clicks, a.box) == (b.selected, b.clicks, b.box)


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
