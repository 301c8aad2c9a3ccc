import numpy as np
import pytest
import reference
import tolerances
from hypothesis import given
from hypothesis import strategies as st

from trtseg import _cpu
from trtseg.ops import distance_map

from .shapes import DTYPES, SHAPES, ids


def random_points(rng, size, count):
    """Inside, between pixels, and up to ten pixels outside."""
    return (rng.random((count, 2)) * (np.array(size) + 20) - 10).astype(np.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("size", SHAPES, ids=ids)
@pytest.mark.parametrize("count", [1, 3, 20])
def test_matches_reference(backend, size, dtype, count, rng):
    points = random_points(rng, size, count)
    found = backend.distance_map(points, size, 255.0, dtype)
    assert found.dtype == dtype
    expected = reference.distance_map(points, size, 255.0)
    np.testing.assert_allclose(
        found, expected, **tolerances.with_storage(tolerances.DISTANCE_MAP, dtype)
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
def test_no_point_gives_the_limit(backend, dtype):
    found = backend.distance_map(np.empty((0, 2), np.float32), (7, 5), 40.5, dtype)
    assert (found == 40.5).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("size", SHAPES, ids=ids)
def test_adding_points_equals_recomputing(backend, size, dtype, rng):
    points = random_points(rng, size, 4)
    grown = backend.distance_map(points[:0], size, 60.0, dtype)
    for point in points:
        grown = backend.distance_map(point[None], size, 60.0, dtype, into=grown)
    np.testing.assert_array_equal(grown, backend.distance_map(points, size, 60.0, dtype))


def test_truncates_what_it_accumulates_into(backend):
    into = np.full((7, 5), 100, np.float32)
    found = backend.distance_map(np.empty((0, 2), np.float32), (7, 5), 30.0, into=into)
    assert (found == 30).all()


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    points=st.lists(st.tuples(st.floats(-50, 90), st.floats(-50, 90)), max_size=8),
    limit=st.floats(0.5, 300),
)
def test_properties(size, points, limit):
    points = np.array(points, np.float32).reshape(-1, 2)
    limit = float(np.float32(limit))
    found = distance_map(points, size, limit_px=limit)
    assert (found >= 0).all()
    assert (found <= limit).all()
    # One pixel's step changes the distance by at most one.
    for axis in (0, 1):
        if found.shape[axis] > 1:
            assert np.abs(np.diff(found, axis=axis)).max() <= 1 + 1e-4
    # The order of the points does not matter, and a point more only lowers the map.
    np.testing.assert_array_equal(found, distance_map(points[::-1].copy(), size, limit_px=limit))
    assert (found <= distance_map(points[:-1].copy(), size, limit_px=limit)).all()


def test_writes_only_its_rows(rng):
    canvas = np.full((20, 30), -1, np.float32)
    out = canvas[3:10, 4:9]
    points = random_points(rng, (7, 5), 2)
    assert distance_map(points, (7, 5), limit_px=9, out=out) is out
    np.testing.assert_array_equal(out, distance_map(points, (7, 5), limit_px=9))
    out[:] = -1
    assert (canvas == -1).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_refuses_a_point_that_is_nowhere(bad):
    points = np.array([[1, 2], [3, bad]], np.float32)
    out = np.full((4, 4), 5, np.float32)
    with pytest.raises(ValueError, match=r"points: expected finite coordinates, got .* in row 1"):
        distance_map(points, (4, 4), limit_px=9, out=out)
    assert (out == 5).all()


def test_refuses_a_wrong_limit():
    points = np.zeros((1, 2), np.float32)
    for limit in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="limit_px: expected a finite number above 0"):
            distance_map(points, (4, 4), limit_px=limit)


def test_a_limit_that_float16_cannot_hold():
    points, size = np.zeros((1, 2), np.float32), (4, 4)
    assert distance_map(points[:0], size, limit_px=65504, dtype=np.float16).max() == 65504
    with pytest.raises(ValueError, match="limit_px: expected at most 65504 for a float16 map"):
        distance_map(points, size, limit_px=65536, dtype=np.float16)
    assert distance_map(points[:0], size, limit_px=65536).max() == 65536


def test_refuses_wrong_arguments():
    points = np.zeros((1, 2), np.float32)
    with pytest.raises(TypeError, match="points: expected float32, got float64"):
        distance_map(points.astype(float), (4, 4), limit_px=9)
    with pytest.raises(ValueError, match=r"points: expected shape \[any, 2\], got \[1, 3\]"):
        distance_map(np.zeros((1, 3), np.float32), (4, 4), limit_px=9)
    with pytest.raises(ValueError, match=r"size: expected sides of at least 1, got \(0, 4\)"):
        distance_map(points, (0, 4), limit_px=9)
    with pytest.raises(TypeError, match="size: expected"):
        distance_map(points, 4, limit_px=9)
    with pytest.raises(ValueError, match=r"out: expected shape \[4, 4\], got \[4, 5\]"):
        distance_map(points, (4, 4), limit_px=9, out=np.zeros((4, 5), np.float32))
    with pytest.raises(TypeError, match="out: expected float32 or float16, got int32"):
        distance_map(points, (4, 4), limit_px=9, out=np.zeros((4, 4), np.int32))
    out = np.zeros((4, 4), np.float32)
    with pytest.raises(ValueError, match="into: expected None when out is given"):
        distance_map(points, (4, 4), limit_px=9, out=out, into=out)
    for limit in (None, "9", [9]):
        with pytest.raises(TypeError, match="limit_px: expected a number, got "):
            distance_map(points, (4, 4), limit_px=limit)
    for dtype in (np.float64, "int32", "nothing"):
        with pytest.raises(TypeError, match="dtype: expected float32 or float16, got "):
            distance_map(points, (4, 4), limit_px=9, dtype=dtype)
    with pytest.raises(ValueError, match="size: expected sides of at most 8388608, got"):
        distance_map(points, (2**40, 2**40), limit_px=9)
    with pytest.raises(TypeError, match="out: expected an array, got list"):
        distance_map(points, (4, 4), limit_px=9, out=[[0.0] * 4] * 4)
    with pytest.raises(TypeError, match="points: expected a NumPy array"):
        distance_map([[1, 2]], (4, 4), limit_px=9)


def test_the_raw_module_checks_too():
    with pytest.raises(ValueError, match="out: expected sides of at least 1, got 0"):
        _cpu.distance_map(np.zeros((1, 2), np.float32), np.zeros((0, 4), np.float32), 9.0)
