"""As much of CuPy as the runtime uses: device arrays that live in host memory.

Streams are as lazy as a GPU may be: what is queued runs when somebody waits for it, so that work
which is not ordered by waiting or by events gives wrong results here, too. A capturing stream
records what is queued on it, and refuses what CUDA refuses then.
"""

from __future__ import annotations

import contextlib
import ctypes
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

    __module__ = "cupy"  # by which `trtseg.ops` knows whom to ask for memory

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    shape = property(lambda self: self.values.shape)
    dtype = property(lambda self: self.values.dtype)
    ndim = property(lambda self: self.values.ndim)
    size = property(lambda self: self.values.size)
    nbytes = property(lambda self: self.values.nbytes)
    strides = property(lambda self: self.values.strides)
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

    def transpose(self, *axes: int) -> DeviceArray:
        return DeviceArray(self.values.transpose(axes))

    def reshape(self, *shape: int) -> DeviceArray:
        return DeviceArray(self.values.reshape(*shape))

    def mean(self, axis: tuple[int, ...], dtype: type) -> DeviceArray:
        shape = [side for at, side in enumerate(self.shape) if at not in axis]
        out = _empty(tuple(shape), dtype)
        current_stream().queue(lambda: np.mean(self.values, axis, dtype, out=out.values))
        return out

    def fill(self, value: float) -> None:
        current_stream().queue(lambda: self.values.fill(value))

    def get(self, stream=None, order="C", out=None, blocking=True) -> np.ndarray:
        stream = stream or current_stream()
        assert stream.captured is None, "CuPy copies nothing to the host while capturing"
        out = np.empty(self.shape, self.dtype) if out is None else out
        stream.queue(lambda: np.copyto(out, self.values))
        if blocking:
            stream.synchronize()
        return out

    def set(self, values: np.ndarray, stream=None) -> None:
        assert values.dtype == self.dtype
        assert values.shape == self.shape
        assert self.flags.c_contiguous, "cannot set to a non-contiguous array"
        (stream or current_stream()).queue(lambda: np.copyto(self.values, values))


def _plain(value: object) -> object:
    """NumPy's view of device arrays, also inside lists and tuples."""
    if isinstance(value, DeviceArray):
        return value.values
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value


def current_stream() -> Stream:
    return getattr(_local, "stream", None) or Stream.null


def on_device(function: Callable[..., object]) -> Callable[..., object]:
    """A function of NumPy arrays that takes device arrays, and refuses NumPy's; queued on the
    stream that its last argument names, or on the current one."""

    @functools.wraps(function)
    def call(*arguments: object, **options: object) -> None:
        for value in (*arguments, *options.values()):
            assert not isinstance(value, np.ndarray), "a host array where a device array belongs"
        handle = arguments[-1] if arguments and isinstance(arguments[-1], int) else 0
        stream = streams[handle] if handle else current_stream()
        # CuPy names the current stream as the producer of its arrays; a capture cannot wait for
        # what is outside of it.
        assert stream.captured is None or stream is current_stream(), "captures the default stream"
        plain = tuple(map(_plain, arguments))
        named = {name: _plain(value) for name, value in options.items()}
        stream.queue(lambda: function(*plain, **named))

    return call


class InterfaceOf:
    """Lets NumPy read another library's device array, which lies in host memory here."""

    def __init__(self, array: object) -> None:
        self._array = array

    @property
    def __array_interface__(self) -> dict[str, object]:
        return {**self._array.__cuda_array_interface__, "version": 3}


class Foreign:
    """Another library's device array, still being written on a stream of its own."""

    def __init__(self, values: np.ndarray, producer: Stream) -> None:
        self.values = np.zeros_like(values)
        self.shape, self.dtype, self._producer = values.shape, values.dtype, producer
        producer.queue(lambda: np.copyto(self.values, values))


class DlpackArray(Foreign):
    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, stream: int) -> None:
        event = Event()
        event.record(self._producer)
        streams[stream].wait_event(event)


class InterfaceArray(Foreign):
    """As PyCUDA's `GPUArray`: names no stream, and works on the default one."""

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        return {**self.values.__array_interface__, "version": 2}


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

    def launch(self, stream: Stream) -> None:
        self.launches += 1
        graphs_launched.append(self)
        for call in self._calls:
            stream.queue(call)


graphs_launched: list[Graph] = []


