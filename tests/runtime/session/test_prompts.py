"""Strokes, boxes and loops beside clicks; prompts that are removed and moved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_model import write_tiny

from runtime.session.test_session import same
from trtseg import Box, Click, Lasso, Segmenter, Stroke
from trtseg.runtime.session import Session
from trtseg.types import Prompt

PROMPTS: list[Prompt] = [
    Click(80, 60),
    Stroke([(60, 30), (90, 40), (100, 50)], radius_px=2),
    Box(30, 20, 130, 100),
    Click(30, 100, False),
    Lasso([(40, 20), (120, 25), (80, 110)]),
    Stroke([(5, 5), (5, 60)], False),
]


@pytest.fixture
def session(segmenter: Segmenter, photo: np.ndarray) -> Session:
    return segmenter.session(segmenter.encode(photo))


@pytest.mark.parametrize("focus", ["auto", None])
def test_any_order_is_exact_under_undo_and_redo(
    segmenter: Segmenter, photo: np.ndarray, focus: str | None
) -> None:
    session = segmenter.session(segmenter.encode(photo), focus=focus)
    seen = [session.prediction, *(session.add(prompt) for prompt in PROMPTS)]
    assert session.prompts == tuple(PROMPTS)
    assert session.clicks == session.prediction.clicks == (PROMPTS[0], PROMPTS[3])
    for p in reversed(seen[:-1]):
        same(session.undo(), p)
    for p in seen[1:]:
        same(session.redo(), p)
    again = segmenter.session(session.encoded, focus=focus)
    for prompt, p in zip(PROMPTS, seen[1:], strict=True):
        same(again.add(prompt), p)


def test_named_forms_make_the_prompts(session: Session) -> None:
    session.add_click(80, 60)
    session.add_stroke([(60, 30), (90, 40)], False, radius_px=2)
    session.add_box(130, 20, 30, 100)
    session.add_lasso(np.array([(40, 20), (120, 25), (80, 110)]))
    assert session.prompts == (
        Click(80, 60),
        Stroke(((60, 30), (90, 40)), False, 2),
        Box(30, 20, 130, 100),
        Lasso(((40, 20), (120, 25), (80, 110))),
    )


def test_each_kind_enters_the_networks(session: Session) -> None:
    session.add_click(80, 60)
    before = session.prediction
    for prompt in PROMPTS[1:]:
        shown = session.preview(prompt)
        assert (shown.candidates != before.candidates).any(), prompt
    assert session.prediction is before


def test_a_box_keeps_the_mask_inside(session: Session) -> None:
    """The tiny model raises inside of a region and lowers outside, as a trained one does."""
    mask = session.add_box(40, 30, 110, 90).mask
    assert mask[60, 75] == 255
    mask = mask.copy()
    mask[26:95, 36:115] = 0
    assert not mask.any()


def test_several_prompts_are_one_event(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    from trtseg.runtime.pipeline import Pipeline

    runs = []
    click = Pipeline.click
    monkeypatch.setattr(
        Pipeline, "click", lambda self, *args, **kw: runs.append(1) or click(self, *args, **kw)
    )
    p = session.add(*PROMPTS)
    assert len(runs) == 1
    assert p.prompts == session.prompts == tuple(PROMPTS)
    assert len(session.observations()) == 1
    assert not session.undo().prompts
    same(session.submit(*PROMPTS).result(20), p)


def test_a_prompt_is_removed_as_if_it_had_never_been(
    segmenter: Segmenter, session: Session
) -> None:
    for prompt in PROMPTS[:2]:
        session.add(prompt)
    session.select(1)
    before = session.add(*PROMPTS[2:4])
    for index in range(4):
        p = session.remove(index)
        other = segmenter.session(session.encoded)
        for at, prompt in enumerate(PROMPTS[:2]):
            if at != index:
                other.add(prompt)
        other.select(1)
        other.add(*(x for at, x in enumerate(PROMPTS[:4]) if at >= 2 and at != index))
        same(p, other.prediction)
        same(session.undo(), before)
    assert session.prompts == tuple(PROMPTS[:4])


def test_what_chose_from_nothing_goes_with_the_last_prompt(session: Session) -> None:
    session.add_click(80, 60)
    session.select(2)
    p = session.remove(0)
    assert (p.prompts, p.selected, p.box) == ((), -1, None)
    assert session.undo().selected == 2


def test_a_prompt_is_moved_as_if_it_had_been_there(segmenter: Segmenter, session: Session) -> None:
    for prompt in PROMPTS[:3]:
        session.add(prompt)
    session.move(0, 70, 50)
    session.move(1, 50, 40)
    p = session.move(2, 20, 10)
    moved = (
        Click(70, 50), Stroke([(50, 40), (80, 50), (90, 60)], radius_px=2), Box(20, 10, 120, 90)
    )  # fmt: skip
    assert p.prompts == moved
    other = segmenter.session(session.encoded)
    for prompt in moved:
        other.add(prompt)
    same(p, other.prediction)


def test_only_prompts_after_a_mask_can_be_changed(session: Session) -> None:
    session.add_click(80, 60)
    with pytest.raises(ValueError, match="index: expected 0 to 0, got 1"):
        session.remove(1)
    given = session.set_mask(np.ones((120, 160), bool))
    with pytest.raises(ValueError, match="index: expected none without a prompt, got 0"):
        session.remove(0)
    session.add_click(10, 10, False)
    assert session.move(0, 20, 10).clicks == (Click(20, 10, False),)
    same(session.remove(0), given)
    for bad in (True, "0", None, 0.0):
        with pytest.raises(TypeError, match="index: expected an integer"):
            session.remove(bad)  # type: ignore[arg-type]


def test_a_move_to_nowhere_changes_nothing(session: Session) -> None:
    before = session.add(*PROMPTS[:3])
    for index, x in ((0, 1000), (1, 1000), (2, 1000), (0, float("nan"))):
        with pytest.raises(ValueError, match="expected"):
            session.move(index, x, 5)
    with pytest.raises(TypeError, match="x: expected a number"):
        session.move(0, "7", 5)  # type: ignore[arg-type]
    assert session.prediction is before


def test_a_change_drops_what_waits(session: Session) -> None:
    session.add_click(80, 60)
    future = session.submit_click(20, 20, False)
    session.move(0, 70, 60)
    session.wait()
    assert future.cancelled() or Click(20, 20, False) in future.result().clicks
    assert session.prompts[0] in (Click(70, 60), Click(80, 60))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Click(160, 5), "x: expected 0 to 159"),
        (Stroke([(-20, 5), (170, 5)]), "points: expected one inside the image, x 0 to 159"),
        (Box(5, 5, 5, 9), "box: expected an area"),
        (Box(-9, 5, -1, 9), "box: expected some of it inside the image"),
        (Lasso([(1, 1), (2, 1), (3, 1)]), "points: expected an area"),
        (Lasso([(1, 125), (2, 125), (2, 130)]), "points: expected some of it inside"),
    ],
)
def test_what_lies_outside_is_refused(session: Session, prompt: Prompt, message: str) -> None:
    for call in (session.add, session.preview, session.submit, session.submit_preview):
        with pytest.raises(ValueError, match=message):
            call(Click(3, 3), prompt)
    assert session.prompts == ()


@pytest.mark.parametrize(
    "prompt",
    [
        Stroke([(5, 5), (1e300, -1e300)], radius_px=1e300),
        Stroke([(5, 5), (-1e9, 7)], radius_px=0),
        Box(-1e300, -1e300, 1e300, 1e300),
        Lasso([(-1e300, 0), (1e300, 0), (3, 1e300)]),
    ],
)
def test_what_reaches_far_outside_is_taken(session: Session, prompt: Prompt) -> None:
    session.add(prompt)
    session.add_click(80, 60)
    assert session.prediction.prompts[0] == prompt


def test_what_is_no_prompt_is_refused(session: Session) -> None:
    for bad in (None, (3, 3), "click", Click):
        with pytest.raises(TypeError, match="prompts: expected Click, Stroke, Box or Lasso"):
            session.add(bad)  # type: ignore[arg-type]
    for call in (session.add, session.preview, session.submit, session.submit_preview):
        with pytest.raises(TypeError, match="prompts: expected at least one, got none"):
            call()


def test_a_model_without_regions_says_so(tmp_path: Path, photo: np.ndarray) -> None:
    plain = Segmenter.load(write_tiny(tmp_path / "plain", region=False), threads=1)
    takes = {kind: plain.accepts(kind) for kind in ("click", "stroke", "box", "lasso", "mask")}
    assert takes == {"click": True, "stroke": True, "box": False, "lasso": False, "mask": True}
    with pytest.raises(ValueError, match="kind: expected click, stroke"):
        plain.accepts("point")
    session = plain.session(plain.encode(photo))
    with pytest.raises(ValueError, match="expected click, stroke with this model, got a box"):
        session.add_box(3, 3, 50, 50)
    with pytest.raises(ValueError, match="got a lasso"):
        session.submit(Click(5, 5), Lasso([(1, 1), (9, 1), (9, 9)]))
    session.add_stroke([(60, 60), (90, 60)])
