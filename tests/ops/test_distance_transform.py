import numpy as np
import pytest
import reference
import tolerances
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from trtseg.ops import distance_transform

from .shapes import SHAPES, ids


def blob(size):
    height, width = size
    y, x = np.mgrid[:height, :width]
    inside = ((y - height / 2) / (height / 3)) ** 2 + ((x - width / 3) / (width / 4)) ** 2 < 1
    inside[0, 0] = True
    return inside


def points(size):
    mask = np.zeros(size, bool)
    rng = np.random.default_rng(3)
    for _ in range(5):
        mask[rng.integers(size[0]), rng.integers(size[1])] = True
    return mask


def noise(size):
    mask = np.random.default_rng(4).random(size) < 0.05
    mask[-1, -1] = True
    return mask


def outline(size):
    mask = blob(size)
    return mask & ~(np.roll(mask, 1, 0) & np.roll(mask, 1, 1)) | points(size)


MASKS = [blob, points, noise, outline]


@pytest.mark.parametrize("make", MASKS)
@pytest.mark.parametrize("size", SHAPES[:3], ids=ids)
def test_matches_reference(backend, size, make):
    mask = make(size)
    rtol, atol = tolerances.DISTANCE_TRANSFORM
    found = backend.distance_transform(mask)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference.distance_transform(mask), rtol=rtol, atol=atol)


@pytest.mark.parametrize("make", MASKS)
@pytest.mark.parametrize("size", SHAPES, ids=ids)
def test_is_exact(backend, size, make):
    mask = make(size)
    expected = distance_transform_edt(~mask).astype(np.float32)
    np.testing.assert_array_equal(backend.distance_transform(mask), expected)


@pytest.mark.parametrize("limit", [0.5, 1.0, 7.3, 1e6])
@pytest.mark.parametrize("make", MASKS)
def test_truncation(backend, make, limit):
    mask = make((33, 65))
    expected = np.minimum(backend.distance_transform(mask), np.float32(limit))
    np.testing.assert_array_equal(backend.distance_transform(mask, limit), expected)


@pytest.mark.parametrize("size", SHAPES, ids=ids)
def test_empty_mask(backend, size):
    mask = np.zeros(size, bool)
    assert np.isposinf(backend.distance_transform(mask)).all()
    assert (backend.distance_transform(mask, 9.5) == 9.5).all()


def test_full_mask(backend):
    assert (backend.distance_transform(np.ones((33, 65), np.uint8)) == 0).all()


@pytest.mark.parametrize("size", [(1, 6000), (6000, 1), (3, 5000)], ids=ids)
def test_distances_beyond_the_integers_of_float32(backend, size):
    mask = np.zeros(size, bool)
    mask[0, 0] = True
    expected = distance_transform_edt(~mask).astype(np.float32)
    np.testing.assert_array_equal(backend.distance_transform(mask), expected)


@given(
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    density=st.sampled_from([0.01, 0.1, 0.5, 0.95]),
    seed=st.integers(0, 2**32 - 1),
)
def test_properties(size, density, seed):
    mask = np.random.default_rng(seed).random(size) < density
    found = distance_transform(mask)
    if mask.any():
        np.testing.assert_array_equal(found, distance_transform_edt(~mask).astype(np.float32))
        assert ((found == 0) == mask).all()
        # Mirror images have mirrored answers.
        for axis in (0, 1):
            mirrored = distance_transform(np.ascontiguousarray(np.flip(mask, axis)))
            np.testing.assert_array_equal(np.flip(mirrored, axis), found)
        np.testing.assert_array_equal(
            distance_transform(np.ascontiguousarray(mask.T)).T, found
        )
    else:
        assert np.isposinf(found).all()


def test_any_nonzero_byte_is_true():
    mask = np.zeros((5, 6), np.uint8)
    mask[2, 3] = 200
    np.testing.assert_array_equal(distance_transform(mask), distance_transform(mask > 0))


def test_strided_mask_and_out(rng):
    canvas = rng.random((40, 50)) < 0.1
    crop = canvas[5:25, 7:40]
    target = np.full((30, 60), -1, np.float32)
    out = target[2:22, 3:36]
    distance_transform(crop, out=out)
    np.testing.assert_array_equal(out, distance_transform(np.ascontiguousarray(crop)))
    out[:] = -1
    assert (target == -1).all()


def test_refuses_wrong_arguments():
    mask = np.zeros((4, 5), bool)
    out = np.full((4, 5), 3, np.float32)
    for limit in (0, -2.0, np.nan):
        with pytest.raises(ValueError, match="limit_px: expected a number above 0"):
            distance_transform(mask, limit_px=limit, out=out)
    with pytest.raises(TypeError, match="mask: expected bool or uint8, got float32"):
        distance_transform(out, out=out)
    with pytest.raises(ValueError, match=r"mask: expected shape \[H, W\], got \[4\]"):
        distance_transform(mask[:, 0], out=out)
    with pytest.raises(ValueError, match=r"mask: expected sides of 1 to 32767, got \[0, 5\]"):
        distance_transform(mask[:0], out=out)
    with pytest.raises(ValueError, match="mask: expected contiguous rows"):
        distance_transform(mask.T, out=np.zeros((5, 4), np.float32))
    with pytest.raises(ValueError, match=r"out: expected shape \[4, 5\], got \[5, 4\]"):
        distance_transform(mask, out=np.zeros((5, 4), np.float32))
    with pytest.raises(TypeError, match="out: expected float32, got float64"):
        distance_transform(mask, out=np.zeros((4, 5)))
    with pytest.raises(TypeError, match="limit_px: expected a number, got str"):
        distance_transform(mask, limit_px="far", out=out)
    with pytest.raises(ValueError, match=r"mask: expected sides of 1 to 32767, got \[1, 40000\]"):
        distance_transform(np.broadcast_to(mask[:1, :1], (1, 40000)))
    shared = out.view(np.uint8)[:, :5]
    with pytest.raises(ValueError, match="out: expected memory apart from mask"):
        distance_transform(shared, out=out)
    assert (out == 3).all()
