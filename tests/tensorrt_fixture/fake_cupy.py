"""As much of CuPy as the runtime uses: device arrays that live in host memory.

A capturing stream records what is queued on it, so CUDA graphs can be followed too.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
import types
import weakref
from collections.abc import Callable, Iterator

import numpy as np

_local = threading.local()
_numbers = itertools.count(1000)
streams: dict[int, Stream] = {}


class _Pointer:
    def __init__(self, address: int) -> None:
        self.ptr = address


class DeviceArray:
    """An array that only this module hands out, on host memory. As with CuPy's, NumPy cannot read
    it by accident: what reaches for it without `get` fails here as on a GPU."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    shape = property(lambda self: self.values.shape)
    dtype = property(lambda self: self.values.dtype)
    ndim = property(lambda self: self.values.ndim)
    size = property(lambda self: self.values.size)
    nbytes = property(lambda self: self.values.nbytes)
    flags = property(
        lambda self: types.SimpleNamespace(c_contiguous=self.values.flags.c_contiguous)
    )
    data = property(lambda self: _Pointer(self.values.ctypes.data))
    device = property(lambda self: Device(0))

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        return {**self.values.__array_interface__, "version": 3, "stream": None}

    def __array__(self, *arguments: object, **options: object) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, key: object) -> DeviceArray:
        return DeviceArray(self.values[_plain(key)])

    def __setitem__(self, key: object, value: object) -> None:
        self.values[_plain(key)] = _plain(value)

    def reshape(self, *shape: int) -> DeviceArray:
        return DeviceArray(self.values.reshape(*shape))

    def fill(self, value: float) -> None:
        self.values.fill(value)

    def get(self, stream=None, order="C", out=None, blocking=True) -> np.ndarray:
        if out is None:
            return np.array(self.values, order=order)
        np.copyto(out, self.values)
        return out

    def set(self, values: np.ndarray, stream=None) -> None:
        assert values.dtype == self.dtype
        assert values.shape == self.shape
        self.values[...] = values


def _plain(value: object) -> object:
    """NumPy's view of device arrays, also inside lists and tuples."""
    if isinstance(value, DeviceArray):
        return value.values
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value


def on_device(function: Callable[..., object]) -> Callable[..., object]:
    """A function of NumPy arrays that takes device arrays, and refuses NumPy's."""

    @functools.wraps(function)
    def call(*arguments: object, **options: object) -> object:
        for value in (*arguments, *options.values()):
            assert not isinstance(value, np.ndarray), "a host array where a device array belongs"
        return function(
            *map(_plain, arguments), **{name: _plain(value) for name, value in options.items()}
        )

    return call


class OutOfMemoryError(MemoryError):
    pass


class CUDARuntimeError(RuntimeError):
    pass


class MemoryPool:
    def __init__(self) -> None:
        self._limit: int | None = None
        self._used = 0

    def set_limit(self, size: int) -> None:
        self._limit = size

    def used_bytes(self) -> int:
        return self._used

    def free_all_blocks(self) -> None:
        pass

    def malloc(self, size: int) -> None:
        if self._limit is not None and self._used + size > self._limit:
            raise OutOfMemoryError(size)
        self._used += size

    def _free(self, size: int) -> None:
        self._used -= size


class Graph:
    def __init__(self, calls: list[Callable[[], None]]) -> None:
        self._calls = calls
        self.launches = 0

    def launch(self, stream=None) -> None:
        self.launches += 1
        for call in self._calls:
            call()


class Stream:
    def __init__(self, non_blocking: bool = False) -> None:
        self.ptr = next(_numbers)
        self.captured: list[Callable[[], None]] | None = None
        streams[self.ptr] = self

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def queue(self, call: Callable[[], None]) -> None:
        if self.captured is not None:
            self.captured.append(call)
        else:
            call()

    def begin_capture(self) -> None:
        self.captured = []

    def end_capture(self) -> Graph:
        calls, self.captured = self.captured, None
        return Graph(calls or [])

    def synchronize(self) -> None:
        assert self.captured is None, "a capturing stream cannot be synchronised"


class Event:
    done = True

    def __init__(self, disable_timing: bool = False) -> None:
        pass

    def record(self, stream: Stream) -> None:
        pass

    def synchronize(self) -> None:
        pass


class Device:
    def __init__(self, index: int) -> None:
        self.id = index

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *error: object) -> None:
        pass


@contextlib.contextmanager
def _using_allocator(malloc: Callable[[int], None]) -> Iterator[None]:
    before = getattr(_local, "pool", None)
    _local.pool = malloc.__self__
    try:
        yield
    finally:
        _local.pool = before


def _empty(shape: tuple[int, ...], dtype: object = float) -> DeviceArray:
    kind = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    pool: MemoryPool | None = getattr(_local, "pool", None)
    if pool is not None:
        pool.malloc(size)
    raw = np.empty(size + 512, np.uint8)
    start = -raw.ctypes.data % 512
    if pool is not None:
        weakref.finalize(raw, pool._free, size)
    return DeviceArray(raw[start : start + size].view(kind).reshape(shape))


def _ufunc(function: np.ufunc) -> Callable[..., object]:
    def call(*arguments: object, out: DeviceArray | None = None, **options: object) -> object:
        result = on_device(function)(*arguments, out=out, **options)
        return out if out is not None else DeviceArray(np.asarray(result))

    return call


def make(*, gpus: int = 1, name: str = "NVIDIA Imaginary", capability: str = "8.6"):
    """A module that can stand for `cupy`."""
    major, minor = capability.split(".")
    module = types.ModuleType("cupy")
    module.ndarray = DeviceArray
    module.empty = _empty
    module.copyto = on_device(np.copyto)
    for name_ in ("divide", "multiply", "exp"):
        setattr(module, name_, _ufunc(getattr(np, name_)))

    def adopt(array: object) -> DeviceArray:
        return DeviceArray(np.asarray(array.on_device))

    module.asarray = module.from_dlpack = adopt
    module.cuda = types.SimpleNamespace(
        Device=Device,
        Event=Event,
        MemoryPool=MemoryPool,
        Stream=Stream,
        alloc_pinned_memory=bytearray,
        memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        runtime=types.SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            getDeviceCount=lambda: gpus,
            getDeviceProperties=lambda index: {
                "name": name.encode(),
                "major": int(major),
                "minor": int(minor),
                "totalGlobalMem": 16 << 30,
            },
        ),
        using_allocator=_using_allocator,
    )
    return module
