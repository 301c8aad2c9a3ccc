import numpy as np
import pytest
import reference
import tolerances

from trtseg import _cpu
from trtseg.ops import hypercolumn

from .shapes import DTYPES, SHAPES, ids


def level_sizes(size):
    """As an encoder makes them (strides 1 to 16), and two that no encoder makes."""
    height, width = size
    strided = [(-(-height // s), -(-width // s)) for s in (1, 2, 4, 8, 16)]
    return [*strided, (1, 1), (height + 3, width * 2 + 1)]


def random(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def problem(rng, size, dtype, channels):
    levels = [random(rng, (channels, *level), dtype) for level in level_sizes(size)]
    image = random(rng, (3, *size), dtype)
    weight = random(rng, (channels, 3), np.float32)
    bias = random(rng, channels, np.float32)
    return levels, image, weight, bias


@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("size", SHAPES, ids=ids)
def test_matches_reference(maps_backend, size, dtype, rng):
    channels = 3 if size[0] > 100 else 9
    levels, image, weight, bias = problem(rng, size, dtype, channels)
    tolerance = tolerances.with_storage(tolerances.BILINEAR, dtype)
    found = maps_backend.hypercolumn(levels, size, image, weight, bias)
    assert found.dtype == dtype
    expected = reference.hypercolumn(levels, size, image, weight, bias)
    np.testing.assert_allclose(found, expected, **tolerance)
    found = maps_backend.hypercolumn(levels[1:3], size)
    np.testing.assert_allclose(found, reference.hypercolumn(levels[1:3], size), **tolerance)


@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("size", SHAPES[:3], ids=ids)
@pytest.mark.parametrize("channels", [4, 8, 64, 200])
def test_whole_packs_of_channels(maps_backend, size, dtype, channels, rng):
    """Of 16 bytes, up to more of them than a block of threads spans."""
    levels, image, weight, bias = problem(rng, size, dtype, channels)
    np.testing.assert_allclose(
        maps_backend.hypercolumn(levels, size, image, weight, bias),
        reference.hypercolumn(levels, size, image, weight, bias),
        **tolerances.with_storage(tolerances.BILINEAR, dtype),
    )


@pytest.mark.parametrize("source", [(1, 1), (1, 9), (5, 1), (2, 3), (40, 3), (700, 1100)], ids=ids)
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (17, 600)], ids=ids)
def test_any_ratio(maps_backend, size, source, rng):
    level = random(rng, (2, *source), np.float32)
    rtol, atol = tolerances.BILINEAR
    np.testing.assert_allclose(
        maps_backend.hypercolumn([level], size), reference.hypercolumn([level], size), rtol=rtol,
        atol=atol,
    )  # fmt: skip

@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
def test_a_level_of_the_same_size_is_copied(backend, dtype, rng):
    bits = rng.integers(0, 2**15, 33 * 65, np.uint16).view(np.float16)  # subnormals included
    level = np.where(np.isfinite(bits), bits, 1).astype(dtype).reshape(1, 33, 65)
    np.testing.assert_array_equal(backend.hypercolumn([level], (33, 65)), level)


def test_is_deterministic(backend, rng):
    levels, image, weight, bias = problem(rng, (33, 65), np.float32, 4)
    first = backend.hypercolumn(levels, (33, 65), image, weight, bias)
    for _ in range(3):
        np.testing.assert_array_equal(
            backend.hypercolumn(levels, (33, 65), image, weight, bias), first
        )


def test_strided_levels_and_out(rng):
    canvas = random(rng, (4, 20, 30), np.float32)
    level = canvas[1:3, 2:10, 5:15]
    target = np.full((2, 40, 50), -1, np.float32)
    out = target[:, 3:20, 4:25]
    assert hypercolumn([level], (17, 21), out=out) is out
    np.testing.assert_array_equal(out, hypercolumn([level.copy()], (17, 21)))
    out[:] = -1
    assert (target == -1).all()


def test_refuses_to_overwrite_what_it_reads(rng):
    """A level of the output's size would be read after the bias is in its place."""
    levels = [random(rng, (2, 6, 6), np.float32), random(rng, (2, 3, 3), np.float32)]
    before = levels[0].copy()
    message = r"out: expected memory apart from levels\[0\], got memory that overlaps with it"
    with pytest.raises(ValueError, match=message):
        hypercolumn(levels, (6, 6), out=levels[0])
    np.testing.assert_array_equal(levels[0], before)


def test_refuses_wrong_arguments(rng):
    level = random(rng, (4, 3, 3), np.float32)
    out = np.full((4, 6, 6), 5, np.float32)
    image, weight = random(rng, (3, 6, 6), np.float32), random(rng, (4, 3), np.float32)
    with pytest.raises(ValueError, match="levels: expected 1 to 8 levels, got 0"):
        hypercolumn([], (6, 6), out=out)
    with pytest.raises(ValueError, match="levels: expected 1 to 8 levels, got 9"):
        hypercolumn([level] * 9, (6, 6), out=out)
    with pytest.raises(ValueError, match=r"levels\[1\]: expected shape \[4, any, any\], got \[5"):
        hypercolumn([level, random(rng, (5, 3, 3), np.float32)], (6, 6), out=out)
    with pytest.raises(TypeError, match=r"levels\[1\]: expected float32, got float16"):
        hypercolumn([level, level.astype(np.float16)], (6, 6), out=out)
    with pytest.raises(ValueError, match=r"levels\[0\]: expected sides of at least 1, got 0"):
        hypercolumn([level[:, :0]], (6, 6), out=out)
    with pytest.raises(ValueError, match="image_weight: expected an array, since image"):
        hypercolumn([level], (6, 6), image=image, out=out)
    with pytest.raises(ValueError, match=r"image: expected shape \[3, 6, 6\], got \[3, 6, 5\]"):
        hypercolumn([level], (6, 6), image=image[:, :, :5], image_weight=weight, out=out)
    with pytest.raises(TypeError, match=r"levels\[0\]: expected float32 or float16, got float64"):
        hypercolumn([level.astype(float)], (6, 6))
    with pytest.raises(ValueError, match=r"levels\[0\]: expected sides of at least 1, got 0"):
        hypercolumn([level[:0]], (6, 6))
    for levels in (None, iter([level])):
        with pytest.raises(TypeError, match="levels: expected a list of arrays, got "):
            hypercolumn(levels, (6, 6))
    with pytest.raises(ValueError, match=r"bias: expected shape \[4\], got \[3\]"):
        hypercolumn([level], (6, 6), bias=np.zeros(3, np.float32), out=out)
    with pytest.raises(ValueError, match=r"out: expected shape \[4, 6, 6\], got \[4, 6, 7\]"):
        hypercolumn([level], (6, 6), out=np.zeros((4, 6, 7), np.float32))
    with pytest.raises(TypeError, match="levels: expected a list of arrays, got ndarray"):
        _cpu.hypercolumn(level, None, None, None, out)
    assert (out == 5).all()
