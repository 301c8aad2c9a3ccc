"""Metrics against cases computed by hand."""

import numpy as np
import pytest

from trtseg.evaluate.metrics import (
    bootstrap_interval,
    boundary_iou,
    clicks_to_reach,
    failures,
    failures_at_limit,
    iou,
    mean_iou,
    noc,
)

IOUS = np.array(
    [
        [0.50, 0.86, 0.91, 0.95],  # 85 % at click 2, 90 % at 3
        [0.20, 0.40, 0.60, 0.90],  # both at click 4, the last
        [0.85, 0.70, 0.60, 0.50],  # 85 % at click 1 exactly, then worse; never 90 %
        [0.10, 0.20, 0.30, 0.40],  # neither
    ]
)


def test_clicks_to_reach():
    np.testing.assert_array_equal(clicks_to_reach(IOUS, 0.85), [2, 4, 1, 4])
    np.testing.assert_array_equal(clicks_to_reach(IOUS, 0.90), [3, 4, 4, 4])


def test_noc_and_both_ways_to_count_failures():
    assert noc(IOUS, 0.85) == 11 / 4
    assert noc(IOUS, 0.90) == 15 / 4
    assert failures(IOUS, 0.85) == 1
    assert failures_at_limit(IOUS, 0.85) == 2  # the one solved exactly at click 4 counts
    assert failures(IOUS, 0.90) == 2
    assert failures_at_limit(IOUS, 0.90) == 3


def test_mean_iou_at_each_click():
    np.testing.assert_allclose(mean_iou(IOUS), [0.4125, 0.54, 0.6025, 0.6875])


def test_iou_by_hand():
    mask = np.array([[1, 1, 0, 0, 255, 255]], np.uint8)
    predicted = np.array([[1, 0, 1, 0, 1, 0]], np.uint8)
    assert iou(predicted, mask) == 1 / 3
    assert iou(predicted.astype(bool), mask) == 1 / 3
    assert iou(predicted * 255, mask) == 1 / 3


def test_boundary_iou_by_hand():
    mask = np.zeros((9, 9), np.uint8)
    mask[1:6, 1:6] = 1
    moved = np.roll(mask, 1, 1)
    rims = [np.zeros((9, 9), bool) for _ in range(2)]
    for rim, x in zip(rims, (1, 2), strict=True):
        rim[1:6, x : x + 5] = True
        rim[2:5, x + 1 : x + 4] = False
    wanted = (rims[0] & rims[1]).sum() / (rims[0] | rims[1]).sum()
    assert boundary_iou(moved, mask, 1) == wanted
    assert boundary_iou(mask, mask) == boundary_iou(0 * mask, 0 * mask) == 1.0
    # wide enough, the rim is all of the object
    assert boundary_iou(moved, mask, 5) == iou(moved, mask)
    # the image's border bounds, too
    assert boundary_iou(np.ones((9, 9)), np.ones((9, 9), np.uint8) - mask, 1) < 1
    void = mask.copy()
    void[:, 1:3] = void[:, 6] = 255
    assert boundary_iou(moved, void, 1) == 1.0
    with pytest.raises(ValueError, match="width_px: expected at least 1, got 0"):
        boundary_iou(mask, mask, 0)


def test_void_never_counts():
    rng = np.random.default_rng(0)
    mask = rng.choice(np.array([0, 1, 255], np.uint8), (20, 20))
    predicted = rng.random((20, 20)) < 0.5
    expected = iou(predicted, mask)
    for _ in range(5):
        noisy = np.where(mask == 255, rng.random((20, 20)) < 0.5, predicted)
        assert iou(noisy, mask) == expected


def test_two_empty_masks_agree():
    mask = np.array([[0, 255]], np.uint8)
    assert iou(np.array([[0, 1]]), mask) == 1.0
    assert iou(np.array([[1, 1]]), mask) == 0.0


def test_bootstrap_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        low, high = bootstrap_interval(rng.normal(3.0, 1.0, 60), resamples=400, seed=trial)
        hits += low <= 3.0 <= high
    assert 0.89 <= hits / 200 <= 0.985


def test_bootstrap_interval_of_any_statistic_and_of_one_value():
    values = np.arange(20.0)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    low, high = bootstrap_interval(values, lambda rows: float(np.median(rows)))
    assert low < 9.5 < high
    assert bootstrap_interval(np.array([4.0])) == (4.0, 4.0)


def test_bad_arguments():
    with pytest.raises(ValueError, match="predicted: expected"):
        iou(np.zeros((2, 3)), np.zeros((3, 2), np.uint8))
    with pytest.raises(ValueError, match="ious: expected"):
        noc(np.zeros((0, 20)), 0.85)
    with pytest.raises(ValueError, match="at least one row"):
        bootstrap_interval(np.zeros(0))
