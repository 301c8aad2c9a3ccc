"""The CUDA kernels on the host: any order of the threads, any alignment, under AddressSanitizer.

What all backends have in common is tested by the `backend` fixture, which `emulated` is part of.
As long as there are operations.
"""

import functools
import os
import subprocess
import sys

import numpy as np
import pytest
import reference
import tolerances
from emulation.build import ROOT, compiler, sanitizer_preload
from emulation.module import Control, Order, build_module, load

from .backends import ChannelsLast, Raw

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")

SANITIZED = "TRTSEG_EMULATION_MODULE" in os.environ
SHAPES = [(1, 1), (7, 5), (33, 65), (16, 128)]
ORDERS = [(Order.FORWARD, 0), (Order.REVERSE, 0), (Order.SHUFFLED, 1), (Order.SHUFFLED, 2)]
if SANITIZED:  # an access is as wrong in any order
    ORDERS = ORDERS[-1:]
DTYPES = [np.float32, np.float16]


@pytest.fixture(scope="module")
def control():
    return Control(load())


def odd(array):
    """The same values at an address that no vector access can use."""
    memory = np.empty(array.nbytes + 32, np.uint8)
    start = -memory.ctypes.data % 16 + array.itemsize
    moved = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


class Odd(Raw):
    """All arrays badly aligned but the scratch memory, which the caller must align."""

    def __init__(self):
        super().__init__("emulated", load(), to_device=odd)

    def _scratch(self, size):
        return np.full(max(size, 16), 171, np.uint8)


@pytest.fixture(params=["aligned", "odd"])
def emulated(request, control):
    return Odd() if request.param == "odd" else Raw("emulated", load())


@pytest.fixture(params=["aligned", "odd", "channels_last", "odd_channels_last"])
def with_maps(request, control):
    """As `emulated`, for operations that take maps in both layouts."""
    kind = ChannelsLast if "channels_last" in request.param else Raw
    return kind("emulated", load(), to_device=odd if "odd" in request.param else np.array)


def in_all_orders(control, call):
    """The result, checked to be the same bits in every order of the threads."""
    results = []
    for order, seed in ORDERS:
        control.set_order(order, seed)
        result = call()
        results.append(result if isinstance(result, (tuple, list)) else (result,))
    control.set_order(Order.FORWARD)
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(first, second)
    return results[0]


def rng(*key):
    return np.random.default_rng([sum(map(ord, str(part))) for part in key])


def values(random, shape, dtype):
    return random.standard_normal(shape).astype(np.float16).astype(dtype)


def check_distance_transform(emulated, control, mask, limit_px=np.inf):
    (out,) = in_all_orders(control, lambda: emulated.distance_transform(mask, limit_px))
    expected = reference.distance_transform(mask, limit_px)
    np.testing.assert_allclose(out, expected, *tolerances.DISTANCE_TRANSFORM)


@pytest.mark.parametrize(
    "size", [*SHAPES, (1, 70), (70, 1), (3, 63), (64, 64), (65, 257), (97, 96)]
)
@pytest.mark.parametrize("density", [0.0, 0.002, 0.05, 0.9])
def test_distance_transform(emulated, control, size, density):
    mask = rng(size, density).random(size) < density
    check_distance_transform(emulated, control, mask)
    check_distance_transform(emulated, control, mask, limit_px=4.5)


def test_distance_transform_of_single_sites(emulated, control):
    for y, x in [(0, 0), (39, 99), (0, 99), (31, 32), (32, 31)]:
        mask = np.zeros((40, 100), bool)
        mask[y, x] = True
        check_distance_transform(emulated, control, mask)


@pytest.mark.slow
def test_distance_transform_of_the_longest_row(control):
    """Squares close to 2^31, and as many anchors as there can be."""
    emulated = Raw("emulated", load())
    mask = np.zeros((2, 32767), bool)
    mask[1, 0] = True
    out = emulated.distance_transform(mask)
    np.testing.assert_array_equal(out[1], np.arange(32767, dtype=np.float32))
    column = emulated.distance_transform(np.ascontiguousarray(mask.T))
    np.testing.assert_array_equal(column[:, 1], np.arange(32767, dtype=np.float32))


