"""Device memory of one GPU for the pipeline, on CuPy: one bounded pool, a stream per lane.

CuPy is reached at use only. Every call takes the module from the object it belongs to, so that a
stand-in can take its place where there is no GPU.
"""

from __future__ import annotations

import copy
import importlib
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from trtseg.errors import BackendUnavailable, EngineError, OutOfMemory
from trtseg.runtime.engine import Memory, Work, cells_of, pixels_of

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


class CudaMemory:
    """See `Memory`: arrays are CuPy's, all work is queued on one stream of our own.

    A lane (`lane()`) shares the pool and its limit but has a stream and a scratch buffer of its
    own. One thread at a time works on a lane; any number of threads may share the memory that
    lanes are made of, their work on it runs in the order in which they ask for it.

    Args:
        cupy: from `load_cupy`.
        index: the GPU's number.
        limit_mib: never more than this is allocated here, lanes included; None for no limit.
    """

    def __init__(self, cupy: Any, index: int = 0, *, limit_mib: int | None = None) -> None:
        self.cupy, self.index = cupy, index
        with cupy.cuda.Device(index):
            self._pool = cupy.cuda.MemoryPool()
            if limit_mib is not None:
                self._pool.set_limit(size=limit_mib << 20)
        self._limit_mib = limit_mib
        # Held while work is queued: refitting waits for it. Shared by all lanes.
        self.lock = threading.RLock()
        self._lanes: weakref.WeakValueDictionary[int, CudaMemory] = weakref.WeakValueDictionary()
        self._open()

    def _open(self) -> None:
        """What belongs to this lane alone."""
        with self.cupy.cuda.Device(self.index):
            # Non-blocking: the legacy default stream of other libraries is not waited for.
            self.cupy_stream = self.cupy.cuda.Stream(non_blocking=True)
        self.stream = int(self.cupy_stream.ptr)
        # Pinned buffers whose upload may be under way, with the event that ends it.
        self._staged: deque[tuple[Any, np.ndarray]] = deque()
        self._staged_lock = threading.Lock()
        self._scratch: Any = None
        self._lanes[self.stream] = self

    def lane(self) -> CudaMemory:
        """See `Memory`."""
        lane = copy.copy(self)
        lane._open()
        return lane

    def lane_of(self, stream: int) -> CudaMemory:
        """The lane that a stream belongs to; 0 is this memory's own.

        Raises:
            EngineError: none of this memory's lanes.
        """
        lane = self if stream in (0, self.stream) else self._lanes.get(stream)
        if lane is None:
            raise EngineError(f"stream {stream} is of no lane of this memory")
        return lane

    def follow(self, other: Memory) -> None:
        """See `Memory`."""
        assert isinstance(other, CudaMemory)
        self._wait_for(other.cupy_stream)

    def _wait_for(self, producer: Any) -> None:
        if int(producer.ptr) == self.stream:
            return
        with self.cupy.cuda.Device(self.index):
            event = self.cupy.cuda.Event(disable_timing=True)
            event.record(producer)
            self.cupy_stream.wait_event(event)

    @contextmanager
    def current(self) -> Iterator[None]:
        """CuPy calls inside the block use this GPU, pool and stream.

        CuPy names the current stream as the producer of its arrays: native operations called
        inside do not wait for the legacy default stream, which a recording could not.
        """
        allocator = self.cupy.cuda.using_allocator(self._pool.malloc)
        with self.cupy.cuda.Device(self.index), allocator, self.cupy_stream:
            yield

    @contextmanager
    def queueing(self) -> Iterator[None]:
        """See `Memory`."""
        with self.lock, self.current():
            yield

    def used_bytes(self) -> int:
        """Bytes of the arrays that are alive, on all lanes."""
        return int(self._pool.used_bytes())

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """See `Memory`.

        Raises:
            OutOfMemory: the GPU, or the limit given to this memory, has no room for it.
        """
        try:
            with self.current():
                return self.cupy.empty(shape, dtype)
        except self.cupy.cuda.memory.OutOfMemoryError:
            # What idle arrays left behind goes back to the GPU, for the next attempt.
            self._pool.free_all_blocks()
            need = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            limit = f" of the {self._limit_mib} MiB allowed" if self._limit_mib else ""
            raise OutOfMemory(
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
        if len(out.shape) >= 3 and not out.flags.c_contiguous:
            # channels-last, and mostly from channels-last: seen as pixels that is one block
            source, out = pixels_of(source), pixels_of(out)
        if isinstance(source, np.ndarray):
            self._upload(source, out)
            return
        with self.current():
            self.cupy.copyto(out, self.adopt(source), casting="same_kind")

    def host(self, array: Any) -> np.ndarray:
        """See `Memory`; pinned, and the caller's to keep."""
        out = self.fetch(array)
        self.synchronize()
        return out

    def fetch(self, array: Any) -> np.ndarray:
        """See `Memory`; pinned, and the caller's to keep."""
        with self.current():
            out = self.staging(array.shape, array.dtype)
            array.get(stream=self.cupy_stream, out=out, blocking=False)
        return out

    def staging(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """See `Memory`; from CuPy's pool, where it returns with the last reference."""
        count = int(np.prod(shape, dtype=np.int64))
        memory = self.cupy.cuda.alloc_pinned_memory(max(1, count * np.dtype(dtype).itemsize))
        return np.frombuffer(memory, dtype, count).reshape(shape)

    def transfer(self, source: Any, out: Any) -> None:
        """See `Memory`."""
        addresses = [
            side.ctypes.data if isinstance(side, np.ndarray) else int(side.data.ptr)
            for side in (out, source)
        ]
        # The runtime's own call: CuPy's methods would refuse, or wait, while recording.
        runtime = self.cupy.cuda.runtime
        runtime.memcpyAsync(*addresses, source.nbytes, runtime.memcpyDefault, self.stream)

    def synchronize(self) -> None:
        """See `Memory`; of this lane's stream."""
        self.cupy_stream.synchronize()
        with self._staged_lock:
            while self._staged and self._staged[0][0].done:
                self._staged.popleft()

    def synchronize_all(self) -> None:
        """Wait for all streams of the GPU."""
        with self.cupy.cuda.Device(self.index) as device:
            device.synchronize()

    def cell_means(self, image: Any, stride: int) -> Any:
        """See `Memory`."""
        with self.current():
            return cells_of(image, stride).mean(axis=(3, 5), dtype=np.float32)

    def channel_means(self, image: Any) -> Any:
        """See `Memory`."""
        with self.current():
            means = image.mean(axis=(1,), dtype=np.float32)
            return means.reshape(1, *means.shape)

    def adopt(self, array: Any) -> Any:
        """See `Memory`.

        DLPack first: it orders the producer's stream before ours, which a
        `__cuda_array_interface__` that names no stream (torch's, PyCUDA's) cannot. For those the
        legacy default stream is waited for, on which such producers work unless told otherwise.
        """
        if isinstance(array, self.cupy.ndarray):
            # CuPy's arrays are on the stream that is current where they are handed over.
            self._wait_for(self.cupy.cuda.get_current_stream())
        else:
            array = self._adopt(array)
        if int(array.device.id) != self.index:
            raise ValueError(
                f"expected an array on GPU {self.index}, where the model runs, "
                f"got one on GPU {array.device.id}"
            )
        return array

    def _adopt(self, array: Any) -> Any:
        with self.current():
            if hasattr(array, "__dlpack__"):
                return self.cupy.from_dlpack(array)
            interface = getattr(array, "__cuda_array_interface__", None)
            if interface is None:
                raise TypeError(
                    f"expected a NumPy array or one on the GPU, got {type(array).__name__}"
                )
            if interface.get("stream") is None:
                self._wait_for(self.cupy.cuda.Stream.null)
            return self.cupy.asarray(array)

    def reserve_scratch(self, size_bytes: int) -> None:
        """Make the scratch of this lane at least so large. It serves all engines on the lane,
        since they run in turn.

        Raises:
            OutOfMemory: no room; the old one is still there.
        """
        if size_bytes > self.scratch_bytes:
            # The old one returns to the pool, which hands it out again on this stream only.
            self._scratch = self.empty((size_bytes,), np.dtype(np.uint8))

    @property
    def scratch_bytes(self) -> int:
        """Size of the scratch; 0 before anything was reserved."""
        return 0 if self._scratch is None else int(self._scratch.nbytes)

    @property
    def scratch_address(self) -> int:
        """Where it is now; it moves when it grows. 0 before anything was reserved."""
        return 0 if self._scratch is None else int(self._scratch.data.ptr)

    def _upload(self, values: np.ndarray, out: Any) -> None:
        with self.current():
            pinned = self.staging(out.shape, out.dtype)
            np.copyto(pinned, values, casting="same_kind")
            out.set(pinned, stream=self.cupy_stream)
            event = self.cupy.cuda.Event(disable_timing=True)
            event.record(self.cupy_stream)
        with self._staged_lock:
            self._staged.append((event, pinned))
            while len(self._staged) > _STAGED:
                done, _ = self._staged.popleft()
                done.synchronize()


def record_cuda_graph(memory: Memory, work: Work) -> Work:
    """See `Recorder`: by stream capture, on the memory's own stream.

    Raises:
        EngineError: something in `work` cannot be captured; the stream is usable again.
    """
    assert isinstance(memory, CudaMemory)
    stream = memory.cupy_stream
    with memory.current():
        # CuPy's default mode, relaxed: calls of other threads do not break the capture.
        stream.begin_capture()
        failure: RuntimeError | None = None
        graph: Any = None
        try:
            work()
        except RuntimeError as error:  # EngineError and CuPy's among them
            failure = error
        finally:
            try:
                graph = stream.end_capture()
            except RuntimeError as error:
                failure = failure or error
    if failure is not None:
        raise EngineError(f"a CUDA graph cannot be recorded: {failure}") from failure

    def replay() -> None:
        with memory.current():
            graph.launch(stream=stream)

    return replay
