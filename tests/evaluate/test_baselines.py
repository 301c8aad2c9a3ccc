"""Classical methods on images whose right answer is known, and their parts against brute force."""

import itertools

import cv2
import numpy as np
import pytest

from trtseg.evaluate.baselines.clicks import (
    BACKGROUND,
    OBJECT,
    UNKNOWN,
    BaselineSession,
    stroke_labels,
    with_border_background,
)
from trtseg.evaluate.baselines.colour import ColourBins
from trtseg.evaluate.baselines.energy import Pairs, contrast_pairs, minimise
from trtseg.evaluate.baselines.geodesic import geodesic
from trtseg.evaluate.baselines.geodesic_matting import GeodesicMatting
from trtseg.evaluate.baselines.graph_cut import GraphCut
from trtseg.evaluate.baselines.random_walker import RandomWalker
from trtseg.evaluate.baselines.refinement import RefinedSession, Refinement
from trtseg.evaluate.baselines.star_convexity import EuclideanStar, GeodesicStar, star_parents
from trtseg.evaluate.methods import BASELINES
from trtseg.evaluate.metrics import iou
from trtseg.types import Click

NAMES = list(BASELINES)


def two_colours(seed=0, noise=6):
    """A red ellipse on blue, 60 x 80, with a little noise; and the truth."""
    truth = np.zeros((60, 80), np.uint8)
    cv2.ellipse(truth, (38, 30), (22, 15), 20, 0, 360, 1, -1)
    image = np.where(truth[..., None] == 1, (190, 60, 50), (50, 70, 180)).astype(float)
    image += np.random.default_rng(seed).normal(0, noise, image.shape)
    return image.clip(0, 255).astype(np.uint8), truth


def click_through(name, image, clicks):
    method = BASELINES[name]()
    with method.session(method.encode(image)) as session:
        for click in clicks:
            prediction = session.add_click(*click)
    return prediction


@pytest.mark.parametrize("name", NAMES)
def test_known_object(name):
    image, truth = two_colours()
    clicks = [(38, 30, True), (8, 8, False), (70, 50, False)]
    mask = click_through(name, image, clicks).mask
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 255}
    assert iou(mask, truth) > 0.95


@pytest.mark.parametrize("name", NAMES)
def test_one_click_is_enough_where_colours_tell(name):
    image, truth = two_colours(noise=2)
    assert iou(click_through(name, image, [(38, 30, True)]).mask, truth) > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_clicks_have_their_own_label(name):
    """On noise without structure the mask still obeys the clicks."""
    image = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    clicks = [(10, 10, True), (40, 10, False), (12, 30, True), (30, 30, False), (25, 20, True)]
    mask = click_through(name, image, clicks).mask
    for x, y, positive in clicks:
        assert (mask[y, x] > 0) == positive


@pytest.mark.parametrize("name", NAMES)
def test_edges_of_the_input(name):
    flat = np.full((9, 7, 3), 128, np.uint8)
    assert not click_through(name, flat, [(3, 3, False)]).mask.any()
    assert click_through(name, flat, [(0, 0, False), (6, 8, True)]).mask[8, 6] == 255
    tiny = np.zeros((1, 1, 3), np.uint8)
    assert click_through(name, tiny, [(0, 0, True)]).mask.shape == (1, 1)
    method = BASELINES[name]()
    with method.session(method.encode(flat)) as session, pytest.raises(ValueError, match="inside"):
        session.add_click(7, 3)


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_reproducible_and_described(name):
    image, _ = two_colours(noise=40)
    clicks = [(38, 30, True), (8, 8, False), (50, 30, True)]
    first, second = (click_through(name, image, clicks).mask for _ in range(2))
    np.testing.assert_array_equal(first, second)
    description = BASELINES[name]().describe()
    assert description["name"] == name
    assert description["parameters"]["radius_px"] > 0
    assert len(description["parameters"]["source"]) > 20


def energy(labels, object_cost, other_cost, pairs):
    flat = labels.ravel()
    unary = np.where(flat, object_cost.ravel(), other_cost.ravel()).sum()
    return unary + (pairs.weight * (flat[pairs.first] != flat[pairs.second])).sum()


