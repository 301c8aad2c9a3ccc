import numpy as np
import pytest
import reference
import tolerances

from trtseg import _cpu
from trtseg.ops import compose_mask, guided_upsample

from .shapes import DTYPES, SHAPES, ids

EPSILON = 1e-3
SOURCES = [(1, 1), (7, 5), (120, 160), (3, 1100)]  # the last: several tiles


def made(rng, source, size, dtype=np.float32):
    values = rng.random(source).astype(dtype)
    return values, rng.random(source, np.float32), rng.random(size, np.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("size", SHAPES, ids=ids)
@pytest.mark.parametrize("source", SOURCES, ids=ids)
def test_matches_reference(backend, source, size, dtype, rng):
    arrays = made(rng, source, size, dtype)
    out, model = backend.guided_upsample(*arrays, EPSILON)
    assert out.dtype == model.dtype == np.float32
    expected, fitted = reference.guided_upsample(*arrays, EPSILON)
    np.testing.assert_allclose(model, fitted, *tolerances.GUIDED_UPSAMPLE)
    np.testing.assert_allclose(out, expected, *tolerances.GUIDED_UPSAMPLE)


@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
def test_backends_agree_to_the_bit(backend, dtype, rng):
    from .backends import Raw

    arrays = made(rng, (33, 65), (130, 257), dtype)
    found = backend.guided_upsample(*arrays, EPSILON)
    for each, wanted in zip(found, Raw("cpu", _cpu).guided_upsample(*arrays, EPSILON), strict=True):
        np.testing.assert_array_equal(each, wanted)


def test_a_guide_without_detail_changes_nothing(backend, rng):
    values = rng.random((12, 16), np.float32)
    flat = np.full((12, 16), 0.25, np.float32), np.full((48, 64), 0.25, np.float32)
    out, _ = backend.guided_upsample(values, *flat, EPSILON)
    np.testing.assert_array_equal(out, compose_mask(values, (48, 64), return_probability=True)[1])


def test_an_edge_comes_where_the_image_has_it(backend):
    """The step lies between columns 26 and 27, off the grid of cells of four pixels."""
    guide = np.repeat((np.arange(64) > 26).astype(np.float32)[None], 48, 0) * 0.8
    coarse = guide.reshape(12, 4, 16, 4).mean((1, 3))
    ramp = np.clip((np.arange(16) - 4) / 4, 0, 1).astype(np.float32)
    out, _ = backend.guided_upsample(np.repeat(ramp[None], 12, 0), coarse, guide, EPSILON)
    np.testing.assert_array_equal(out >= 0.5, guide > 0)


def test_strided_arrays(rng):
    values, coarse, guide = made(rng, (20, 30), (50, 60))
    canvas = np.full((70, 80), 7, np.float32)
    out = guided_upsample(
        values[2:9, 3:14], coarse[2:9, 3:14], guide[5:40, 6:50], epsilon=EPSILON,
        out=canvas[10:45, 20:64],
    )  # fmt: skip
    dense = guided_upsample(
        values[2:9, 3:14].copy(), coarse[2:9, 3:14].copy(), guide[5:40, 6:50].copy(),
        epsilon=EPSILON,
    )  # fmt: skip
    np.testing.assert_array_equal(out, dense)
    out[:] = 7
    assert (canvas == 7).all()


def test_refuses_wrong_arguments(rng):
    values, coarse, guide = made(rng, (4, 5), (8, 9))
    with pytest.raises(TypeError, match="values: expected float32 or float16, got float64"):
        guided_upsample(values.astype(float), coarse, guide, epsilon=EPSILON)
    with pytest.raises(ValueError, match=r"coarse: expected shape \[4, 5\], got \[3, 5\]"):
        guided_upsample(values, coarse[:3], guide, epsilon=EPSILON)
    with pytest.raises(TypeError, match="guide: expected float32, got float16"):
        guided_upsample(values, coarse, guide.astype(np.float16), epsilon=EPSILON)
    with pytest.raises(ValueError, match="guide: expected sides of at least 1, got 0"):
        guided_upsample(values, coarse, guide[:0], epsilon=EPSILON)
    for epsilon in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="epsilon: expected a finite number above 0, got"):
            guided_upsample(values, coarse, guide, epsilon=epsilon)
    with pytest.raises(ValueError, match="out: expected memory apart from guide"):
        guided_upsample(values, coarse, guide, epsilon=EPSILON, out=guide)
    with pytest.raises(ValueError, match=r"model: expected shape \[2, 4, 5\], got \[2, 4, 4\]"):
        guided_upsample(
            values, coarse, guide, epsilon=EPSILON, model=np.zeros((2, 4, 4), np.float32)
        )
