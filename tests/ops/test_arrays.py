"""What the raw modules take for an array, and what they refuse."""

import numpy as np
import pytest

from trtseg import _cpu, ops

POINTS = np.array([[[1, 2]], [[3, 0]]], np.float32)


def expected():
    out = np.empty((4, 4, 5), np.float32)
    _cpu.click_maps(POINTS, out, 9.0, None)
    return out


class Interface:
    """An array known by its `__array_interface__` alone."""

    def __init__(self, array):
        self.array = array
        self.__array_interface__ = array.__array_interface__


class Dlpack:
    """An array known by DLPack alone."""

    def __init__(self, array):
        self.array = array

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)


@pytest.mark.parametrize("wrap", [memoryview, Interface, Dlpack])
def test_protocols(wrap):
    out = np.zeros((4, 4, 5), np.float32)
    _cpu.click_maps(wrap(POINTS), wrap(out), 9.0, None)
    np.testing.assert_array_equal(out, expected())


@pytest.mark.parametrize("wrap", [memoryview, Interface, Dlpack])
def test_strides_survive_every_protocol(wrap):
    canvas = np.zeros((4, 8, 9), np.float32)
    _cpu.click_maps(wrap(POINTS), wrap(canvas[:, 2:6, 3:8]), 9.0, None)
    np.testing.assert_array_equal(canvas[:, 2:6, 3:8], expected())
    assert canvas[:, :2].sum() == canvas[:, 6:].sum() == canvas[:, :, :3].sum() == 0


def test_torch_tensors_through_dlpack():
    torch = pytest.importorskip("torch")
    out = torch.zeros((4, 4, 5), dtype=torch.float16)
    _cpu.click_maps(torch.from_numpy(POINTS), out, 9.0, None)
    np.testing.assert_array_equal(out.numpy(), expected().astype(np.float16))


def test_read_only_input():
    points = POINTS.copy()
    points.flags.writeable = False
    out = np.empty((4, 4, 5), np.float32)
    _cpu.click_maps(points, out, 9.0, None)
    np.testing.assert_array_equal(out, expected())


