import itertools

import cv2
import numpy as np
import pytest
import reference
import tolerances

from trtseg import ops

from .shapes import DTYPES, ids

MEAN, SCALE = (123.0, 117.0, 104.0), (0.017, 0.018, 0.0175)
# (source, output): smaller, larger, equal, one axis of each, a single pixel
SIZES = [
    ((90, 120), (32, 64)),
    ((7, 5), (33, 65)),
    ((33, 65), (33, 65)),
    ((40, 7), (16, 32)),
    ((1, 1), (7, 5)),
    ((33, 65), (1, 1)),
    ((480, 640), (96, 128)),
]


def random_pixels(rng, size, channels, dtype):
    if dtype in (np.uint8, np.uint16):
        return rng.integers(0, np.iinfo(dtype).max, (*size, channels), dtype, endpoint=True)
    return rng.random((*size, channels)).astype(dtype)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("source", [np.uint8, np.uint16, np.float32, np.float16], ids=ids)
@pytest.mark.parametrize(
    "sizes", SIZES, ids=["-".join("{}x{}".format(*size) for size in pair) for pair in SIZES]
)
def test_matches_reference(backend, sizes, source, channels, rng):
    pixels = random_pixels(rng, sizes[0], channels, source)
    for dtype, bgr in itertools.product(DTYPES, (False, True)):
        found = backend.prepare_image(pixels, sizes[1], MEAN, SCALE, bgr, dtype)
        assert found.dtype == dtype
        expected = reference.prepare_image(pixels, sizes[1], MEAN, SCALE, bgr)
        np.testing.assert_allclose(
            found, expected, **tolerances.with_storage(tolerances.PREPARE_IMAGE, dtype)
        )


@pytest.mark.parametrize("sizes", [((90, 120), (32, 64)), ((20, 30), (32, 64))], ids=str)
def test_is_what_opencv_resizes_before_it_rounds(sizes, rng):
    """To whole levels; where it interpolates, its weights have 11 bits."""
    pixels = random_pixels(rng, sizes[0], 3, np.uint8)
    shrinks = sizes[1] < sizes[0]
    size, method = sizes[1][::-1], cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    theirs = (cv2.resize(pixels, size, interpolation=method) - np.array(MEAN)) * SCALE
    ours = np.empty((3, *sizes[1]), np.float32)
    ops.prepare_image(pixels, ours, mean=MEAN, scale=SCALE)
    np.testing.assert_allclose(
        ours, theirs.transpose(2, 0, 1), atol=(0.51 if shrinks else 1.1) * max(SCALE)
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16], ids=ids)
def test_crops_and_other_strides(backend, dtype, rng):
    whole = random_pixels(rng, (50, 60), 4, dtype)
    crop = whole[5:40:2, 3:50, :3]
    np.testing.assert_array_equal(
        ops.prepare_image(crop, np.empty((3, 8, 16), np.float32), mean=MEAN, scale=SCALE),
        backend.prepare_image(np.ascontiguousarray(crop), (8, 16), MEAN, SCALE),
    )


def test_refuses_wrong_arguments():
    pixels, out = np.zeros((9, 8, 3), np.uint8), np.zeros((3, 4, 4), np.float32)
    good = {"pixels": pixels, "out": out, "mean": MEAN, "scale": SCALE}
    assert ops.prepare_image(**good) is out
    for changes, error, words in (
        ({"pixels": pixels[..., :2]}, ValueError, "pixels: expected 1, 3 or 4 channels, got 2"),
        ({"pixels": pixels[..., 0]}, ValueError, r"pixels: expected shape \[H, W, C\]"),
        ({"pixels": pixels[:0]}, ValueError, "pixels: expected sides of at least 1"),
        ({"pixels": pixels.astype(int)}, TypeError, "pixels: expected uint8, uint16, float16 or f"),
        ({"mean": MEAN[:2]}, ValueError, "mean: expected three numbers, got 2"),
        ({"scale": (1, np.nan, 1)}, ValueError, "scale: expected finite numbers"),
        ({"out": out[:2]}, ValueError, r"out: expected shape \[3, any, any\]"),
    ):
        with pytest.raises(error, match=words):
            ops.prepare_image(**{**good, **changes})
