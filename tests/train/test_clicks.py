"""Simulated clicks obey the rules of Xu et al. 2016."""

import cv2
import numpy as np
import pytest

from trtseg.train.samples.clicks import (
    EDGE_DEPTH,
    PromptConfig,
    correction_click,
    initial_clicks,
    interior_distance,
)

MANY = PromptConfig(single_fraction=0.0, margins=(5,), steps=(10,))


@pytest.fixture
def scene():
    """An object, void above it, and another object beside it."""
    target = np.zeros((120, 160), np.uint8)
    cv2.ellipse(target, (50, 60), (35, 30), 0, 0, 360, 1, -1)
    target[:8] = 255
    others = np.zeros(target.shape, bool)
    others[30:100, 110:150] = True
    return target, others


def draws(scene, config=MANY, count=200):
    return [initial_clicks(*scene, config, np.random.default_rng(i)) for i in range(count)]


def test_positives_keep_margin_and_step(scene):
    depth = interior_distance(scene[0] == 1)
    for rows in draws(scene):
        positives = rows[rows[:, 2] == 1, :2].astype(int)
        assert 1 <= len(positives) <= MANY.max_positive
        assert (depth[positives[:, 0], positives[:, 1]] > 5).all()
        gaps = np.linalg.norm(positives[:, None] - positives[None], axis=2)
        assert (gaps[~np.eye(len(positives), dtype=bool)] > 9.5).all()


def test_negatives_follow_three_strategies(scene):
    target, others = scene
    away = cv2.distanceTransform((target != 1).astype(np.uint8), cv2.DIST_L2, 5)
    on_others = far = rings = 0
    for rows in draws(scene):
        negatives = rows[rows[:, 2] == 0, :2].astype(int)
        y, x = negatives[:, 0], negatives[:, 1]
        assert len(negatives) <= MANY.max_negative
        assert (target[y, x] == 0).all()
        assert (away[y, x] > 4).all()
        if len(negatives) >= 3:
            on_others += others[y, x].all()
            rings += (away[y, x] < 8).all()
            far += (away[y, x] <= MANY.band + 1).all()
    assert on_others > 20
    assert rings > 20
    assert far > on_others + rings - 10


def test_single_clicks_are_as_frequent_as_asked(scene):
    config = PromptConfig(single_fraction=0.65)
    single = [len(rows) == 1 and rows[0, 2] == 1 for rows in draws(scene, config, 400)]
    assert 0.6 < np.mean(single) < 0.8  # the other samples may have one positive alone, too


def test_thin_and_empty_objects():
    target = np.zeros((40, 40), np.uint8)
    assert initial_clicks(target, target > 0, MANY, np.random.default_rng(0)).shape == (0, 3)
    target[20, 5:35] = 1
    for seed in range(20):
        rows = initial_clicks(target, target > 9, MANY, np.random.default_rng(seed))
        assert (rows[:, 2] == 1).any()
        assert all(target[int(y), int(x)] == label for y, x, label in rows)


def test_equal_seeds_give_equal_clicks(scene):
    for first, second in zip(draws(scene, count=20), draws(scene, count=20), strict=True):
        assert np.array_equal(first, second)


def test_corrections_go_to_the_larger_error(scene):
    target, _ = scene
    predicted = target == 1
    assert correction_click(predicted, target, np.random.default_rng(0)) is None
    missed = predicted.copy()
    missed[50:75, 30:60] = False
    missed[100:104, 100:104] = True
    excess = predicted.copy()
    excess[30:100, 110:150] = True
    others = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        y, x, label = correction_click(missed, target, rng)
        # mostly the larger one; now and then the one of the other kind
        assert (target[y, x], missed[y, x]) == (label, not label)
        others += label != 1
        y, x, label = correction_click(excess, target, rng)
        assert (label, target[y, x], excess[y, x]) == (0, 0, True)
    assert 1 <= others <= 25


def test_corrections_at_the_edge(scene):
    target, _ = scene
    missed = np.zeros(target.shape, bool)
    depth = interior_distance(target == 1)
    depths = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        y, x, label = correction_click(missed, target, rng, at_edge=0.25)
        assert label == target[y, x] == 1
        depths.append(depth[y, x])
    assert depth.max() > 10 * EDGE_DEPTH
    # a few of those anywhere in the region are near its edge, too
    assert 0.2 < np.mean(np.array(depths) <= EDGE_DEPTH) < 0.4


def test_void_is_no_error(scene):
    target, _ = scene
    predicted = (target == 1) | (target == 255)
    assert correction_click(predicted, target, np.random.default_rng(0)) is None
