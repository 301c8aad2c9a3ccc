"""`_cuda` where it was built: importable and honest without a driver."""

import importlib.util
import subprocess
import sys
import types

import numpy as np
import pytest
from tensorrt_fixture import device

from trtseg import BackendUnavailable, _cpu, ops
from trtseg.ops.backend import empty

built = importlib.util.find_spec("trtseg._cuda") is not None
needs_build = pytest.mark.skipif(not built, reason="built without _cuda")


@pytest.fixture
def without_device():
    _cuda = pytest.importorskip("trtseg._cuda")
    if _cuda.devices():
        pytest.skip("this machine has a CUDA device")
    return _cuda


@needs_build
def test_same_names_as_cpu():
    from trtseg import _cuda

    threads = {"num_threads", "set_num_threads"}
    names = {name for name in dir(_cpu) if not name.startswith("_")} - threads
    assert names == {name for name in dir(_cuda) if not name.startswith("_")} - {"devices"}


def test_calls_without_a_driver_say_so(without_device):
    out = np.full((4, 4, 5), 3, np.float32)
    with pytest.raises(BackendUnavailable, match=r"CUDA cannot be used here: .*cudaError"):
        without_device.click_maps(np.zeros((2, 1, 2), np.float32), out, 9.0, None)
    assert (out == 3).all()


@needs_build
@pytest.mark.skipif(sys.platform != "linux", reason="reads ELF headers with ldd")
def test_needs_no_cuda_library():
    from trtseg import _cuda

    needed = subprocess.run(
        ["ldd", _cuda.__file__], capture_output=True, text=True, check=True
    ).stdout
    assert "cuda" not in needed.replace(_cuda.__file__, "")


def test_a_device_array_without_the_module(monkeypatch):
    class DeviceArray:
        shape = (2, 2)
        __cuda_array_interface__ = {"shape": (2, 2)}  # noqa: RUF012

    monkeypatch.setitem(sys.modules, "trtseg._cuda", None)
    with pytest.raises(BackendUnavailable, match="trtseg was built without CUDA"):
        ops.compose_mask(DeviceArray(), (4, 4))


def test_results_lie_as_what_they_are_made_of(monkeypatch):
    """On the emulated module: channels-last from channels-last, else C-contiguous."""
    cupy = device.install(monkeypatch)
    random = np.random.default_rng(0)

    def put(values, last=False):
        pixels = cupy.empty(np.shape(values.transpose(1, 2, 0) if last else values), np.float32)
        out = pixels.transpose(2, 0, 1) if last else pixels
        out.values[...] = values
        return out

    base, pixel = (random.random((8, *s), np.float32) for s in ((3, 4), (1, 1)))
    guidance, weight = random.random((2, 6, 8), np.float32), random.random((8, 2), np.float32)
    found = []
    for last in (False, True):
        column = ops.hypercolumn([put(pixel), put(base, last)], (6, 8))
        out = ops.add_guidance(column, put(guidance), put(weight))
        assert column.flags.c_contiguous == out.flags.c_contiguous == (not last)
        found.append(out.get())
    np.testing.assert_array_equal(*found)
    np.testing.assert_array_equal(
        found[0], ops.add_guidance(ops.hypercolumn([pixel, base], (6, 8)), guidance, weight)
    )


def test_cupy_memory_is_ordered_by_the_named_stream(monkeypatch):
    """CuPy's pool gives memory out in the order of its current stream."""
    current = []

    class Context:
        def __init__(self, handle):
            self.handle = handle

        def __enter__(self):
            current.append(self.handle)

        def __exit__(self, *error):
            current.pop()

    class Array:
        __module__ = "cupy"
        dtype = np.dtype(np.float32)
        device = Context("device")

    cupy = types.SimpleNamespace(
        cuda=types.SimpleNamespace(ExternalStream=Context, Stream=object),
        empty=lambda shape, dtype: (shape, dtype, tuple(current)),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert empty(Array(), (2, 3), np.uint8) == ((2, 3), np.uint8, ("device",))
    assert empty(Array(), (2, 3), np.uint8, 77) == ((2, 3), np.uint8, ("device", 77))

    class Stream(Context):
        """As CuPy's from version 14 on, where `ExternalStream` is deprecated."""

        @classmethod
        def from_external(cls, stream):
            version, handle = stream.__cuda_stream__()
            assert version == 0
            assert current == ["device"], "it takes the device that is current"
            return cls(handle)

        def __del__(self):
            raise AssertionError("destroys a stream that is somebody else's")

    cupy.cuda = types.SimpleNamespace(Stream=Stream)
    assert empty(Array(), (2, 3), np.uint8, 77) == ((2, 3), np.uint8, ("device", 77))