def all_labellings(count):
    return np.array(list(itertools.product([False, True], repeat=count)))


@pytest.mark.parametrize("seed", range(6))
def test_graph_cut_is_the_minimum_over_all_labellings_of_4x4(seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    pairs = contrast_pairs(image)
    assert len(pairs.first) == 12 + 12 + 9 + 9
    object_cost, other_cost = rng.random((2, 4, 4)) * 2
    found = minimise(object_cost, other_cost, pairs)
    labellings = all_labellings(16)
    costs = labellings @ (object_cost - other_cost).ravel() + other_cost.sum()
    cut = labellings[:, pairs.first] != labellings[:, pairs.second]
    costs += cut @ pairs.weight
    least = costs.min()
    assert energy(found, object_cost, other_cost, pairs) == pytest.approx(least, abs=1e-9)
    np.testing.assert_array_equal(found.ravel(), labellings[costs.argmin()])


@pytest.mark.parametrize("seed", range(4))
def test_star_constraint_is_the_minimum_over_all_star_shapes(seed):
    rng = np.random.default_rng(seed)
    pairs = contrast_pairs(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    object_cost, other_cost = rng.random((2, 4, 4)) * 2
    parents = star_parents(np.array([[1, 2]]), (4, 4))
    found = minimise(object_cost, other_cost, pairs, parents)
    children = np.flatnonzero(parents.ravel() >= 0)
    onto = parents.ravel()[children]
    labellings = all_labellings(16)
    allowed = ~(labellings[:, children] & ~labellings[:, onto]).any(1)
    labellings = labellings[allowed]
    best = min(energy(labels, object_cost, other_cost, pairs) for labels in labellings)
    assert not (found.ravel()[children] & ~found.ravel()[onto]).any()
    assert energy(found, object_cost, other_cost, pairs) == pytest.approx(best, abs=1e-9)


def test_a_whole_graph_cut_on_4x4_is_the_minimum_of_its_own_energy():
    image = np.random.default_rng(9).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    method = GraphCut(radius_px=0.5)
    encoded = method.encode(image)
    clicks = [Click(0, 0, True), Click(3, 3, False)]
    mask = method.segment(encoded, clicks, None).mask > 0
    labels = stroke_labels(clicks, (4, 4), 0.5)
    object_cost, other_cost = method.costs(encoded, labels)
    pairs = method.weighted(encoded.pairs)
    best = min(energy(row, object_cost, other_cost, pairs) for row in all_labellings(16))
    assert energy(mask, object_cost, other_cost, pairs) == pytest.approx(best)
    assert mask[0, 0]
    assert not mask[3, 3]


def test_contrast_by_hand():
    pairs = contrast_pairs(np.array([[[0], [3]], [[0], [0]]], float))
    squared = {(0, 1): 9, (2, 3): 0, (0, 2): 0, (1, 3): 9, (0, 3): 0, (1, 2): 9}
    length = {(0, 3): 2**0.5, (1, 2): 2**0.5}
    found = {tuple(sorted(p)): w for *p, w in zip(pairs.first, pairs.second, pairs.weight)}  # noqa: B905
    assert found.keys() == squared.keys()
    for pair, weight in found.items():
        expected = np.exp(-squared[pair] / (2 * 27 / 6)) / length.get(pair, 1)
        assert weight == pytest.approx(expected)


def test_star_parents_lead_straight_to_the_nearest_centre():
    centres = np.array([[5, 7], [20, 30]])
    parents = star_parents(centres, (25, 40))
    assert (np.argwhere(parents == -1) == centres).all()
    for y, x in np.ndindex(25, 40):
        to = ((centres - (y, x)) ** 2).sum(1)
        centre = centres[to.argmin()]
        at, steps = (y, x), 0
        while parents[at] >= 0:
            at = divmod(int(parents[at]), 40)
            steps += 1
            # digital rays that form a tree cannot be straighter than O(log length)
            away = np.array(at) - (y, x)
            along = centre - (y, x)
            cross = abs(away[0] * along[1] - away[1] * along[0]) / np.hypot(*along)
            assert cross <= 1.5
            assert steps <= 60
        assert at in {(5, 7), (20, 30)}


def assert_star_convex(mask, centres):
    """With a pixel, the segment to its nearest centre lies in the mask, up to rasterisation.

    The rays leave the segment by up to 1.2 pixels at this size, so the mask is grown by two.
    """
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8))
    for y, x in np.argwhere(mask):
        centre = centres[((centres - (y, x)) ** 2).sum(1).argmin()]
        steps = np.linspace(0, 1, 2 * int(abs(centre - (y, x)).max()) + 1)[:, None]
        points = np.rint((y, x) + steps * (centre - (y, x))).astype(int)
        assert grown[points[:, 0], points[:, 1]].all()


