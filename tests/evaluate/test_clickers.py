"""Simulated users against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import chisquare

from trtseg.evaluate.clicks import (
    PROTOCOLS,
    BoundaryClicker,
    CentreClicker,
    JitterClicker,
    LatentDiversityClicker,
    RandomClicker,
    StandardClicker,
    interior_distance,
    make_clicker,
)

MASKS = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda size: st.tuples(
        arrays(np.uint8, size, elements=st.sampled_from([0, 1, 1, 255])),
        st.lists(arrays(bool, size), min_size=1, max_size=6),
    )
)


def squared_depth(region):
    """Squared distance of each pixel to the nearest outside pixel or position off the image."""
    height, width = region.shape
    outside = [
        (y, x)
        for y in range(-1, height + 1)
        for x in range(-1, width + 1)
        if not (0 <= y < height and 0 <= x < width and region[y, x])
    ]
    depth = np.zeros(region.shape, int)
    for y, x in np.argwhere(region):
        depth[y, x] = min((y - v) ** 2 + (x - u) ** 2 for v, u in outside)
    return depth


def standard_click(mask, predicted, clicked):
    """The definition, pixel by pixel."""
    best = {}
    for positive, region in ((True, (mask == 1) & ~predicted), (False, (mask == 0) & predicted)):
        depth = squared_depth(region)
        best[positive] = (0, None)
        for y, x in np.ndindex(mask.shape):  # row-major: only a larger one replaces the first
            if (y, x) not in clicked and depth[y, x] > best[positive][0]:
                best[positive] = (depth[y, x], (y, x))
    positive = best[True][0] > best[False][0]
    return None if best[positive][1] is None else (*best[positive][1], positive)


@given(MASKS)
@settings(max_examples=60)
def test_standard_click_is_its_definition(case):
    mask, predictions = case
    clicker = StandardClicker(mask)
    clicked = set()
    for predicted in predictions:
        click = clicker.next_click(predicted)
        expected = standard_click(mask, predicted, clicked)
        if expected is None:
            assert click is None
            continue
        assert (click.y, click.x, click.positive) == expected
        clicked.add(expected[:2])


@given(MASKS, st.sampled_from(list(PROTOCOLS)))
@settings(max_examples=60)
def test_no_clicker_repeats_itself_or_touches_void(case, protocol):
    mask, predictions = case
    clicker = make_clicker(protocol, mask, seed=3, name="object")
    clicked = set()
    for predicted in [None, *predictions]:
        click = clicker.next_click(predicted)
        if click is None:
            continue
        where = (int(click.y), int(click.x))
        assert where not in clicked
        assert mask[where] != 255
        clicked.add(where)
        if protocol != "jitter":
            shown = np.zeros(mask.shape, bool) if predicted is None else predicted
            assert mask[where] == click.positive
            assert shown[where] != click.positive


def test_depth_is_padded():
    depth = interior_distance(np.ones((3, 5), bool))
    np.testing.assert_array_equal(depth[1], [1, 2, 2, 2, 1])


def test_a_tie_between_missed_and_excess_is_negative():
    mask = np.array([[1, 0]], np.uint8)
    click = StandardClicker(mask).next_click(np.array([[0, 1]]))
    assert (click.x, click.y, click.positive) == (1, 0, False)


def test_nothing_to_correct_gives_none():
    mask = np.array([[1, 0, 255]], np.uint8)
    for protocol in PROTOCOLS:
        clicker = make_clicker(protocol, mask)
        assert clicker.next_click(np.array([[1, 0, 1]])) is None


def test_centre_clicker_takes_the_largest_region_not_the_deepest():
    mask = np.zeros((9, 40), np.uint8)
    mask[0:5, 0:5] = 1  # 25 pixels, depth 3
    mask[7:9, 0:40] = 1  # 80 pixels, depth 1
    click = CentreClicker(mask).next_click()
    assert (click.y, click.positive) == (7, True)
    assert StandardClicker(mask).next_click().y == 2


def test_centre_clicker_moves_on_when_a_region_is_used_up():
    mask = np.array([[1, 0, 1, 1]], np.uint8)
    clicker = CentreClicker(mask)
    xs = [clicker.next_click(np.zeros((1, 4))).x for _ in range(3)]
    assert xs == [2, 3, 0]
    assert clicker.next_click(np.zeros((1, 4))) is None


def test_latent_diversity_draws_in_proportion_to_the_distance():
    """LD eq. 8: the frequencies pass a chi-square test against the distances themselves."""
    mask = np.zeros((7, 12), np.uint8)
    mask[1:6, 1:6] = 1
    predicted = np.zeros(mask.shape, bool)
    predicted[2:5, 4:11] = True  # misses part of the object and exceeds it
    depth = squared_depth((mask == 1) & ~predicted) ** 0.5
    depth += squared_depth((mask == 0) & predicted) ** 0.5
    rng = np.random.default_rng(0)
    counts = np.zeros(mask.shape)
    draws = 4000
    for _ in range(draws):
        click = LatentDiversityClicker(mask, rng).next_click(predicted)
        counts[int(click.y), int(click.x)] += 1
        assert click.positive == (mask[int(click.y), int(click.x)] == 1)
    assert not counts[depth == 0].any()
    expected = depth[depth > 0] / depth.sum() * draws
    assert chisquare(counts[depth > 0], expected).pvalue > 0.01
    # and the test has the power to tell it from a uniform draw
    uniform = np.full(expected.shape, draws / expected.size)
    assert chisquare(counts[depth > 0], uniform).pvalue < 1e-6


def test_random_clicker_is_uniform_over_the_errors():
    mask = np.array([[1, 1, 1, 0, 0, 255]], np.uint8)
    predicted = np.array([[1, 0, 0, 1, 0, 1]])
    rng = np.random.default_rng(1)
    xs = [int(RandomClicker(mask, rng).next_click(predicted).x) for _ in range(3000)]
    assert chisquare(np.bincount(xs, minlength=4)[1:4]).pvalue > 0.01


def test_masks_by_columns_are_clicked_on_as_others_are():
    mask = np.zeros((20, 30), np.uint8)
    mask[4:15, 6:26] = 1
    predicted = mask.copy()
    predicted[8:12] = 0
    for protocol in PROTOCOLS:
        expected, found = (
            make_clicker(protocol, order(mask), seed=3, name="object").next_click(order(predicted))
            for order in (np.ascontiguousarray, np.asfortranarray)
        )
        assert found == expected


def test_boundary_clicker_stays_near_the_edge():
    mask = np.zeros((40, 40), np.uint8)
    mask[5:35, 5:35] = 1
    depth = interior_distance(mask == 1)
    rng = np.random.default_rng(2)
    for _ in range(50):
        click = BoundaryClicker(mask, rng).next_click()
        assert 0 < depth[int(click.y), int(click.x)] <= 3


def test_jitter_displaces_by_its_sigma():
    mask = np.zeros((81, 81), np.uint8)
    mask[20:61, 20:61] = 1
    rng = np.random.default_rng(3)
    clicks = [JitterClicker(mask, rng).next_click() for _ in range(1000)]
    offsets = np.array([(click.x - 40, click.y - 40) for click in clicks])
    assert all(click.positive for click in clicks)
    np.testing.assert_allclose(offsets.std(0), 5.0, rtol=0.1)
    np.testing.assert_allclose(offsets.mean(0), 0.0, atol=0.5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_clicks_depend_on_seed_and_name_alone(protocol):
    mask = np.zeros((20, 20), np.uint8)
    mask[3:17, 4:16] = 1
    first = make_clicker(protocol, mask, seed=5, name="a")
    other = make_clicker(protocol, mask, seed=5, name="a")
    predicted = np.zeros(mask.shape, bool)
    assert [first.next_click(predicted) for _ in range(4)] == [
        other.next_click(predicted) for _ in range(4)
    ]


def test_bad_arguments():
    with pytest.raises(ValueError, match="protocol: expected one of"):
        make_clicker("telepathy", np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="mask: expected uint8"):
        StandardClicker(np.zeros((2, 2), bool))
    with pytest.raises(ValueError, match="predicted: expected"):
        StandardClicker(np.zeros((2, 2), np.uint8)).next_click(np.zeros((2, 3)))
