"""Clicks and regions."""

import numpy as np
import pytest

from trtseg.types import Click, flip_axes, grid_points


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
    clicks = [Click(10, 20), Click(13, 20), Click(11, 21, False)]
    points = grid_points(clicks, (20, 10, 28, 18), (4, 4), positive=True)
    np.testing.assert_array_equal(points, np.array([[-0.25, -0.25], [-0.25, 1.25]], np.float32))
    assert grid_points(clicks, (20, 10, 28, 18), (8, 8), positive=False).tolist() == [[1, 1]]
    assert grid_points([], (0, 0, 8, 8), (8, 8), positive=True).shape == (0, 2)