@pytest.mark.parametrize("seed", range(3))
def test_euclidean_star_masks_are_star_convex(seed):
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8), (0, 0), 2)
    method = EuclideanStar(radius_px=2)
    session = BaselineSession(method, method.encode(image))
    clicks = [(14, 12), (33, 28)]
    for x, y in clicks:
        mask = session.add_click(x, y).mask > 0
    mask = session.add_click(24, 4, False).mask > 0
    assert 20 < mask.sum() < mask.size
    centres = np.array(clicks)[:, ::-1]
    assert_star_convex(mask, centres)
    parents = star_parents(centres, mask.shape)
    children = mask & (parents >= 0)
    assert mask.ravel()[parents[children]].all()
    free = GraphCut(radius_px=2)
    plain = BaselineSession(free, free.encode(image))
    for x, y in clicks:
        plain.add_click(x, y)
    unconstrained = plain.add_click(24, 4, False).mask > 0
    assert not unconstrained.ravel()[parents[unconstrained & (parents >= 0)]].all()


def test_geodesic_star_masks_follow_their_paths():
    image = cv2.GaussianBlur(two_colours(noise=60)[0], (0, 0), 1.5)
    method = GeodesicStar()
    encoded = method.encode(image)
    clicks = [Click(38, 30, True), Click(5, 5, False)]
    mask = method.segment(encoded, clicks, None).mask > 0
    parents = method.parents(encoded, clicks)
    children = mask & (parents >= 0)
    assert children.any()
    assert mask.ravel()[parents[children]].all()


def test_geodesic_star_with_gamma_0_has_octile_distances():
    image, _ = two_colours()
    method = GeodesicStar(gamma=0.0)
    cost = method.encode(image).path_cost
    np.testing.assert_allclose(cost, 1.0, atol=1e-5)


def test_geodesic_against_bellman_ford():
    rng = np.random.default_rng(0)
    cost = rng.random((7, 9)) + 0.05
    seeds = np.zeros(cost.shape, bool)
    seeds[1, 2] = seeds[5, 7] = True
    distance, parents = geodesic(cost, seeds)
    expected = np.where(seeds, 0.0, np.inf)
    for _ in range(cost.size):
        for dy, dx in itertools.product((-1, 0, 1), repeat=2):
            if dy == dx == 0:
                continue
            for y, x in np.ndindex(cost.shape):
                v, u = y + dy, x + dx
                if 0 <= v < 7 and 0 <= u < 9:
                    step = np.hypot(dy, dx) * (cost[y, x] + cost[v, u]) / 2
                    expected[y, x] = min(expected[y, x], expected[v, u] + step)
    np.testing.assert_allclose(distance, expected)
    assert (parents[seeds] == -1).all()
    for y, x in np.argwhere(~seeds):
        v, u = divmod(int(parents[y, x]), 9)
        step = np.hypot(y - v, x - u) * (cost[y, x] + cost[v, u]) / 2
        assert distance[y, x] == pytest.approx(distance[v, u] + step)
    assert np.isinf(geodesic(cost, np.zeros(cost.shape, bool))[0]).all()


