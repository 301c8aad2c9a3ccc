"""Device memory of one GPU for the pipeline, on CuPy: one stream, one bounded pool.

CuPy is reached at use only. Every call takes the module from the object it belongs to, so that a
stand-in can take its place where there is no GPU.
"""

from __future__ import annotations

import importlib
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from trtseg.errors import BackendUnavailable, EngineError

# What TensorRT asks of every address; CuPy's pool aligns to 512.
ALIGNMENT_BYTES = 256
_STAGED = 8


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as it enters the key of the engine cache.

    Attributes:
        index: its number for the CUDA runtime.
        name: such as "NVIDIA GeForce RTX 4090".
        compute_capability: such as "8.9".
        memory_mib: all of it.
    """

    index: int
    name: str
    compute_capability: str
    memory_mib: int


def load_cupy() -> Any:
    """CuPy, on a machine where it finds a GPU.

    Raises:
        BackendUnavailable: it is not installed, or there is no GPU or driver.
    """
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        raise BackendUnavailable(
            "the GPU runtime needs CuPy, one of: pip install cupy-cuda13x (CUDA 13), "
            f"pip install cupy-cuda12x (CUDA 12): {error}"
        ) from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendUnavailable(f"no GPU can be used: {error}") from None
    if count == 0:
        raise BackendUnavailable("no GPU can be used: the CUDA runtime finds none")
    return cupy


def describe_gpu(cupy: Any, index: int) -> Gpu:
    """The GPU of that number.

    Raises:
        ValueError: there is none of that number.
    """
    count = cupy.cuda.runtime.getDeviceCount()
    if not 0 <= index < count:
        raise ValueError(f"device: expected 0 to {count - 1}, got {index}")
    properties = cupy.cuda.runtime.getDeviceProperties(index)
    name = properties["name"]
    return Gpu(
        index,
        name.decode() if isinstance(name, bytes) else str(name),
        f"{properties['major']}.{properties['minor']}",
        properties["totalGlobalMem"] >> 20,
    )


def _pinned(cupy: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Page-locked host memory from CuPy's pool, which returns there with the last reference."""
    count = int(np.prod(shape, dtype=np.int64))
    memory = cupy.cuda.alloc_pinned_memory(max(1, count * np.dtype(dtype).itemsize))
    return np.frombuffer(memory, dtype, count).reshape(shape)


