from __future__ import annotations

import numpy as np
import pytest

from trtseg import Predictor, Segmenter


@pytest.fixture
def predictor(segmenter: Segmenter, photo: np.ndarray) -> Predictor:
    made = Predictor(segmenter)
    made.set_image(photo)
    return made


def test_one_point_gives_all_hypotheses(predictor: Predictor) -> None:
    masks, scores, logits = predictor.predict(np.array([[80, 60]]), np.array([1]))
    assert masks.shape == (3, 120, 160)
    assert masks.dtype == bool
    assert scores.shape == (3,)
    assert logits.shape == (3, 24, 32)
    assert masks[:, 60, 80].all()
    single, score, logit = predictor.predict(
        np.array([[80, 60]]), np.array([1]), multimask_output=False
    )
    np.testing.assert_array_equal(single[0], masks[scores.argmax()])
    assert score == scores.max()
    np.testing.assert_array_equal(logit[0], logits[scores.argmax()])


def test_it_answers_as_a_session_does(
    predictor: Predictor, segmenter: Segmenter, photo: np.ndarray
) -> None:
    coords = np.array([[80, 60], [90, 66], [20, 20]], np.float32)
    labels = np.array([1, 1, 0])
    masks, scores, _ = predictor.predict(coords, labels)
    session = segmenter.session(segmenter.encode(photo), focus=None)
    for (x, y), label in zip(coords, labels, strict=True):
        p = session.add_click(x, y, bool(label))
    np.testing.assert_array_equal(masks, p.candidates > 0)
    np.testing.assert_array_equal(scores, p.scores)
    for count in (1, 2, 3):  # growing prompts, then a shorter and another one
        masks, _, _ = predictor.predict(coords[:count], labels[:count])
    np.testing.assert_array_equal(masks, p.candidates > 0)
    first, _, _ = predictor.predict(coords[:1], labels[:1])
    assert (first != masks).any()
    other, _, _ = predictor.predict(coords[1:2], labels[1:2])
    assert (other != first).any()


def test_only_new_points_are_run(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    add = predictor._session.add_click
    monkeypatch.setattr(predictor._session, "add_click", lambda *a: calls.append(a) or add(*a))
    predictor.predict(np.array([[80, 60]]), np.array([1]))
    predictor.predict(np.array([[80, 60], [90, 60]]), np.array([1, 0]))
    predictor.predict(np.array([[80, 60], [90, 60]]), np.array([1, 0]))
    assert len(calls) == 2


def test_boxes_and_padding(predictor: Predictor) -> None:
    by_box, _, _ = predictor.predict(box=np.array([40, 30, 120, 90]))
    by_labels, _, _ = predictor.predict(
        np.array([[40, 30], [120, 90], [0, 0]]), np.array([2, 3, -1])
    )
    np.testing.assert_array_equal(by_box, by_labels)
    assert by_box[:, 60, 80].any()
    predictor.predict(box=np.array([[-5, -5, 500, 500]]))


def test_a_mask_is_continued_from(predictor: Predictor) -> None:
    point = np.array([[80, 60]]), np.array([1])
    masks, scores, logits = predictor.predict(*point)
    best = scores.argmax()
    more = np.array([[95, 70]]), np.array([1])
    continued, _, _ = predictor.predict(*more, mask_input=logits[best, None])
    fresh, _, _ = predictor.predict(*more)
    assert (continued != fresh).any()
    repeated, _, _ = predictor.predict(*more, mask_input=logits[best, None])
    np.testing.assert_array_equal(repeated, continued)
    alone, _, _ = predictor.predict(mask_input=logits[best, None])
    assert (alone[0] == masks[best]).mean() > 0.97
    # the same bytes in another shape are another mask
    half = np.where(np.arange(64) < 32, 9, -9).astype(np.float32)
    above, _, _ = predictor.predict(mask_input=half.reshape(1, 8, 8))
    beside, _, _ = predictor.predict(mask_input=half.reshape(1, 1, 64))
    assert (above != beside).any()
    zeros, _, _ = predictor.predict(mask_input=np.zeros((1, 256, 256), np.float32))
    assert not zeros.any()


def test_logits_on_request(predictor: Predictor) -> None:
    point = np.array([[80, 60]]), np.array([1])
    logits, _, low = predictor.predict(*point, return_logits=True)
    assert logits.shape == (3, 120, 160)
    assert logits.dtype == np.float32
    assert np.isfinite(low).all()
    masks, _, _ = predictor.predict(*point)
    # a mask is cut from interpolated probabilities, not from interpolated logits
    assert ((logits > predictor.mask_threshold) == masks).mean() > 0.98


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({}, "expected a point, a box or a mask_input"),
        ({"point_coords": [[1, 1]]}, "point_labels: expected with point_coords"),
        ({"point_labels": [1]}, "point_labels: expected with point_coords"),
        ({"point_coords": [1, 1], "point_labels": [1]}, "point_coords: expected \\[N, 2\\]"),
        ({"point_coords": [[1, 1]], "point_labels": [1, 0]}, "point_coords: expected \\[N, 2\\]"),
        ({"point_coords": [[1, 1]], "point_labels": [7]}, "point_labels: expected 1, 0"),
        ({"point_coords": [[1, 1]], "point_labels": [2]}, "as many labels 2 as labels 3"),
        ({"point_coords": [[999, 1]], "point_labels": [1]}, "x: expected 0 to 159"),
        ({"point_coords": [[np.nan, 1]], "point_labels": [1]}, "x: expected a finite number"),
        ({"box": [5, 5, 5, 9]}, "box: expected x0 < x1"),
        ({"box": [5, 5, 9]}, "box: expected \\[4\\]"),
        ({"box": [np.nan] * 4}, "box: expected x0 < x1"),
        ({"mask_input": np.zeros((2, 4, 4))}, "mask_input: expected \\[1, h, w\\]"),
    ],
)
def test_a_bad_prompt_is_refused(predictor: Predictor, prompt: dict, message: str) -> None:
    good = np.array([[80, 60]]), np.array([1])
    before, _, _ = predictor.predict(*good)
    with pytest.raises(ValueError, match=message):
        predictor.predict(**prompt)
    after, _, _ = predictor.predict(*good)
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ({"point_coords": [["a", "b"]], "point_labels": [1]}, "point_coords"),
        ({"point_coords": [[1, 1]], "point_labels": ["fore"]}, "point_labels"),
        ({"box": "0 0 9 9"}, "box"),
        ({"mask_input": "none"}, "mask_input"),
    ],
)
def test_a_prompt_that_is_no_number_is_refused(
    predictor: Predictor, prompt: dict, name: str
) -> None:
    with pytest.raises(TypeError, match=f"{name}: expected an array of numbers"):
        predictor.predict(**prompt)


def test_an_image_must_be_set(segmenter: Segmenter, photo: np.ndarray) -> None:
    predictor = Predictor(segmenter)
    assert not predictor.is_image_set
    for call in (lambda: predictor.predict(np.array([[1, 1]]), np.array([1])),
                 lambda: predictor.original_size):  # fmt: skip
        with pytest.raises(ValueError, match="image: none is set"):
            call()
    predictor.set_image(photo[..., ::-1], "BGR")
    assert predictor.is_image_set
    assert predictor.original_size == (120, 160)
    predictor.reset_image()
    assert not predictor.is_image_set
