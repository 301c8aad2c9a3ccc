import numpy as np
import pytest
import reference
import tolerances

from trtseg.ops import add_guidance

from .shapes import DTYPES, SHAPES, ids


def problem(rng, size, dtype, channels=6, maps=5):
    base = rng.standard_normal((channels, *size)).astype(dtype)
    guidance = rng.random((maps, *size)).astype(dtype)
    weight = rng.standard_normal((channels, maps)).astype(np.float32)
    return base, guidance, weight


@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("size", SHAPES, ids=ids)
@pytest.mark.parametrize("maps", [4, 5])
def test_matches_reference(maps_backend, size, dtype, maps, rng):
    base, guidance, weight = problem(rng, size, dtype, maps=maps)
    tolerance = tolerances.with_storage(tolerances.GUIDANCE, dtype)
    expected = reference.add_guidance(base, guidance, weight)
    found = maps_backend.add_guidance(base, guidance, weight)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, **tolerance)


@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("channels", [1, 4, 16, 33, 64, 200])
@pytest.mark.parametrize("maps", [1, 3, 6, 7, 16])
def test_any_number_of_channels_and_maps(maps_backend, channels, maps, dtype, rng):
    base, guidance, weight = problem(rng, (7, 9), dtype, channels, maps)
    tolerance = tolerances.with_storage(tolerances.GUIDANCE, dtype, scale=maps)
    expected = reference.add_guidance(base, guidance, weight, slope=0.01)
    found = maps_backend.add_guidance(base, guidance, weight, slope=0.01)
    np.testing.assert_allclose(found, expected, **tolerance)


def test_in_place(rng):
    base, guidance, weight = problem(rng, (33, 65), np.float32)
    expected = add_guidance(base, guidance, weight)
    add_guidance(base, guidance, weight, out=base)
    np.testing.assert_array_equal(base, expected)


def test_refuses_other_ways_to_overwrite_what_it_reads(rng):
    base, guidance, weight = problem(rng, (6, 6), np.float32, channels=6, maps=6)
    before = base.copy(), guidance.copy()
    with pytest.raises(ValueError, match="out: expected memory apart from guidance, got"):
        add_guidance(base, guidance, weight, out=guidance)
    stack = np.concatenate([base, base[:1]])
    with pytest.raises(ValueError, match="out: expected memory apart from base, got"):
        add_guidance(stack[:6], guidance, weight, out=stack[1:])
    np.testing.assert_array_equal(base, before[0])
    np.testing.assert_array_equal(guidance, before[1])


def test_refuses_wrong_arguments(rng):
    base, guidance, weight = problem(rng, (4, 5), np.float32)
    out = np.full_like(base, 3)
    with pytest.raises(TypeError, match="guidance: expected float32, got float16"):
        add_guidance(base, guidance.astype(np.float16), weight, out=out)
    with pytest.raises(ValueError, match=r"guidance: expected shape \[any, 4, 5\], got \[5, 4, 4"):
        add_guidance(base, guidance[:, :, :4], weight, out=out)
    with pytest.raises(ValueError, match="guidance: expected 1 to 16 maps, got 0"):
        add_guidance(base, guidance[:0], weight[:, :0], out=out)
    with pytest.raises(ValueError, match=r"weight: expected shape \[6, 5\], got \[6, 4\]"):
        add_guidance(base, guidance, weight[:, :4], out=out)
    with pytest.raises(ValueError, match="base: expected a C-contiguous array, got strides"):
        add_guidance(np.asfortranarray(base), guidance, weight, out=out)
    with pytest.raises(ValueError, match=r"out: expected shape \[6, 4, 5\], got \[6, 4, 4\]"):
        add_guidance(base, guidance, weight, out=out[:, :, :4].copy())
    for slope in (np.nan, np.inf):
        with pytest.raises(ValueError, match="slope: expected a finite number, got"):
            add_guidance(base, guidance, weight, slope=slope, out=out)
    with pytest.raises(TypeError, match="slope: expected a number, got NoneType"):
        add_guidance(base, guidance, weight, slope=None, out=out)
    read_only = out.copy()
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="out: expected a writable array, got a read-only one"):
        add_guidance(base, guidance, weight, out=read_only)
    assert (out == 3).all()