@pytest.mark.parametrize("wrap", [np.asarray, memoryview, Interface])
def test_refuses_a_read_only_output(wrap):
    out = np.zeros((4, 4, 5), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out: expected a writable array, got a read-only one"):
        _cpu.click_maps(POINTS, wrap(out), 9.0, None)


def test_refuses_foreign_byte_order():
    with pytest.raises(TypeError, match="points: expected float32, got buffer format '>f'"):
        _cpu.click_maps(POINTS.astype(">f4"), np.empty((4, 4, 5), np.float32), 9.0, None)


def test_refuses_unaligned_memory():
    raw = np.zeros(4 * 4 * 5 * 4 + 1, np.uint8)
    out = raw[1:].view(np.float32).reshape(4, 4, 5)
    with pytest.raises(ValueError, match="out: expected aligned memory"):
        _cpu.click_maps(POINTS, out, 9.0, None)


@pytest.mark.parametrize("thing", [None, 3, [[1.0, 2.0]], object()])
def test_refuses_what_is_no_array(thing):
    with pytest.raises(TypeError, match="points: expected an array in host memory, got"):
        _cpu.click_maps(thing, np.empty((4, 4, 5), np.float32), 9.0, None)


def test_refuses_reversed_rows():
    with pytest.raises(ValueError, match="out: expected contiguous rows"):
        _cpu.click_maps(POINTS, np.empty((4, 4, 5), np.float32)[:, :, ::-1], 9.0, None)


def test_scratch_is_checked():
    mask, out = np.ones((4, 5), bool), np.full((4, 5), 3, np.float32)
    size = _cpu.distance_transform_scratch(4, 5)
    with pytest.raises(ValueError, match=f"scratch: expected at least {size} bytes, got 8"):
        _cpu.distance_transform(mask, out, np.empty(8, np.uint8), 9.0)
    assert (out == 3).all()


def test_refuses_a_type_that_buffers_cannot_hold():
    out = np.full((4, 5), 3, np.float32)
    with pytest.raises(TypeError, match="points: expected an array that can be shared, got nd"):
        _cpu.click_maps(np.zeros((2, 2), "M8[s]"), out, 9.0, None)
    with pytest.raises(TypeError, match="points: expected float32, got"):
        _cpu.click_maps(np.zeros((2, 2), dtype=[]), out, 9.0, None)  # elements of no bytes
    assert (out == 3).all()


@pytest.mark.parametrize(
    ("interface", "error", "message"),
    [
        (3, TypeError, "expected an array, got .* whose __array_interface__ is int"),
        ({"shape": (2, 2)}, TypeError, "expected an array interface with 'typestr'"),
        (
            {"shape": (2, 2), "typestr": "<f4", "data": (0, False)},
            ValueError,
            "expected an array in memory, got a null address",
        ),
    ],
)
def test_refuses_broken_interfaces(interface, error, message):
    class Broken:
        __array_interface__ = interface

    with pytest.raises(error, match=f"points: {message}"):
        _cpu.click_maps(Broken(), np.empty((4, 4, 5), np.float32), 9.0, None)


@pytest.mark.parametrize("stream", [None, 1.5, "0"])
def test_refuses_a_stream_that_is_no_handle(stream):
    with pytest.raises(TypeError, match="stream: expected a CUDA stream handle as an integer"):
        _cpu.click_maps(POINTS, np.empty((4, 4, 5), np.float32), 9.0, None, stream=stream)
    with pytest.raises(ValueError, match="stream: expected a CUDA stream handle, 0 or above"):
        _cpu.click_maps(POINTS, np.empty((4, 4, 5), np.float32), 9.0, None, stream=-1)


def test_refuses_rows_that_overlap():
    row = np.zeros(200, np.float32)
    for step in (0, 4, 16):
        out = np.lib.stride_tricks.as_strided(row, (4, 4, 5), (80, step, 4))
        with pytest.raises(ValueError, match="out: expected rows that do not overlap"):
            _cpu.click_maps(POINTS, out, 9.0, None)


def compose(probability, out, upsampled):
    _cpu.compose_mask(probability, 0.5, out, upsampled)


def test_crops_of_one_array_lie_apart():
    """Side by side, above each other, and in other planes: neighbours share no byte."""
    canvas = np.zeros((2, 8, 12), np.float32)
    out = np.zeros((4, 4), np.uint8)
    for first in (canvas[0, :4, :4], canvas[0, 4:, 2:6], canvas[0, ::-2, :4]):
        for second in (canvas[0, :4, 6:10], canvas[1, :4, :4], canvas[1, 2:6, 3:7]):
            compose(first, out, second)
            compose(second, out, first[:4])
    compose(canvas[0, :4, :4], out, canvas[0, :4, 4:8])
    compose(canvas[0, :4, 8:], out, canvas[0, 1:5, :4])


def test_crops_that_share_a_pixel_overlap():
    canvas = np.zeros((2, 8, 12), np.float32)
    out = np.zeros((4, 4), np.uint8)
    middle = canvas[0, 2:6, 4:8]
    for y in (0, 2, 4):
        for x in (1, 4, 7):
            with pytest.raises(ValueError, match="out_probability: expected memory apart from p"):
                compose(middle, out, canvas[0, y : y + 4, x : x + 4])
    with pytest.raises(ValueError, match="out_probability: expected memory apart from p"):
        compose(canvas[0, 5:1:-1, 4:8], out, middle)


def test_random_crops_agree_with_numpy(rng):
    out = np.zeros((3, 4), np.uint8)
    canvas = np.zeros((10, 14), np.float32)
    seen = set()
    for _ in range(300):
        crops = []
        for _ in range(2):
            y, x = rng.integers(0, 8), rng.integers(0, 11)
            crops.append(canvas[y : y + 3, x : x + 4])
        if crops[1].shape != (3, 4) or crops[0].size == 0:
            continue
        overlap = np.shares_memory(*crops)
        seen.add(overlap)
        if overlap:
            with pytest.raises(ValueError, match="memory apart"):
                compose(crops[0], out, crops[1])
        else:
            compose(crops[0], out, crops[1])
    assert seen == {True, False}


def test_no_reference_is_leaked():
    import sys

    points, out = POINTS.copy(), np.empty((4, 4, 5), np.float32)
    before = sys.getrefcount(points), sys.getrefcount(out)
    for _ in range(10):
        _cpu.click_maps(points, out, 9.0, None)
        _cpu.click_maps(Dlpack(points), Dlpack(out), 9.0, None)
        with pytest.raises(ValueError, match="limit_px"):
            _cpu.click_maps(points, out, -1.0, None)
    assert (sys.getrefcount(points), sys.getrefcount(out)) == before


@pytest.mark.parametrize("name", ops.__all__)
def test_every_operation_says_that_its_backend_may_be_missing(name: str) -> None:
    assert "BackendUnavailable" in getattr(ops, name).__doc__
