from __future__ import annotations

import numpy as np
import pytest
import torch

from trtseg.errors import BundleError
from trtseg.sam import ResizeLongestSide, Sam, SamPredictor, sam_model_registry


@pytest.fixture
def predictor(sam: Sam, photo: np.ndarray) -> SamPredictor:
    made = SamPredictor(sam)
    made.set_image(photo)
    return made


def test_one_point_gives_three_masks_or_one(predictor: SamPredictor) -> None:
    masks, scores, logits = predictor.predict(np.array([[80, 60]]), np.array([1]))
    assert masks.shape == (3, 120, 160)
    assert masks.dtype == bool
    assert scores.shape == (3,)
    assert list(scores) == sorted(scores, reverse=True)
    assert logits.shape == (3, 256, 256)
    assert (scores.dtype, logits.dtype) == (np.float32, np.float32)
    assert masks[:, 60, 80].all()
    single, score, logit = predictor.predict(
        np.array([[80, 60]]), np.array([1]), multimask_output=False
    )
    np.testing.assert_array_equal(single[0], masks[scores.argmax()])
    assert score == scores.max()
    np.testing.assert_array_equal(logit[0], logits[scores.argmax()])


def test_it_answers_as_a_session_does(
    predictor: SamPredictor, sam: Sam, photo: np.ndarray
) -> None:
    coords = np.array([[80, 60], [90, 66], [20, 20]], np.float32)
    labels = np.array([1, 1, 0])
    masks, scores, _ = predictor.predict(coords, labels)
    session = sam.segmenter.session(sam.segmenter.encode(photo), focus=None)
    for (x, y), label in zip(coords, labels, strict=True):
        p = session.add_click(x, y, bool(label))
    best = np.argsort(-p.scores)[:3]
    np.testing.assert_array_equal(masks, p.candidates[best] > 0)
    np.testing.assert_array_equal(scores, p.scores[best])
    for count in (1, 2, 3):  # growing prompts, then a shorter and another one
        masks, _, _ = predictor.predict(coords[:count], labels[:count])
    np.testing.assert_array_equal(masks, p.candidates[best] > 0)
    first, _, _ = predictor.predict(coords[:1], labels[:1])
    assert (first != masks).any()
    other, _, _ = predictor.predict(coords[1:2], labels[1:2])
    assert (other != first).any()


def test_only_new_points_are_run(predictor: SamPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    add = predictor._session.add_click
    monkeypatch.setattr(predictor._session, "add_click", lambda *a: calls.append(a) or add(*a))
    predictor.predict(np.array([[80, 60]]), np.array([1]))
    predictor.predict(np.array([[80, 60], [90, 60]]), np.array([1, 0]))
    predictor.predict(np.array([[80, 60], [90, 60]]), np.array([1, 0]))
    assert len(calls) == 2


def test_boxes_and_padding(predictor: SamPredictor) -> None:
    by_box, _, _ = predictor.predict(box=np.array([40, 30, 120, 90]))
    by_labels, _, _ = predictor.predict(
        np.array([[40, 30], [120, 90], [0, 0]]), np.array([2, 3, -1])
    )
    np.testing.assert_array_equal(by_box, by_labels)
    assert by_box[:, 60, 80].any()
    predictor.predict(box=np.array([[-5, -5, 500, 500]]))


def test_a_mask_is_continued_from(predictor: SamPredictor) -> None:
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
    half = np.where(np.arange(64) < 24, 9, -9).astype(np.float32)
    above, _, _ = predictor.predict(mask_input=half.reshape(1, 8, 8))
    beside, _, _ = predictor.predict(mask_input=half.reshape(1, 1, 64))
    assert (above != beside).any()
    zeros, _, _ = predictor.predict(mask_input=np.zeros((1, 256, 256), np.float32))
    assert not zeros.any()


def test_logits_on_request(predictor: SamPredictor) -> None:
    point = np.array([[80, 60]]), np.array([1])
    logits, _, low = predictor.predict(*point, return_logits=True)
    assert logits.shape == (3, 120, 160)
    assert logits.dtype == np.float32
    assert np.isfinite(low).all()
    masks, _, _ = predictor.predict(*point)
    np.testing.assert_array_equal(logits > predictor.model.mask_threshold, masks)


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
def test_a_bad_prompt_is_refused(predictor: SamPredictor, prompt: dict, message: str) -> None:
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
    predictor: SamPredictor, prompt: dict, name: str
) -> None:
    with pytest.raises(TypeError, match=f"{name}: expected an array of numbers"):
        predictor.predict(**prompt)


def test_an_image_must_be_set(sam: Sam, photo: np.ndarray) -> None:
    predictor = SamPredictor(sam)
    assert not predictor.is_image_set
    assert predictor.features is None
    for call in (lambda: predictor.predict(np.array([[1, 1]]), np.array([1])),
                 predictor.get_image_embedding,
                 lambda: predictor.original_size):  # fmt: skip
        with pytest.raises(RuntimeError, match="image: none is set"):
            call()
    predictor.set_image(photo[..., ::-1], "BGR")
    assert predictor.is_image_set
    assert predictor.original_size == (120, 160)
    assert predictor.input_size == (768, 1024)
    predictor.reset_image()
    assert not predictor.is_image_set