class CudaMemory:
    """See `Memory`: arrays are CuPy's, all work is queued on one stream of our own.

    Threads may share it. Their work is queued in the order in which they ask for it, so two
    sessions never run at the same moment on the GPU; a click is short, and one stream is what
    lets all engines share one scratch buffer.

    Args:
        cupy: from `load_cupy`.
        index: the GPU's number.
        limit_mib: never more than this is allocated here; None for no limit.
    """

    def __init__(self, cupy: Any, index: int = 0, *, limit_mib: int | None = None) -> None:
        self.cupy, self.index = cupy, index
        self._device = cupy.cuda.Device(index)
        with self._device:
            self._pool = cupy.cuda.MemoryPool()
            if limit_mib is not None:
                self._pool.set_limit(size=limit_mib << 20)
            # Non-blocking: the legacy default stream of other libraries is not waited for.
            self.cupy_stream = cupy.cuda.Stream(non_blocking=True)
        self.stream = int(self.cupy_stream.ptr)
        self._limit_mib = limit_mib
        # Pinned buffers whose upload may be under way, with the event that ends it.
        self._staged: deque[tuple[Any, np.ndarray]] = deque()
        self._staged_lock = threading.Lock()

    @contextmanager
    def current(self) -> Iterator[None]:
        """CuPy calls inside the block use this GPU, pool and stream."""
        with self._device, self.cupy.cuda.using_allocator(self._pool.malloc), self.cupy_stream:
            yield

    def used_bytes(self) -> int:
        """Bytes of the arrays that are alive."""
        return int(self._pool.used_bytes())

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """See `Memory`.

        Raises:
            EngineError: the GPU, or the limit given to this memory, has no room for it.
        """
        try:
            with self.current():
                return self.cupy.empty(shape, dtype)
        except self.cupy.cuda.memory.OutOfMemoryError:
            # What idle arrays left behind goes back to the GPU, for the next attempt.
            self._pool.free_all_blocks()
            need = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            limit = f" of the {self._limit_mib} MiB allowed" if self._limit_mib else ""
            raise EngineError(
                f"GPU {self.index} is out of memory: {need / 2**20:.1f} MiB more are needed, "
                f"{self.used_bytes() / 2**20:.1f} MiB{limit} are in use"
            ) from None

    def array(self, values: np.ndarray) -> Any:
        """See `Memory`."""
        out = self.empty(values.shape, values.dtype)
        self.copy(values, out)
        return out

    def fill(self, array: Any, value: float) -> None:
        """See `Memory`."""
        with self.current():
            array.fill(value)

    def copy(self, source: Any, out: Any) -> None:
        """See `Memory`; also from any other library's array on this GPU, on its own stream."""
        ours = isinstance(source, self.cupy.ndarray)
        if not ours and isinstance(source, np.ndarray):
            self._upload(source, out)
            return
        with self.current():
            array = source if ours else self._adopt(source)
            self.cupy.copyto(out, array, casting="same_kind")

    def host(self, array: Any) -> np.ndarray:
        """See `Memory`; pinned, and the caller's to keep."""
        with self.current():
            out = _pinned(self.cupy, array.shape, array.dtype)
            array.get(stream=self.cupy_stream, out=out, blocking=True)
        return out

    def synchronize(self) -> None:
        """See `Memory`."""
        self.cupy_stream.synchronize()
        with self._staged_lock:
            while self._staged and self._staged[0][0].done:
                self._staged.popleft()

    def ramp(self, distance: Any, limit: float, out: Any) -> None:
        """See `Memory`."""
        with self.current():
            self.cupy.divide(distance, np.float32(limit), out=out, casting="same_kind")

    def gaussian(self, distance: Any, sigma: float, out: Any) -> None:
        """See `Memory`; computed in float32 whatever the dtype of `out`."""
        with self.current():
            value = self.cupy.multiply(distance, distance)
            self.cupy.multiply(value, np.float32(-0.5 / sigma**2), out=value)
            self.cupy.exp(value, out=out, casting="same_kind")

    def dots(self, pixels: np.ndarray, out: Any) -> None:
        """See `Memory`."""
        if len(pixels):
            positions = self.array(np.ascontiguousarray(pixels))
        with self.current():
            out.fill(0)
            if len(pixels):
                out[positions[:, 0], positions[:, 1]] = 1

    def _upload(self, values: np.ndarray, out: Any) -> None:
        with self.current():
            pinned = _pinned(self.cupy, out.shape, out.dtype)
            np.copyto(pinned, values, casting="same_kind")
            out.set(pinned, stream=self.cupy_stream)
            event = self.cupy.cuda.Event(disable_timing=True)
            event.record(self.cupy_stream)
        with self._staged_lock:
            self._staged.append((event, pinned))
            while len(self._staged) > _STAGED:
                done, _ = self._staged.popleft()
                done.synchronize()

    def _adopt(self, source: Any) -> Any:
        """Another library's device array as CuPy's, without a copy.

        DLPack first: it orders the producer's stream before ours, which torch's
        `__cuda_array_interface__` cannot, as it names no stream.
        """
        if hasattr(source, "__dlpack__"):
            return self.cupy.from_dlpack(source)
        if hasattr(source, "__cuda_array_interface__"):
            return self.cupy.asarray(source)
        raise TypeError(f"expected a NumPy array or one on the GPU, got {type(source).__name__}")


class Scratch:
    """The one buffer in which all engines of a bundle compute, since they run in turn.

    `lock` is held while an engine is queued: two threads that queued at once would interleave
    their kernels on the stream, in the same scratch.
    """

    def __init__(self, memory: CudaMemory) -> None:
        self.lock = threading.RLock()
        self._memory = memory
        self._buffer: Any = None
        self.size_bytes = 0

    @property
    def address(self) -> int:
        """Where it is now; it moves when it grows. 0 before anything was reserved."""
        return 0 if self._buffer is None else int(self._buffer.data.ptr)

    def reserve(self, size_bytes: int) -> None:
        """Make it at least this large. The lock is held by the caller.

        Raises:
            EngineError: no room; the old buffer is still there.
        """
        if size_bytes > self.size_bytes:
            # The old one returns to the pool, which hands it out again on this stream only.
            self._buffer = self._memory.empty((size_bytes,), np.dtype(np.uint8))
            self.size_bytes = size_bytes
