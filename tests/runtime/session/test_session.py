from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import write_tiny

from trtseg import Click, EngineError, Segmenter
from trtseg.runtime.maps.choice import Preference
from trtseg.runtime.session import Session
from trtseg.runtime.session.observation import Observation
from trtseg.runtime.session.prediction import Prediction

CLICKS = [(80, 60, True), (95, 70, True), (82, 58, False), (30, 100, True), (150, 5, False)]


@pytest.fixture
def session(segmenter: Segmenter, photo: np.ndarray) -> Session:
    return segmenter.session(segmenter.encode(photo))


def same(a: Prediction, b: Prediction) -> None:
    """Bit for bit, but for the timing and what changed."""
    np.testing.assert_array_equal(a.mask, b.mask)
    np.testing.assert_array_equal(a.probability, b.probability)
    np.testing.assert_array_equal(a.candidates, b.candidates)
    np.testing.assert_array_equal(a.scores, b.scores)
    assert (a.selected, a.box, a.clicks) == (b.selected, b.box, b.clicks)
    assert a.grid_region == b.grid_region


def test_a_click_gives_a_mask_of_the_images_size(session: Session) -> None:
    p = session.add_click(80, 60)
    assert p.mask.shape == (120, 160)
    assert p.mask.dtype == np.uint8
    assert set(np.unique(p.mask)) == {0, 255}
    assert p.mask[60, 80] == 255
    assert not p.mask.flags.writeable
    assert p.candidates.shape == (3, 120, 160)
    np.testing.assert_array_equal(p.candidates[p.selected], p.mask)
    np.testing.assert_array_equal(p.probability >= 0.5, p.mask > 0)
    assert p.probability.dtype == np.float32
    assert p.scores.sum() == pytest.approx(1)
    assert p.selected == p.scores.argmax()
    ys, xs = np.nonzero(p.mask)
    assert p.box == p.changed == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert p.clicks == session.clicks == (Click(80, 60),)
    assert p.timing.total_ms >= p.timing.segment_ms > 0
    assert session.prediction is p


def _scripted(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch, boxes: list[tuple[int, int, int, int]]
) -> list[np.ndarray | None]:
    """The first click finds these boxes, the first one best; what each click was given."""
    click, given = segmenter.pipeline.click, []

    def scripted(encoded: Any, prompts: Any, previous: Any, *rest: Any, **more: Any) -> Any:
        given.append(None if previous is None else np.array(previous))
        found = click(encoded, prompts, previous, *rest, **more)
        if len(prompts) > 1:
            return found
        values = np.full_like(found.probabilities, 0.1)
        for one, (y0, x0, y1, x1) in zip(values, boxes, strict=True):
            one[y0:y1, x0:x1] = 0.9
        scores = np.linspace(0.9, 0.5, len(boxes), dtype=np.float32)
        return replace(found, probabilities=values, scores=scores, mask=None)

    monkeypatch.setattr(segmenter.pipeline, "click", scripted)
    return given


