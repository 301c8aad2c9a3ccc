import numpy as np
import pytest
import reference
import tolerances

from trtseg import ops

from .shapes import DTYPES, SHAPES, ids


def random_points(rng, size, counts, length):
    """float32 [2, length, 2], the rest NaN; also outside of the map."""
    points = np.full((2, length, 2), np.nan, np.float32)
    for kind, count in enumerate(counts):
        points[kind, :count] = rng.random((count, 2)) * (np.array(size) + 8) - 4
    return points


@pytest.mark.parametrize("sigma_px", [None, 2.5], ids=["points", "gaussian"])
@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("size", SHAPES, ids=ids)
@pytest.mark.parametrize("counts", [(1, 0), (3, 5)])
def test_matches_reference(backend, size, dtype, counts, sigma_px, rng):
    points = random_points(rng, size, counts, 8)
    found = backend.click_maps(points, size, 40.0, sigma_px, dtype)
    assert found.dtype == dtype
    np.testing.assert_allclose(
        found,
        reference.click_maps(points, size, 40.0, sigma_px),
        **tolerances.with_storage(tolerances.CLICK_MAPS, dtype),
    )


@pytest.mark.parametrize("sigma_px", [None, 2.5])
def test_points_of_nan_are_none(backend, sigma_px, rng):
    points = random_points(rng, (33, 65), (2, 1), 2)
    long = np.full((2, 50, 2), np.nan, np.float32)
    long[:, 7:9] = points
    np.testing.assert_array_equal(
        backend.click_maps(long, (33, 65), 20.0, sigma_px),
        backend.click_maps(points, (33, 65), 20.0, sigma_px),
    )


def test_no_click_at_all(backend):
    for length in (0, 3):
        found = backend.click_maps(np.full((2, length, 2), np.nan, np.float32), (7, 5), 9.0)
        assert (found[:2] == 0).all()
        assert (found[2:] == 1).all()


def test_the_nearest_click_counts(rng):
    """The order of the clicks does not matter, and one click more only lowers T."""
    points = random_points(rng, (33, 65), (6, 0), 6)
    maps = [np.empty((4, 33, 65), np.float32) for _ in range(3)]
    ops.click_maps(points, maps[0], limit_px=40)
    ops.click_maps(points[:, ::-1].copy(), maps[1], limit_px=40)
    ops.click_maps(points[:, :5].copy(), maps[2], limit_px=40)
    np.testing.assert_array_equal(maps[0], maps[1])
    assert (maps[0][2] <= maps[2][2]).all()
    assert (maps[0][2] < maps[2][2]).any()


@pytest.mark.parametrize("sigma_px", [0.05, 0.7, 3.0, 30.0])
def test_gaussians_far_and_near(backend, sigma_px):
    """From 1 on the click to where float32 ends."""
    points = np.array([[[3, 1]], [[np.nan, np.nan]]], np.float32)
    found = backend.click_maps(points, (7, 650), 700.0, sigma_px)
    np.testing.assert_allclose(
        found[0], reference.click_maps(points, (7, 650), 700.0, sigma_px)[0], rtol=4e-5, atol=1e-37
    )
    assert found[0, 3, 1] == 1
    assert (found[1] == (1 if sigma_px > 700 else found[1, 0, 0])).all()


def test_refuses_wrong_arguments():
    points, out = np.zeros((2, 1, 2), np.float32), np.zeros((4, 7, 5), np.float32)
    assert ops.click_maps(points, out, limit_px=9) is out
    for changes, error, words in (
        ({"limit_px": 0}, ValueError, "limit_px: expected a finite number above 0"),
        ({"limit_px": np.inf}, ValueError, "limit_px: expected a finite number above 0"),
        ({"sigma_px": 0}, ValueError, "sigma_px: expected a finite number above 0"),
        ({"sigma_px": np.nan}, ValueError, "sigma_px: expected a finite number above 0"),
        ({"sigma_px": "2"}, TypeError, "sigma_px: expected a number"),
        ({"points": points[:1]}, ValueError, r"points: expected shape \[2, any, 2\]"),
        ({"points": points.astype(float)}, TypeError, "points: expected float32"),
        ({"out": out[:3]}, ValueError, r"out: expected shape \[4, any, any\]"),
        ({"out": out[0]}, ValueError, r"out: expected shape \[4, H, W\]"),
        ({"out": out.astype(int)}, TypeError, "out: expected float32 or float16"),
        ({"points": [[1, 2]]}, TypeError, "points: expected an array in host or CUDA memory"),
    ):
        with pytest.raises(error, match=words):
            ops.click_maps(**{"points": points, "out": out, "limit_px": 9, **changes})
