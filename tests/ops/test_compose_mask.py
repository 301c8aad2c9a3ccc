import numpy as np
import pytest
import reference
import tolerances

from trtseg.ops import compose_mask

from .shapes import DTYPES, SHAPES, ids

SOURCES = [(1, 1), (7, 5), (120, 160)]


def smooth(rng, size, dtype):
    return rng.random(size).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("size", SHAPES, ids=ids)
@pytest.mark.parametrize("source", SOURCES, ids=ids)
def test_matches_reference(backend, source, size, dtype, rng):
    probability = smooth(rng, source, dtype)
    mask, upsampled = backend.compose_mask(probability, size)
    assert mask.dtype == np.uint8
    assert upsampled.dtype == np.float32
    expected = reference.compose_mask(probability, size)
    rtol, atol = tolerances.BILINEAR
    np.testing.assert_allclose(upsampled, expected, rtol=rtol, atol=atol)
    np.testing.assert_array_equal(mask, np.where(upsampled >= 0.5, 255, 0))
    clear = np.abs(expected - 0.5) > tolerances.THRESHOLD_BAND
    np.testing.assert_array_equal((mask == 255)[clear], (expected >= 0.5)[clear])


def test_threshold_is_inclusive(backend):
    probability = np.full((2, 3), 0.25, np.float32)
    assert (backend.compose_mask(probability, (5, 6), threshold=0.25)[0] == 255).all()
    above = float(np.nextafter(np.float32(0.25), np.float32(1)))
    assert (backend.compose_mask(probability, (5, 6), threshold=above)[0] == 0).all()


def test_strided_source_and_out(rng):
    maps = smooth(rng, (6, 20, 30), np.float32)
    probability = maps[3, 2:15, 4:20]
    canvas = np.full((50, 60), 7, np.uint8)
    out = canvas[5:40, 6:50]
    compose_mask(probability, (35, 44), out=out)
    np.testing.assert_array_equal(out, compose_mask(probability.copy(), (35, 44))[0])
    out[:] = 7
    assert (canvas == 7).all()


def test_public_results(rng):
    probability = smooth(rng, (4, 4), np.float32)
    mask, upsampled = compose_mask(probability, (8, 8))
    assert upsampled is None
    again, upsampled = compose_mask(probability, (8, 8), return_probability=True, out=mask)
    assert again is mask
    assert upsampled.shape == (8, 8)


def test_refuses_wrong_arguments(rng):
    probability = smooth(rng, (4, 5), np.float32)
    out = np.full((8, 8), 9, np.uint8)
    with pytest.raises(TypeError, match="probability: expected float32 or float16, got float64"):
        compose_mask(probability.astype(float), (8, 8), out=out)
    with pytest.raises(ValueError, match=r"probability: expected shape \[any, any\], got \[1, 4"):
        compose_mask(probability[None], (8, 8), out=out)
    with pytest.raises(ValueError, match="probability: expected sides of at least 1, got 0"):
        compose_mask(probability[:0], (8, 8), out=out)
    with pytest.raises(ValueError, match="threshold: expected a number, got nan"):
        compose_mask(probability, (8, 8), threshold=np.nan, out=out)
    with pytest.raises(TypeError, match="out: expected uint8, got int32"):
        compose_mask(probability, (8, 8), out=out.astype(np.int32))
    with pytest.raises(TypeError, match="out: expected uint8, got bool"):
        compose_mask(probability, (8, 8), out=np.zeros((8, 8), bool))
    with pytest.raises(TypeError, match="threshold: expected a number, got NoneType"):
        compose_mask(probability, (8, 8), threshold=None, out=out)
    assert (out == 9).all()