@pytest.mark.parametrize("how", ["shown", "local", "selected", "all are denied"])
def test_after_a_denial_another_candidate_is_gone_on_from(
    segmenter: Segmenter, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    encoded = segmenter.encode(photo)
    height, width = segmenter.pipeline.grid(encoded.working_size)
    whole, small = (0, 0, height, width), (0, 0, height // 4, width // 4)
    boxes = [whole, whole if how == "all are denied" else small, whole]
    given = _scripted(segmenter, monkeypatch, boxes)
    session = segmenter.session(encoded, focus=None, local=how == "local")
    first = session.add_click(2, 2)
    assert first.selected == 0
    if how == "selected":
        first = session.select(0)
    y, x = photo.shape[0] // 2, photo.shape[1] // 2
    # beside another new prompt, and not the last one
    session.add(Click(x, y, False), Click(3, 2))
    maps = first.snapshot.candidates
    assert maps is not None
    expected = maps[1 if how == "shown" else 0]
    np.testing.assert_array_equal(given[1], expected)
    # what is learnt from is what was seen
    np.testing.assert_array_equal(session.observations()[1].previous, expected)
    same(session.undo(), first)


def test_changed_is_the_box_of_the_difference(session: Session) -> None:
    before = session.prediction.mask
    for x, y, positive in CLICKS:
        p = session.add_click(x, y, positive)
        ys, xs = np.nonzero(p.mask != before)
        expected = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if len(ys) else None
        assert p.changed == expected
        before = p.mask
    before = session.prediction.mask
    for _ in CLICKS:
        p = session.undo()
        ys, xs = np.nonzero(p.mask != before)
        expected = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if len(ys) else None
        assert p.changed == expected
        before = p.mask


def test_before_the_first_click_nothing_is_selected(session: Session) -> None:
    p = session.prediction
    assert not p.mask.any()
    assert not p.probability.any()
    assert p.candidates.shape == (0, 120, 160)
    assert (p.selected, p.box, p.changed, p.clicks) == (-1, None, None, ())
    assert p.polygons() == []
    assert p.scores.size == 0
    with pytest.raises(ValueError, match="index: expected none before the first click, got 0"):
        session.select(0)


def test_undo_and_redo_are_exact(segmenter: Segmenter, session: Session) -> None:
    seen = [session.prediction]
    for click in CLICKS:
        seen.append(session.add_click(*click))
    seen.append(session.select(2))
    seen.append(session.add_click(60, 60))
    mask = np.zeros((120, 160), bool)
    mask[20:50, 30:70] = True
    seen.append(session.set_mask(mask))
    seen.append(session.add_click(40, 30))
    for p in reversed(seen[:-1]):
        same(session.undo(), p)
    assert not session.can_undo
    for p in seen[1:]:
        same(session.redo(), p)
    assert not session.can_redo
    with pytest.raises(ValueError, match="redo: nothing to redo"):
        session.redo()
    session.undo()
    session.add_click(1, 1)
    assert not session.can_redo
    session.reset()
    with pytest.raises(ValueError, match="undo: nothing to undo"):
        session.undo()
    same(session.prediction, seen[0])
    for index, click in enumerate(CLICKS):
        same(session.add_click(*click), seen[index + 1])


def test_a_reset_tells_what_to_redraw(session: Session) -> None:
    before = session.add_click(80, 60)
    p = session.reset()
    assert not p.mask.any()
    assert p.changed == before.box
    assert (p.box, p.clicks, session.clicks) == (None, (), ())
    assert session.prediction is p
    assert session.reset().changed is None
    again = session.add_click(80, 60)
    same(again, before)
    assert again.changed == again.box
    out = np.full((120, 160), 9, np.uint8)
    assert session.reset(out=out).changed == again.box
    assert not out.any()


def test_a_small_object_is_looked_at_more_closely(segmenter: Segmenter, photo: np.ndarray) -> None:
    encoded = segmenter.encode(photo)
    close, plain = segmenter.session(encoded), segmenter.session(encoded, focus=None)
    same(close.add_click(80, 60), plain.add_click(80, 60))
    p, q = close.add_click(84, 61), plain.add_click(84, 61)
    assert q.grid_region == (0, 0, 160, 120)
    x0, y0, x1, y1 = p.grid_region
    assert x0 > 0
    assert y1 - y0 < 120
    assert p.timing.focus_encode_ms > 0
    outside = p.mask.copy()
    outside[y0:y1, x0:x1] = 0
    assert not outside.any()
    again = close.add_click(82, 62)
    assert again.grid_region == p.grid_region
    assert again.timing.focus_encode_ms == 0
    close.add_click(1, 1)
    far = close.add_click(158, 118)
    assert far.grid_region == (0, 0, 160, 120)


def test_a_crop_fades_into_its_surroundings(segmenter: Segmenter, photo: np.ndarray) -> None:
    session = segmenter.session(segmenter.encode(photo))
    wide = session.add_click(80, 60)
    p = session.add_click(84, 61)
    x0, y0, _, y1 = p.grid_region
    edge = np.s_[y0:y1, x0]
    # The outermost cell keeps 1/4 of the crop's own value, with 24 cells of 1/16 a side.
    assert np.abs(p.probability[edge] - wide.probability[edge]).max() < 0.3
    assert p.mask[edge].max() == 0


def test_a_selection_is_kept_to(segmenter: Segmenter, photo: np.ndarray) -> None:
    session = segmenter.session(segmenter.encode(photo), focus=None)
    first = session.add_click(80, 60)
    for chosen in range(3):
        p = session.select(chosen)
        np.testing.assert_array_equal(p.mask, first.candidates[chosen])
        assert p.selected == chosen
        later = session.add_click(81, 60)
        preference = Preference((0, 0, 120, 160), p.grid_probabilities[chosen], 1)
        expected = preference.choose(
            later.grid_probabilities, (0, 0, 120, 160), session.clicks, 0.5
        )
        assert later.selected == expected
        assert session.add_click(79, 61).selected == preference.choose(
            session.prediction.grid_probabilities, (0, 0, 120, 160), session.clicks, 0.5
        )
        session.undo()
        session.undo()
        session.undo()


def test_a_mask_is_continued_from(segmenter: Segmenter, photo: np.ndarray) -> None:
    session = segmenter.session(segmenter.encode(photo), focus=None)
    session.add_click(10, 10)
    mask = np.zeros((120, 160), np.uint8)
    mask[40:80, 50:110] = 7
    p = session.set_mask(mask)
    np.testing.assert_array_equal(p.mask > 0, mask > 0)
    np.testing.assert_array_equal(p.probability, mask > 0)
    np.testing.assert_array_equal(p.candidates, p.mask[None])
    assert p.clicks == session.clicks == ()
    assert p.box == (50, 40, 110, 80)
    mask[:] = 0  # the session has its own copy
    np.testing.assert_array_equal(session.prediction.mask, p.mask)
    after = session.add_click(80, 60)
    scratch = segmenter.session(session.encoded, focus=None).add_click(80, 60)
    assert (after.probability != scratch.probability).any(), "the mask enters the next click"


def test_a_model_without_mask_input_says_so(tmp_path: Path, photo: np.ndarray) -> None:
    plain = Segmenter.load(write_tiny(tmp_path / "plain", previous_mask=False), threads=1)
    assert not plain.accepts("mask")
    session = plain.session(plain.encode(photo))
    with pytest.raises(ValueError, match="takes no previous mask"):
        session.set_mask(np.zeros((120, 160), bool))
    session.add_click(80, 60)
    p = session.add_click(90, 60)
    assert p.mask[60, 90] == 255


def test_a_buffer_of_the_caller_is_written(session: Session) -> None:
    out = np.full((120, 160), 9, np.uint8)
    p = session.add_click(80, 60, out=out)
    assert p.mask is out
    first = out.copy()
    out[:] = 77  # the caller's to use
    q = session.add_click(84, 60, out=out)
    ys, xs = np.nonzero(out != first)
    assert q.changed == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    session.undo(out=out)
    np.testing.assert_array_equal(out, first)
    for bad, error in (
        (np.zeros((120, 161), np.uint8), ValueError),
        (np.zeros((120, 160), np.int8), TypeError),
        (np.zeros((160, 120), np.uint8).T, TypeError),
        (p.candidates[0], TypeError),
        ("mask", TypeError),
    ):
        with pytest.raises(error, match="out: expected"):
            session.add_click(1, 1, out=bad)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((float("nan"), 1), ValueError),
        ((1, float("inf")), ValueError),
        ((-1, 5), ValueError),
        ((160, 5), ValueError),
        ((5, 119.6), ValueError),
        (("a", 5), TypeError),
        ((None, 5), TypeError),
        ((1, 1, "yes"), TypeError),
        ((1, 1, 2), TypeError),
        ((1e300, 1), ValueError),
        ((10**400, 1), ValueError),
        (("7", 5), TypeError),
        ((1, b"7"), TypeError),
        ((1, 1, np.ones(2)), TypeError),
    ],
)
def test_a_bad_click_changes_nothing(session: Session, arguments: tuple, error: type) -> None:
    session.add_click(80, 60)
    before = session.prediction
    for call in (session.add, session.submit, session.preview, session.submit_preview):
        with pytest.raises(error, match="expected"):
            call(Click(*arguments))
    for call in (session.add_click, session.submit_click):
        with pytest.raises(error, match="expected"):
            call(*arguments)
    assert session.prediction is before
    assert len(session.clicks) == 1


