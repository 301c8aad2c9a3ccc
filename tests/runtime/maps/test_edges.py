"""Contours that follow the image."""

import pickle

import cv2
import numpy as np
import pytest

from trtseg import Segmenter
from trtseg.runtime.engine import HostMemory
from trtseg.runtime.maps.edges import Edges, make_guide
from trtseg.runtime.maps.tidy import Tidy
from trtseg.types import Click

SIZE, GRID, STRIDE = (96, 128), (24, 32), 4
REGION = (0, 0, *SIZE)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """(prepared image [1, 3, H, W] of scale 1 / 127.5, the object): a bright ellipse."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    inside = ((y - 47.3) / 27) ** 2 + ((x - 61.8) / 38) ** 2 < 1
    image = np.where(inside, 0.6, -0.5).astype(np.float32)
    return np.repeat(image[None, None], 3, 1), inside


def edges(image: np.ndarray, tidy: Tidy | None = None) -> Edges:
    guide = make_guide(HostMemory(), image, STRIDE)
    return Edges(HostMemory(), guide, tidy or Tidy(), SIZE, 0.5, 1 / 127.5)


def coarse(inside: np.ndarray) -> np.ndarray:
    """What a network might say of it on the base grid: right, but blurred."""
    small = cv2.resize(inside.astype(np.float32), GRID[::-1], interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(small, (0, 0), 1)


def wrong(probability: np.ndarray, inside: np.ndarray) -> int:
    shown = cv2.resize(probability, SIZE[::-1], interpolation=cv2.INTER_LINEAR) >= 0.5
    return np.count_nonzero(shown != inside)


def test_the_guide_is_grey_and_its_cells_are_means():
    image = np.random.default_rng(0).normal(0, 1, (1, 3, *SIZE)).astype(np.float32)
    guide = make_guide(HostMemory(), image, STRIDE)
    np.testing.assert_allclose(guide.fine, image[0].mean(0), atol=1e-6)
    cells = image[0].mean(0).reshape(24, 4, 32, 4).mean((1, 3))
    np.testing.assert_allclose(guide.coarse, cells, atol=1e-6)
    assert guide.nbytes == 4 * (96 * 128 + 24 * 32)


def test_a_contour_comes_to_the_edge():
    image, inside = scene()
    probability = coarse(inside)
    found = edges(image).refine(probability, REGION, ())
    assert found.shape == SIZE
    assert wrong(found, inside) < wrong(probability, inside) / 4


def test_crumbs_of_detail_are_tidied():
    image, inside = scene()
    image = image + np.random.default_rng(0).normal(0, 0.4, image.shape[2:]).astype(np.float32)
    probability = coarse(inside)
    parts = [
        cv2.connectedComponents((found >= 0.5).astype(np.uint8))[0] - 1
        for found in (
            edges(image, tidy).refine(probability, REGION, ()) for tidy in (Tidy(0, 0), Tidy())
        )
    ]
    assert parts[0] > parts[1] == 1


@pytest.mark.parametrize("seed", range(20))
def test_clicks_hold(seed: int):
    """Beside an edge that says otherwise."""
    image, inside = scene()
    rng = np.random.default_rng(seed)
    near = np.argwhere(cv2.dilate(inside.astype(np.uint8), np.ones((9, 9))) != inside)
    clicks = [
        Click(float(x), float(y), bool(rng.random() < 0.5))
        for y, x in rng.permutation(near)[:6]
    ]
    found = edges(image).refine(coarse(inside), REGION, clicks)
    for click in clicks:
        y, x = click.pixel
        assert (found[y, x] >= 0.5) == click.positive


def test_sessions_with_and_without(tiny_path, photo: np.ndarray):
    segmenter = Segmenter.load(tiny_path, threads=1)
    encoded = segmenter.encode(photo)
    plain, fine = (segmenter.session(encoded, edges=on) for on in (False, True))
    answers = [session.add_click(80, 60) for session in (plain, fine)]
    # what the next click builds on is the same
    np.testing.assert_array_equal(*(each.grid_probabilities for each in answers))
    assert (answers[0].mask != answers[1].mask).any()
    for each in answers:
        np.testing.assert_array_equal(each.mask > 0, each.probability >= 0.5)
        np.testing.assert_array_equal(each.mask, each.candidates[each.selected])
        with pytest.raises(IndexError, match="index: expected 0 to"):
            each.candidate_probability(len(each.scores))
    again = segmenter.session(pickle.loads(pickle.dumps(encoded)), edges=True).add_click(80, 60)
    np.testing.assert_array_equal(again.mask, answers[1].mask)
    with pytest.raises(TypeError, match="edges: expected a bool, got 1"):
        segmenter.session(encoded, edges=1)  # type: ignore[arg-type]


def test_a_saved_session_keeps_to_its_edges(tiny_path, photo: np.ndarray, tmp_path):
    segmenter = Segmenter.load(tiny_path, threads=1)
    for on in (False, True):
        session = segmenter.session(segmenter.encode(photo), edges=on)
        mask = session.add_click(80, 60).mask
        session.save(tmp_path / "session.json")
        opened = segmenter.open(tmp_path / "session.json", photo)
        np.testing.assert_array_equal(opened.prediction.mask, mask)