class Stream:
    null: Stream

    def __init__(self, non_blocking: bool = False) -> None:
        self.ptr = next(_numbers)
        self.captured: list[Callable[[], None]] | None = None
        self._pending: list[Callable[[], None]] = []
        self.queued = self.done = 0
        self._lock = threading.RLock()
        streams[self.ptr] = self

    def __enter__(self) -> Stream:
        _local.__dict__.setdefault("before", []).append(getattr(_local, "stream", None))
        _local.stream = self
        return self

    def __exit__(self, *error: object) -> None:
        _local.stream = _local.before.pop()

    def queue(self, call: Callable[[], None]) -> None:
        with self._lock:
            if self.captured is not None:
                self.captured.append(call)
                return
            self._pending.append(call)
            self.queued += 1

    def forget(self) -> None:
        self._pending.clear()
        self.queued = self.done = 0

    def run_until(self, count: int) -> None:
        with self._lock:
            while self.done < count:
                call = self._pending.pop(0)
                self.done += 1
                call()

    def wait_event(self, event: Event) -> None:
        assert self.captured is None, "a capture waits for nothing outside of it"
        self.queue(event.synchronize)

    def begin_capture(self) -> None:
        self.captured = []

    def end_capture(self) -> Graph:
        calls, self.captured = self.captured, None
        return Graph(calls or [])

    def synchronize(self) -> None:
        assert self.captured is None, "a capturing stream cannot be synchronised"
        self.run_until(self.queued)


Stream.null = Stream()


class Event:
    def __init__(self, disable_timing: bool = False) -> None:
        pass

    def record(self, stream: Stream) -> None:
        assert stream.captured is None, "an event inside a capture"
        self._stream, self._at = stream, stream.queued

    @property
    def done(self) -> bool:
        return self._stream.done >= self._at

    def synchronize(self) -> None:
        self._stream.run_until(self._at)


def _memcpy_async(target: int, source: int, size: int, kind: int, stream: int) -> None:
    streams[stream].queue(lambda: ctypes.memmove(target, source, size))


def _pinned(size: int) -> bytearray:
    assert current_stream().captured is None, "an allocation inside a capture"
    return bytearray(size)


class Device:
    def __init__(self, index: int) -> None:
        self.id = index

    def synchronize(self) -> None:
        for stream in list(streams.values()):
            stream.synchronize()

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


class _Block:
    """Memory that lies where it is until the test ends: CuPy's pool gives it to nobody else before
    what is queued has run."""

    def __init__(self, size: int) -> None:
        buffer = (ctypes.c_uint8 * (size + 512))()
        _buffers.append(buffer)
        address = ctypes.addressof(buffer)
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (size,),
            "data": (address + -address % 512, False),
        }


_buffers: list[object] = []


def _empty(shape: tuple[int, ...], dtype: object = float) -> DeviceArray:
    assert current_stream().captured is None, "an allocation inside a capture"
    kind = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    pool: MemoryPool | None = getattr(_local, "pool", None)
    if pool is not None:
        pool.malloc(size)
    block = _Block(size)
    if pool is not None:
        weakref.finalize(block, pool._free, size)
    return DeviceArray(np.asarray(block).view(kind).reshape(shape))


def make(*, gpus: int = 1, name: str = "NVIDIA Imaginary", capability: str = "8.6"):
    """A module that can stand for `cupy`; what an earlier one has queued is forgotten."""
    streams.clear()
    streams[Stream.null.ptr] = Stream.null
    Stream.null.forget()
    _buffers.clear()
    graphs_launched.clear()
    major, minor = capability.split(".")
    module = types.ModuleType("cupy")
    module.ndarray = DeviceArray
    module.empty = _empty
    module.copyto = on_device(np.copyto)

    def from_dlpack(array: Foreign) -> DeviceArray:
        array.__dlpack__(stream=current_stream().ptr)
        return DeviceArray(array.values)

    module.from_dlpack = from_dlpack
    module.asarray = lambda array: DeviceArray(np.asarray(InterfaceOf(array)))
    module.cuda = types.SimpleNamespace(
        Device=Device,
        Event=Event,
        ExternalStream=streams.__getitem__,
        MemoryPool=MemoryPool,
        Stream=Stream,
        alloc_pinned_memory=_pinned,
        get_current_stream=current_stream,
        memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        runtime=types.SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            memcpyAsync=_memcpy_async,
            memcpyDefault=4,
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