LEVEL_SIZES = {
    "pyramid": lambda h, w: [(h, w), *[(-(-h // r), -(-w // r)) for r in (2, 4, 8, 16)]],
    "any": lambda h, w: [(1, 1), (h + 3, 2 * w + 1), (3, max(w // 3, 1)), (h, 2), (h, w)],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("levels", LEVEL_SIZES)
@pytest.mark.parametrize("channels", [1, 6, 16])
def test_hypercolumn(with_maps, control, size, dtype, levels, channels):
    random = rng(size, levels)
    sizes = LEVEL_SIZES[levels](*size)
    maps = [values(random, (channels, *s), dtype) for s in sizes]
    image, weight = values(random, (3, *size), dtype), values(random, (channels, 3), np.float32)
    bias = values(random, channels, np.float32)
    tolerance = tolerances.with_storage(tolerances.BILINEAR, dtype)
    for extra in ({}, {"image": image, "image_weight": weight, "bias": bias}):
        (got,) = in_all_orders(
            control, lambda extra=extra: with_maps.hypercolumn(maps, size, **extra)
        )
        np.testing.assert_allclose(got, reference.hypercolumn(maps, size, **extra), **tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [*SHAPES, (64, 96)])
@pytest.mark.parametrize(("channels", "maps"), [(1, 1), (3, 4), (64, 5), (33, 16), (9, 6)])
def test_add_guidance(with_maps, control, size, dtype, channels, maps):
    random = rng(size, channels)
    base = values(random, (channels, *size), dtype)
    guidance = values(random, (maps, *size), dtype)
    weight = values(random, (channels, maps), np.float32)
    expected = reference.add_guidance(base, guidance, weight)
    scale = 4.0  # up to 16 products instead of 5
    tolerance = tolerances.with_storage(tolerances.GUIDANCE, dtype, scale)
    (got,) = in_all_orders(control, lambda: with_maps.add_guidance(base, guidance, weight))
    np.testing.assert_allclose(got, expected, **tolerance)


def test_add_guidance_in_place(with_maps):
    random = rng("in place")
    base, guidance = (values(random, (n, 6, 8), np.float32) for n in (8, 5))
    weight = values(random, (8, 5), np.float32)
    expected = with_maps.add_guidance(base, guidance, weight)
    base = with_maps._maps(base)
    with_maps.module.add_guidance(base, guidance, weight, base, 0.2)
    np.testing.assert_array_equal(base, expected)


def channels_last(array):
    return np.ascontiguousarray(array.transpose(1, 2, 0)).transpose(2, 0, 1)


def test_all_maps_of_a_call_have_one_layout():
    module, random = load(), rng("layouts")
    small, large = (values(random, (8, *size), np.float32) for size in ((3, 4), (6, 8)))
    pixel, out = values(random, (8, 1, 1), np.float32), np.full_like(large, 7)
    guidance, weight = values(random, (2, 6, 8), np.float32), np.zeros((8, 2), np.float32)
    other = channels_last(large)
    nothing = None, None, None
    for levels, target, name in (
        ([channels_last(small), large], channels_last(out), r"levels\[1\]"),
        # a single pixel is of either layout
        ([pixel, channels_last(small)], out, "out"),
    ):
        with pytest.raises(ValueError, match=f"{name}: expected channels-last maps, as the oth"):
            module.hypercolumn(levels, *nothing, target)
    with pytest.raises(ValueError, match=r"levels\[1\]: expected contiguous rows, got channels-l"):
        module.hypercolumn([small, other], *nothing, out)
    with pytest.raises(ValueError, match="out: expected channels-last maps, as the others"):
        module.add_guidance(other, guidance, weight, out, 0.2)
    with pytest.raises(ValueError, match="out: expected a C-contiguous array, got channels-last"):
        module.add_guidance(large, guidance, weight, other, 0.2)
    assert (out == 7).all()
    module.hypercolumn([pixel, channels_last(small)], *nothing, other)
    module.hypercolumn([pixel, small], *nothing, out)
    np.testing.assert_array_equal(out, other)


def test_channels_last_is_for_cuda():
    """The CPU's networks give C-contiguous maps: it refuses any others."""
    from trtseg import _cpu

    maps = channels_last(values(rng("cpu"), (8, 6, 8), np.float32))
    with pytest.raises(ValueError, match=r"levels\[0\]: expected contiguous rows, got channels-l"):
        _cpu.hypercolumn([maps], None, None, None, maps.copy())
    with pytest.raises(ValueError, match="base: expected a C-contiguous array, got channels-last"):
        _cpu.add_guidance(maps, maps[:1].copy(), np.zeros((8, 1), np.float32), maps, 0.2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts_agree_to_the_bit(control, dtype):
    from trtseg import _cpu

    random = rng("agree", dtype)
    size = 33, 65
    levels = [values(random, (16, *s), dtype) for s in LEVEL_SIZES["any"](*size)]
    guidance, weight = values(random, (5, *size), dtype), values(random, (16, 5), np.float32)
    found = []
    for kind, module in ((Raw, _cpu), (Raw, load()), (ChannelsLast, load())):
        backend = kind("", module)
        base = backend.hypercolumn(levels, size)
        found.append((base, backend.add_guidance(np.ascontiguousarray(base), guidance, weight)))
    for other in found[1:]:
        for first, second in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [*SHAPES, (64, 96)])
@pytest.mark.parametrize("count", [1, 6, 32])
def test_jaccard(emulated, control, size, dtype, count):
    random = rng(size, count)
    masks = random.uniform(0.05, 0.95, (count, *size)).astype(dtype)
    target = random.choice([0, 1, 255], size, p=[0.6, 0.3, 0.1]).astype(np.uint8)
    clicks = [(random.random((n, 2)) * size).astype(np.int32) for n in (70, 3)]
    clicks[1][-1] = clicks[0][0]  # named by both lists, and more than once
    weights = [random.random(count).astype(np.float32) for _ in range(2)]
    loss, penalty, grad = in_all_orders(
        control, lambda: emulated.jaccard(masks, target, *clicks, weights)
    )
    expected = reference.jaccard(masks, target, *clicks)
    np.testing.assert_allclose(loss, expected[0], *tolerances.JACCARD)
    np.testing.assert_allclose(penalty, expected[1], *tolerances.JACCARD)
    np.testing.assert_allclose(
        grad,
        reference.jaccard_gradient(masks, target, *clicks, *weights),
        **tolerances.with_storage(tolerances.JACCARD_GRADIENT, dtype, 100.0),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [*SHAPES, (64, 257)])
def test_compose_mask(emulated, control, size, dtype):
    random = rng(size)
    probability = random.random((max(size[0] // 3, 1), size[1] // 2 + 1)).astype(dtype)
    mask, upsampled = in_all_orders(control, lambda: emulated.compose_mask(probability, size))
    expected = reference.compose_mask(probability, size)
    np.testing.assert_allclose(upsampled, expected, *tolerances.BILINEAR)
    sure = abs(expected - 0.5) > tolerances.THRESHOLD_BAND
    np.testing.assert_array_equal(mask[sure], np.where(expected >= 0.5, 255, 0)[sure])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [*SHAPES, (64, 257)])
def test_guided_upsample(emulated, control, size, dtype):
    random = rng(size)
    source = max(size[0] // 3, 1), size[1] // 2 + 1
    values, coarse = random.random(source).astype(dtype), random.random(source, np.float32)
    guide = random.random(size, np.float32)
    found = in_all_orders(control, lambda: emulated.guided_upsample(values, coarse, guide, 1e-3))
    expected = reference.guided_upsample(values, coarse, guide, 1e-3)
    for each, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(each, wanted, *tolerances.GUIDED_UPSAMPLE)


@pytest.mark.parametrize("sigma_px", [None, 3.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("room", [5, 300])  # more than the threads of a block
def test_click_maps(emulated, control, size, dtype, sigma_px, room):
    random = rng(size, room)
    points = (random.random((2, room, 2)) * size).astype(np.float32)
    points[0, 3:-1:2] = points[1, 2:] = np.nan
    (got,) = in_all_orders(
        control, lambda: emulated.click_maps(points, size, 20.0, sigma_px, dtype)
    )
    np.testing.assert_allclose(
        got,
        reference.click_maps(points, size, 20.0, sigma_px),
        **tolerances.with_storage(tolerances.CLICK_MAPS, dtype),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SHAPES)
def test_best_map(emulated, control, size, dtype):
    random = rng(size)
    maps, scores = values(random, (6, *size), dtype), values(random, 6, np.float32)
    (got,) = in_all_orders(control, lambda: emulated.best_map(maps, scores))
    np.testing.assert_array_equal(got, maps[scores.argmax()])


@pytest.mark.parametrize("source", [np.uint8, np.float16, np.float32])
@pytest.mark.parametrize("size", SHAPES)
def test_prepare_image(emulated, control, size, source):
    random = rng(size)
    pixels = random.integers(0, 256, (19, 70, 4), np.uint8)
    if source != np.uint8:
        pixels = (pixels / 255).astype(source)
    colours = (120.0, 110.0, 100.0), (0.02, 0.018, 0.017)
    for dtype in DTYPES:
        (got,) = in_all_orders(
            control,
            lambda dtype=dtype: emulated.prepare_image(pixels, size, *colours, True, dtype),
        )
        np.testing.assert_allclose(
            got,
            reference.prepare_image(pixels, size, *colours, True),
            **tolerances.with_storage(tolerances.PREPARE_IMAGE, dtype),
        )


def test_strided_rows(control):
    """Views into larger arrays: what lies between the rows stays as it was."""
    module = load()
    random = rng("strides")
    points = np.array([[[3, 3]], [[4, 1]]], np.float32)
    for dtype in DTYPES:
        whole = np.full((4, 9, 40), 7, dtype)
        module.click_maps(points, whole[:, 1:8, 3:30], 5.0, None)
        np.testing.assert_array_equal(
            whole[:, 1:8, 3:30], Raw("", module).click_maps(points, (7, 27), 5.0, None, dtype)
        )
        whole[:, 1:8, 3:30] = 7
        assert (whole == 7).all()

        levels = [values(random, (5, 10, 50), dtype), values(random, (5, 6, 20), dtype)]
        cut = [
            levels[0][:, 2:9, 5:32],
            levels[1][:4, 1:5, :9],
        ]
        cut[1] = levels[1][:, 1:5, :9]
        out = np.full((6, 9, 40), 7, dtype)
        module.hypercolumn(cut, None, None, None, out[:5, 1:8, 8:35])
        dense = Raw("", module).hypercolumn([np.ascontiguousarray(c) for c in cut], (7, 27))
        np.testing.assert_array_equal(out[:5, 1:8, 8:35], dense)
        out[:5, 1:8, 8:35] = 7
        assert (out == 7).all()

        mask = np.full((9, 40), 7, np.uint8)
        module.compose_mask(levels[1][0, :, :13], 0.5, mask[1:8, 4:31], None)
        dense = Raw("", module).compose_mask(np.ascontiguousarray(levels[1][0, :, :13]), (7, 27))
        np.testing.assert_array_equal(mask[1:8, 4:31], dense[0])
        mask[1:8, 4:31] = 7
        assert (mask == 7).all()


class OnStream:
    """The raw module, every call of which names a stream."""

    def __init__(self, module, stream):
        self._module = module
        self._stream = stream

    def __getattr__(self, name):
        function = getattr(self._module, name)
        if name.endswith("_scratch"):
            return function
        return functools.partial(function, stream=self._stream)


def test_every_launch_is_on_the_given_stream(control):
    stream = 123456
    emulated = Raw("emulated", OnStream(load(), stream))
    random = rng("stream")
    maps, weight = (values(random, shape, np.float32) for shape in ((5, 8, 8), (5, 5)))
    mask, click = np.ones((8, 8), np.uint8), np.zeros((1, 2), np.int32)
    before = control.launches, control.launches_on(stream)
    emulated.click_maps(np.zeros((2, 1, 2), np.float32), (8, 8), 3.0)
    emulated.distance_transform(mask)
    emulated.hypercolumn([maps, maps[:, :4, :4].copy()], (8, 8))
    emulated.add_guidance(maps, maps, weight)
    emulated.jaccard(maps, mask, click, click, (weight[0], weight[1]))
    emulated.compose_mask(maps[0], (8, 8))
    emulated.guided_upsample(maps[0], maps[0], maps[1], 1e-3)
    after = control.launches, control.launches_on(stream)
    assert after[0] - before[0] == after[1] - before[1] > 10


@pytest.mark.slow
@pytest.mark.skipif(SANITIZED, reason="runs in the sanitized process itself")
def test_all_of_this_under_the_sanitizers():
    """Every kernel again in a process of its own: out of bounds, misaligned, overflowing.

    But for the longest row, which is a matter of counting.
    """
    preload = sanitizer_preload()
    if preload is None:
        pytest.skip("the compiler has no AddressSanitizer")
    environment = dict(
        os.environ,
        LD_PRELOAD=preload,
        ASAN_OPTIONS="detect_leaks=0",
        TRTSEG_EMULATION_MODULE=str(build_module(sanitize=True)),
    )
    options = ["-q", "-x", "-p", "no:cacheprovider", "-o", "addopts=", "-k", "not longest_row"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, __file__],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
