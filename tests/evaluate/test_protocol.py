"""The loop of click, look, click."""

from types import SimpleNamespace

import numpy as np
import pytest

from trtseg.errors import DatasetError
from trtseg.evaluate.clicks import StandardClicker
from trtseg.evaluate.datasets import open_dataset
from trtseg.evaluate.protocol import (
    SPOILED_RADIUS,
    best_candidate_iou,
    given_mask,
    record_object,
    spoiled_mask,
)

from .methods import DiskSession, write_folder


class Script:
    """Answers with given masks, one per click."""

    def __init__(self, masks):
        self.masks = iter(masks)
        self.clicks = []

    def add_click(self, x, y, positive=True):
        self.clicks.append((x, y, positive))
        return SimpleNamespace(mask=next(self.masks))


def sample_of(mask):
    return SimpleNamespace(mask=np.array(mask, np.uint8))


def test_ious_are_those_of_the_masks_in_order():
    sample = sample_of([[1, 1, 1, 1, 0, 0]])
    masks = [np.array([row], np.uint8) * 255 for row in ([1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 1, 0])]
    session = Script(masks)
    ious = record_object(session, sample, StandardClicker(sample.mask), 2).ious
    np.testing.assert_allclose(ious, [1 / 4, 3 / 5])
    # the first click on the object's centre, the second on what was missed
    assert session.clicks == [(0, 0, True), (1, 0, True)]


def test_a_solved_object_gets_no_more_clicks_and_keeps_its_iou():
    sample = sample_of([[1, 1, 0]])
    session = Script([np.array([[255, 255, 0]], np.uint8)])
    run = record_object(session, sample, StandardClicker(sample.mask), 5)
    assert run.ious == [1.0] * 5
    assert len(run.clicks) == len(run.click_ms) == 1


def test_errors_on_void_are_no_errors():
    sample = sample_of([[1, 1, 255, 255]])
    session = Script([np.array([[255, 255, 255, 0]], np.uint8)])
    run = record_object(session, sample, StandardClicker(sample.mask), 3)
    assert run.ious == [1.0] * 3
    assert len(run.clicks) == 1


def test_stopping_at_a_target_leaves_noc_unchanged(tmp_path):
    sample = open_dataset(write_folder(tmp_path, 1))[0]
    size = sample.mask.shape
    full = record_object(DiskSession(size, 4), sample, StandardClicker(sample.mask), 15).ious
    full = np.array(full)
    early = record_object(
        DiskSession(size, 4), sample, StandardClicker(sample.mask), 15, stop_at=0.4
    )
    reached = int((full >= 0.4).argmax())
    assert full[reached] >= 0.4
    assert len(early.clicks) == reached + 1
    np.testing.assert_array_equal(early.ious[: reached + 1], full[: reached + 1])
    assert early.ious[-1] == early.ious[reached]


def test_kept_masks_are_copies(tmp_path):
    sample = open_dataset(write_folder(tmp_path, 1))[0]
    session = DiskSession(sample.mask.shape, 4)
    run = record_object(session, sample, StandardClicker(sample.mask), 4, keep_masks=True)
    sizes = [int(mask.sum()) for mask in run.masks]
    assert len(set(sizes)) == 4


def test_best_candidate():
    mask = np.array([[1, 1, 0, 0]], np.uint8)
    half = np.array([[0, 255, 0, 0]], np.uint8)
    whole = np.array([[255, 255, 0, 0]], np.uint8)
    predict = lambda value: SimpleNamespace(candidates=value)  # noqa: E731
    assert best_candidate_iou(predict(np.stack([half, whole])), mask) == 1.0
    assert best_candidate_iou(predict(np.stack([half, half])), mask) == 0.5
    assert best_candidate_iou(predict(half[None]), mask) is None
    assert best_candidate_iou(SimpleNamespace(), mask) is None


def test_bad_number_of_clicks():
    sample = sample_of([[1]])
    with pytest.raises(ValueError, match="max_clicks"):
        record_object(Script([]), sample, StandardClicker(sample.mask), 0)


class MaskScript(Script):
    """A script that can go on from a mask."""

    def set_mask(self, mask):
        self.given = mask


def test_a_given_mask_is_corrected_from_the_first_click_on(tmp_path):
    sample = sample_of([[1, 1, 1, 1, 1, 0, 0]])
    sample.initial_mask = np.array([[1, 1, 0, 0, 0, 0, 1]], bool)
    session = MaskScript([np.array([row], np.uint8) for row in ([1, 1, 1, 1, 0, 0, 0],) * 2])
    clicker = StandardClicker(sample.mask)
    run = record_object(session, sample, clicker, 2, initial=given_mask(sample))
    np.testing.assert_array_equal(session.given, sample.initial_mask)
    # what the given mask has too much (a tie is negative), then what the answer misses
    assert session.clicks == [(6, 0, False), (4, 0, True)]
    np.testing.assert_allclose(run.ious, [4 / 5, 4 / 5])


def test_a_given_mask_needs_a_mask_and_a_method_that_takes_it():
    sample = sample_of([[1, 1, 0]])
    sample.initial_mask = np.array([[1, 0, 0]], bool)
    with pytest.raises(ValueError, match="expected a method that can begin with a mask"):
        record_object(
            Script([]), sample, StandardClicker(sample.mask), initial=given_mask(sample)
        )
    sample.initial_mask, sample.source = None, SimpleNamespace(annotation="masks/a.png")
    with pytest.raises(DatasetError, match=r"masks/a\.png: there is no mask to begin with"):
        given_mask(sample)


@pytest.mark.parametrize("seed", range(6))
def test_a_spoiled_mask_is_the_methods_own_but_for_one_disk(tmp_path, seed):
    sample = open_dataset(write_folder(tmp_path, 1))[0]
    shape = sample.mask.shape
    own = record_object(
        DiskSession(shape, 9), sample, StandardClicker(sample.mask), 2, keep_masks=True
    ).masks[-1]
    found = [
        spoiled_mask(
            DiskSession(shape, 9), StandardClicker(sample.mask), np.random.default_rng(seed)
        )
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*found)
    added, cut = found[0] & ~own, own & ~found[0]
    assert added.any() != cut.any()
    rows, columns = np.nonzero(added | cut)
    widest = 2 * SPOILED_RADIUS * np.sqrt(own.sum()) + 1
    assert max(np.ptp(rows), np.ptp(columns)) <= widest


def test_no_mask_to_spoil():
    nothing = np.zeros((4, 4), np.uint8)
    sample = sample_of(np.eye(4))
    clicker = StandardClicker(sample.mask)
    assert spoiled_mask(Script([nothing] * 2), clicker, np.random.default_rng(0)) is None