def test_geodesic_matting_splits_a_flat_image_halfway():
    image = np.full((11, 21, 3), 90, np.uint8)
    method = GeodesicMatting(radius_px=0.5)
    clicks = [Click(4, 5, True), Click(16, 5, False)]
    prediction = method.segment(method.encode(image), clicks, None)
    np.testing.assert_array_equal(prediction.mask[5] > 0, np.arange(21) <= 10)
    np.testing.assert_allclose(prediction.probability[5, 10], 0.5, atol=1e-6)


def test_random_walker_is_linear_between_seeds_on_a_line():
    """On a flat line the probability to reach one end first falls linearly."""
    image = np.full((1, 21, 3), 77, np.uint8)
    method = RandomWalker(radius_px=0.5)
    clicks = [Click(0, 0, True), Click(20, 0, False)]
    probability = method.segment(method.encode(image), clicks, None).probability
    np.testing.assert_allclose(probability[0], np.linspace(1, 0, 21), atol=0.02)


def test_strokes():
    labels = stroke_labels([Click(3, 3, True), Click(7, 3, False)], (7, 11), 2.0)
    assert (labels[3] == [2, 1, 1, 1, 1, 0, 0, 0, 0, 0, 2]).all()  # the newer wins a tie
    assert (labels == OBJECT).sum() == 13 - 1
    assert (labels == BACKGROUND).sum() == 13
    outside = stroke_labels([Click(-0.5, 6.4, True)], (7, 11), 0.0)
    assert outside[6, 0] == OBJECT
    assert (outside == OBJECT).sum() == 1
    half = stroke_labels([Click(9, 5, True)], (4, 6), 0.5, scale=0.5)
    assert half[2, 4] == OBJECT


def test_the_border_is_background_only_while_no_click_says_so():
    labels = stroke_labels([Click(0, 0, True)], (4, 5), 1.0)
    shown = with_border_background(labels)
    assert shown[0, 0] == OBJECT
    assert (shown == BACKGROUND).sum() == 14 - 3
    assert (shown[1:-1, 1:-1] == UNKNOWN).sum() == 6
    labels[2, 2] = BACKGROUND
    np.testing.assert_array_equal(with_border_background(labels), labels)
    assert (with_border_background(labels, always=True) == BACKGROUND).sum() == 12


def test_colour_likelihood():
    image = np.zeros((10, 10, 3), np.uint8)
    image[:, 5:] = (250, 20, 20)
    where = np.zeros((10, 10), bool)
    where[:, :3] = True
    colours = ColourBins.of(image, 16, 1.0)
    likely = colours.likelihood(where)
    assert likely[0, 0] > 50
    assert likely[0, 9] < 0.01
    np.testing.assert_allclose(colours.cost(where), -np.log(likely))
    assert (colours.likelihood(np.zeros((10, 10), bool)) == 1).all()
    # a distribution: its mean over all bins is one
    everything = ColourBins(np.arange(16**3).reshape(64, 64), 16, 1.0)
    some = np.zeros((64, 64), bool)
    some[0, :7] = True
    assert everything.likelihood(some).mean() == pytest.approx(1.0)


class Fixed:
    """A session that always answers one probability map."""

    def __init__(self, probability):
        self.probability = probability

    def add_click(self, x, y, positive=True):
        return self


def test_refinement_moves_a_blurred_edge_to_the_contrast_and_obeys_clicks():
    image, truth = two_colours(noise=3)
    blurred = cv2.GaussianBlur(np.roll(truth, 3, 1).astype(np.float32), (0, 0), 4)
    refinement = Refinement()
    session = RefinedSession(refinement, Fixed(blurred), refinement.encode(image))
    mask = session.add_click(38, 30, True).mask
    assert iou(mask, truth) > max(0.97, iou(blurred > 0.5, truth))
    assert session.add_click(36, 26, False).mask[26, 36] == 0


def test_parallel_edges_add_up():
    pairs = Pairs(np.array([0, 0]), np.array([1, 1]), np.array([1.0, 1.0]))
    object_cost, other_cost = np.array([[0.0, 1.5]]), np.array([[5.0, 0.0]])
    assert minimise(object_cost, other_cost, pairs).all()
