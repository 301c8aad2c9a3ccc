"""Valid arrays with sides beyond what a position in float32, or an int, can name.

Their rows overlap or end beyond the memory: they have to be refused before anything is read.
"""

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from trtseg import ops

FEW = np.zeros(64, np.float32)
BYTES = np.zeros(64, np.uint8)
MESSAGE = "expected sides of at most 8388608, got"

long = pytest.mark.parametrize("count", [2**23 + 1, 2**31 + 5, 2**33])


def long_rows(count, *, of=FEW):
    """[count, 4], all in the same memory."""
    return as_strided(of, (count, 4), (0, of.itemsize))


def long_columns(count, *, of=FEW):
    """[1, count], most of it beyond the memory."""
    return as_strided(of, (1, count), (of.itemsize, of.itemsize))


along = pytest.mark.parametrize("make", [long_rows, long_columns])


@long
@along
def test_compose_mask(make, count):
    with pytest.raises(ValueError, match=f"probability: {MESSAGE} {count}"):
        ops.compose_mask(make(count), (3, 3))
    assert ops.compose_mask(make(9), (3, 3))[0].shape == (3, 3)


@long
@along
def test_hypercolumn(make, count):
    with pytest.raises(ValueError, match=rf"levels\[0\]: {MESSAGE} {count}"):
        ops.hypercolumn([make(count)[None]], (3, 3))


@long
@along
def test_prepare_image(make, count):
    pixels, out = make(count, of=BYTES)[..., None], np.zeros((3, 2, 2), np.float32)
    with pytest.raises(ValueError, match=f"pixels: {MESSAGE} {count}"):
        ops.prepare_image(pixels, out, mean=(0, 0, 0), scale=(1, 1, 1))


@long
@along
def test_distance_transform(make, count):
    with pytest.raises(ValueError, match="mask: expected sides of 1 to 32767, got"):
        ops.distance_transform(make(count, of=BYTES), out=np.zeros((1, 1), np.float32))
