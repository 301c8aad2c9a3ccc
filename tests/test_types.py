"""Clicks and regions."""

import numpy as np
import pytest

from trtseg.types import Box, Click, Lasso, Stroke, Timing, flip_axes, grid_points, moved


@pytest.mark.parametrize(
    ("x", "y", "pixel"),
    [(0, 0, (0, 0)), (0.5, 1.5, (2, 1)), (2.5, 0.49, (0, 3)), (-0.5, -0.4, (0, 0))],
)
def test_the_pixel_of_a_click(x, y, pixel):
    # halves belong to the next pixel, also where rounding to even would take the one before
    assert Click(x, y).pixel == pixel


def test_axes_flip_and_flip_back():
    assert flip_axes((1, 2, 3, 4)) == (2, 1, 4, 3)
    assert flip_axes(flip_axes((1, 2, 3, 4))) == (1, 2, 3, 4)


def test_centres_of_pixels_lie_on_centres_of_cells():
    points = grid_points([(10, 20), (13, 20)], (20, 10, 28, 18), (4, 4))
    np.testing.assert_array_equal(points, np.array([[-0.25, -0.25], [-0.25, 1.25]], np.float32))
    assert grid_points([(11, 21)], (20, 10, 28, 18), (8, 8)).tolist() == [[1, 1]]
    assert grid_points([], (0, 0, 8, 8), (8, 8)).shape == (0, 2)


def test_a_moved_prompt_begins_there_and_keeps_its_shape():
    assert moved(Click(1, 2, False), 5, 6) == Click(5, 6, False)
    stroke = Stroke([(1, 2), (4, 8)], False, 2)
    assert moved(stroke, 11, 2) == Stroke([(11, 2), (14, 8)], False, 2)
    assert moved(Lasso([(1, 2), (4, 8), (0, 9)]), 0, 0) == Lasso([(0, 0), (3, 6), (-1, 7)])
    assert moved(Box(9, 8, 1, 2), 2, 2) == Box(2, 2, 10, 8)
    with pytest.raises(TypeError, match="y: expected a number"):
        moved(stroke, 1, None)


def test_timings_add_up():
    total = Timing(segment_ms=2, total_ms=3) + Timing(segment_ms=1, guidance_ms=4, total_ms=6)
    assert total == Timing(segment_ms=3, guidance_ms=4, total_ms=9)