def test_low_resolution_masks_lie_in_the_padded_square(predictor: SamPredictor) -> None:
    point = np.array([[80, 60]]), np.array([1])
    logits, _, low = predictor.predict(*point, return_logits=True)
    # 120 x 160 fills the upper 192 of 256 rows; cells of 0.625 pixels, the model's of 5
    ours = low[:, :192].repeat(5, 1).repeat(5, 2).reshape(3, 120, 8, 160, 8).mean((2, 4))
    inside = (np.abs(logits) < 8) & (np.abs(ours) < 8)
    assert inside.mean() > 0.3
    # logits of interpolated probabilities against interpolated logits
    assert np.abs(ours - logits)[inside].mean() < 0.5
    # the same weights, summed in another order
    np.testing.assert_allclose(low[:, 192:], low[:, 191:192].repeat(64, 1), atol=1e-4)


def test_tensors_in_and_out(predictor: SamPredictor, photo: np.ndarray) -> None:
    transform, size = predictor.transform, photo.shape[:2]
    boxes = torch.tensor([[40.0, 30, 120, 90], [10, 10, 60, 70]])
    found = predictor.predict_torch(None, None, transform.apply_boxes_torch(boxes, size))
    assert [tuple(each.shape) for each in found] == [(2, 3, 120, 160), (2, 3), (2, 3, 256, 256)]
    assert [each.dtype for each in found] == [torch.bool, torch.float32, torch.float32]
    points = np.array([[[80, 60], [20, 20]], [[40, 50], [0, 0]]])
    labels = np.array([[1, 0], [1, -1]])
    masks, scores, low = predictor.predict_torch(
        torch.tensor(transform.apply_coords(points, size)), torch.tensor(labels),
        multimask_output=False,
    )  # fmt: skip
    for index in (0, 1):
        expected = predictor.predict(points[index], labels[index], multimask_output=False)
        for ours, theirs in zip(expected, (masks, scores, low), strict=True):
            np.testing.assert_allclose(ours, theirs[index].numpy(), atol=1e-4)
    continued, _, _ = predictor.predict_torch(None, None, mask_input=low, return_logits=True)
    assert continued.dtype == torch.float32
    with pytest.raises(ValueError, match="batch: expected the same size"):
        predictor.predict_torch(torch.zeros(2, 1, 2), torch.ones(1, 1))
    assert predictor.features.shape == (1, 8, 24, 32)
    torch.testing.assert_close(predictor.get_image_embedding(), predictor.features)
    assert predictor.device == torch.device("cpu")


def test_an_image_in_the_frame_gives_masks_of_the_image_before(
    predictor: SamPredictor, photo: np.ndarray
) -> None:
    point = np.array([[80, 60]]), np.array([1])
    expected, _, _ = predictor.predict(*point)
    large = torch.tensor(predictor.transform.apply_image(photo)).permute(2, 0, 1)[None]
    for image in (large, large.float()):
        predictor.set_torch_image(image, photo.shape[:2])
        assert predictor.input_size == (768, 1024)
        masks, _, _ = predictor.predict(*point)
        assert masks.shape == expected.shape
        assert (masks == expected).mean() > 0.97  # the same picture, resized on another way
    with pytest.raises(ValueError, match="longer side of 1024"):
        predictor.set_torch_image(large[..., :512], photo.shape[:2])


def test_several_images_in_one_call(sam: Sam, photo: np.ndarray) -> None:
    transform = ResizeLongestSide(sam.image_encoder.img_size)
    boxes = torch.tensor([[40.0, 30, 120, 90], [10, 10, 60, 70]])
    record = {
        "image": torch.tensor(transform.apply_image(photo)).permute(2, 0, 1),
        "boxes": transform.apply_boxes_torch(boxes, photo.shape[:2]),
        "original_size": photo.shape[:2],
    }
    found = sam([record, record], multimask_output=False)
    assert len(found) == 2
    assert {name: tuple(value.shape) for name, value in found[0].items()} == {
        "masks": (2, 1, 120, 160),
        "iou_predictions": (2, 1),
        "low_res_logits": (2, 1, 256, 256),
    }


def test_the_model_moves_and_names_what_is_missing(sam: Sam) -> None:
    assert sam.to("cpu") is sam
    assert sam.to(device=torch.device("cpu")).eval() is sam
    with pytest.raises(ValueError, match="device: expected"):
        sam.to("abacus")
    assert sam.device == torch.device("cpu")
    with pytest.raises(BundleError, match="no such bundle"):
        sam_model_registry["vit_h"](checkpoint="sam_vit_h_4b8939.pth")