def test_a_failing_network_changes_nothing(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = [session.add_click(*click) for click in CLICKS[:3]]
    session.undo()

    def fail(self: object) -> None:
        raise EngineError("segment: out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("trtseg.runtime.onnxruntime.OnnxBinding.run", fail)
        with pytest.raises(EngineError, match="out of memory"):
            session.add_click(10, 10)
        with pytest.raises(EngineError, match="out of memory"):
            session.submit_click(10, 10).result(10)
    assert session.can_redo
    same(session.prediction, seen[1])
    same(session.redo(), seen[2])


def test_eight_threads_give_what_one_gives(segmenter: Segmenter, photo: np.ndarray) -> None:
    images = [np.ascontiguousarray(np.roll(photo, 20 * k, axis=1)) for k in range(8)]

    def work(image: np.ndarray) -> list[Prediction]:
        session = segmenter.session(segmenter.encode(image))
        return [session.add_click(*click) for click in CLICKS]

    serial = [work(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(work, images * 3))
    for index, predictions in enumerate(parallel):
        for p, q in zip(predictions, serial[index % 8], strict=True):
            same(p, q)


def test_one_session_from_many_threads_stays_whole(session: Session) -> None:
    """Whatever the order in which threads get their turn, it is the result of that order."""

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(6):
            if rng.random() < 0.2 and session.can_undo:
                try:
                    session.undo()
                except ValueError:
                    continue
            else:
                session.add_click(rng.integers(160), rng.integers(120), bool(rng.random() < 0.7))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    final, clicks = session.prediction, session.clicks
    session.reset()
    for click in clicks:
        p = session.add_click(click.x, click.y, click.positive)
    same(p, final)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_cutout_keeps_the_images_own_transparency(
    segmenter: Segmenter, photo: np.ndarray, dtype: type
) -> None:
    alpha = np.full((120, 160, 1), 255, np.uint8)
    alpha[:, 80:] = 0
    alpha[:, 70:80] = 100
    image = np.dstack((photo, alpha))
    if dtype == np.uint16:
        image = image.astype(dtype) * 257
    elif dtype == np.float32:
        image = image.astype(dtype) / 255
    p = segmenter.session(segmenter.encode(image)).add_click(75, 60)
    assert p.mask[60, 75] == 255
    cut, full = p.cutout(), np.uint16(1)
    if dtype == np.uint16:
        assert cut.dtype == np.uint16
        full = np.uint16(257)
    shown = np.where(p.mask > 0, alpha[..., 0], 0)
    np.testing.assert_array_equal(cut[..., 3], shown * full)
    np.testing.assert_array_equal(cut[..., :3], np.where(shown[..., None] > 0, photo, 0) * full)


def test_results_of_a_prediction(session: Session, photo: np.ndarray) -> None:
    p = session.add_click(80, 60)
    cut = p.cutout(photo[..., ::-1], "BGR")
    np.testing.assert_array_equal(cut[..., :3], np.where(p.mask[..., None] > 0, photo, 0))
    np.testing.assert_array_equal(cut[..., 3], p.mask)
    with pytest.raises(ValueError, match="image: expected size"):
        p.cutout(photo[1:])
    assert len(p.polygons()) >= 1
    assert p.rle()["size"] == [120, 160]
    assert "prompts=1" in repr(p)


def test_a_region_is_all_that_is_looked_at(segmenter: Segmenter, photo: np.ndarray) -> None:
    encoded = segmenter.encode(photo, region=(40, 20, 120, 100))
    session = segmenter.session(encoded)
    p = session.add_click(80, 60)
    outside = p.mask.copy()
    outside[20:100, 40:120] = 0
    assert not outside.any()
    assert p.mask[60, 80] == 255
    with pytest.raises(ValueError, match="x: expected 40 to 119"):
        session.add_click(30, 60)
    cut = segmenter.session(segmenter.encode(photo[20:100, 40:120])).add_click(40, 40)
    np.testing.assert_array_equal(cut.mask, p.mask[20:100, 40:120])
    for region in ((0, 0, 0, 5), (0, 0, 161, 5), (-1, 0, 5, 5), (0, 0, 5), "abcd", (0.5, 0, 5, 5)):
        with pytest.raises(ValueError, match="region: expected"):
            segmenter.encode(photo, region=region)


class Recorder:
    """An adapter that counts: weights are the number of clicks they have seen."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, Observation]] = []

    def start(self) -> int:
        return 0

    def adapt(self, weights: int, observation: Observation) -> int:
        self.seen.append((weights, observation))
        return weights + 1

    def engine(self, weights: int) -> None:
        return None


def test_an_adapters_weights_belong_to_their_click(segmenter: Segmenter, photo: np.ndarray) -> None:
    adapter = Recorder()
    session = segmenter.session(segmenter.encode(photo), adapt=adapter)
    session.add_click(80, 60)
    p = session.add_click(90, 60, False)
    assert [weights for weights, _ in adapter.seen] == [0, 1]
    first, second = (observation for _, observation in adapter.seen)
    assert first.previous is None
    assert len(second.prompts.positive) == len(second.prompts.negative) == 1
    assert second.previous.shape == second.encoded.base.shape[1:]
    session.undo()
    session.add_click(70, 60)
    assert adapter.seen[-1][0] == 1, "undo gave back the weights of the first click"
    session.undo()
    plain = segmenter.session(session.encoded)
    plain.add_click(80, 60)
    same(plain.add_click(90, 60, False), p)
