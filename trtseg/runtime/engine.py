"""What the pipeline asks of whatever runs a network, and of the memory its arrays live in.

An implementation is a module with `load(bundle, *, device, threads, precision) -> Engines` and
`availability() -> Availability`: `trtseg.runtime.onnxruntime` is one. Anything else that makes an
`Engines` can be handed to `Segmenter(bundle, engines)` directly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from trtseg.errors import EngineError

Array = Any  # np.ndarray on the host, or what the backend's memory makes
Work = Callable[[], None]
Progress = Callable[[float, str], None]  # (fraction from 0 to 1, phase)


def on_host(array: Array) -> np.ndarray:
    """The values of any library's array as a NumPy array; the very same one where it is one."""
    if isinstance(array, np.ndarray):
        return array
    if hasattr(array, "get"):  # CuPy, PyCUDA
        return array.get()
    return array.cpu().numpy() if hasattr(array, "cpu") else np.asarray(array)


@dataclass(frozen=True)
class TensorSpec:
    """A named input or output of a network.

    Attributes:
        name: by which the pipeline knows it.
        dtype: of the buffer.
        shape: None is a free dimension.
        channels_last: [1, C, H, W] of which the channels of a pixel lie together, as torch's
            memory format of that name, in place of a C-contiguous buffer.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...]
    channels_last: bool = False

    def takes(self, array: Array) -> bool:
        """Whether a NumPy or CuPy array of the right shape is of this dtype and layout."""
        stored = pixels_of(array) if self.channels_last else array
        return bool(array.dtype == self.dtype and stored.flags.c_contiguous)

    def empty(self, memory: Memory, shape: tuple[int, ...]) -> Array:
        """An uninitialised buffer of this dtype and layout.

        Raises:
            OutOfMemory: no room.
        """
        if not self.channels_last:
            return memory.empty(shape, self.dtype)
        batch, channels, height, width = shape
        pixels = memory.empty((batch, height, width, channels), self.dtype)
        return pixels.transpose(0, 3, 1, 2)


def pixels_of(maps: Array) -> Array:
    """[..., C, H, W] seen as [..., H, W, C]: C-contiguous where the maps are channels-last."""
    axes = range(len(maps.shape))
    return maps.transpose(*axes[:-3], *axes[-2:], axes[-3])


_FEATURES = re.compile(r"x|features|(level|map)_\d+")


def is_channels_last(name: str, shape: Sequence[int | None]) -> bool:
    """Whether an input or output of our networks is channels-last on a GPU.

    That is how the fast convolutions and our kernels take features, if a pixel's channels are whole
    accesses of 16 bytes in either precision. Images, guidance and masks are few maps, drawn, chosen
    and shown plane by plane.

    Args:
        name: of the tensor.
        shape: [1, C, H, W]; None or -1 for a free dimension.
    """
    channels = shape[1] if len(shape) == 4 else None
    return bool(_FEATURES.fullmatch(name) and channels and channels % 8 == 0)



def check_buffers(name: str, specs: Iterable[TensorSpec], buffers: Mapping[str, Array]) -> None:
    """Check the NumPy or CuPy arrays that `Engine.bind` was given.

    Args:
        name: of the engine, for the message.
        specs: its inputs and outputs.
        buffers: by the name of the tensor.

    Raises:
        EngineError: one is missing, or of another dtype, shape or layout.
    """
    for spec in specs:
        array = buffers.get(spec.name)
        if array is None:
            raise EngineError(f"{name}: no buffer for {spec.name!r}")
        fits = len(array.shape) == len(spec.shape) and all(
            expected in (None, actual)
            for expected, actual in zip(spec.shape, array.shape, strict=True)
        )
        if not fits or not spec.takes(array):
            layout = "channels-last" if spec.channels_last else "contiguous"
            raise EngineError(
                f"{name}: {spec.name}: expected {layout} {spec.dtype} {list(spec.shape)}, "
                f"got {array.dtype} {list(array.shape)} with strides {list(array.strides)}"
            )


class Binding(Protocol):
    """An engine tied to fixed buffers."""

    def run(self) -> None:
        """Read the input buffers, write the output buffers; queued on the binding's stream.

        Raises:
            EngineError: the network could not be run.
        """

    def graph_key(self) -> Hashable | None:
        """What a recorded `run` has baked in besides its buffers, such as the address of scratch
        memory: a recording made under another key is stale. None where `run` cannot be recorded.
        """


class Engine(Protocol):
    """One network, shared by threads; a binding belongs to one thread at a time."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def output_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Shapes of all outputs for these input shapes. May be slow the first time."""

    def bind(self, buffers: Mapping[str, Array], stream: int = 0) -> Binding:
        """Tie all inputs and outputs to buffers, which the binding keeps alive.

        Raises:
            EngineError: a name is missing or unknown, or a shape or dtype does not fit.
        """


class Memory(Protocol):
    """Where the arrays of one backend live. All work is queued on `stream`."""

    stream: int

    def lane(self) -> Memory:
        """The same memory with a stream of its own, whose work overlaps with other streams'.

        Arrays are shared; what one stream writes is read on another after `synchronize` or
        `follow`. The memory itself where nothing is ever queued.
        """

    def follow(self, other: Memory) -> None:
        """What is queued from here on waits for what is queued on `other` now."""

    def queueing(self) -> AbstractContextManager[Any]:
        """Held while work is queued: engines' weights do not change meanwhile."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> Array:
        """An uninitialised C-contiguous array."""

    def array(self, values: np.ndarray) -> Array:
        """Host values in this memory; the very same array where that is the host."""

    def fill(self, array: Array, value: float) -> None:
        """Set every element."""

    def copy(self, source: Array, out: Array) -> None:
        """Copy, converting the dtype; `source` may be on the host or in this memory."""

    def host(self, array: Array) -> np.ndarray:
        """The values as a NumPy array, waiting for the stream; not necessarily a copy."""

    def synchronize(self) -> None:
        """Wait for everything queued on the stream."""

    def fetch(self, array: Array) -> np.ndarray:
        """As `host`, but without waiting: the values are there after `synchronize`."""

    def staging(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Host memory for `transfer`: page-locked where that matters."""

    def transfer(self, source: Array, out: Array) -> None:
        """Queue a copy between C-contiguous buffers of one dtype and shape, `staging` or arrays.

        Both must live and stay as they are until the copy is done; it can be recorded.
        """

    def cell_means(self, image: Array, stride: int) -> Array:
        """The means of cells of stride x stride pixels: [1, C, H, W] to float32 [1, C, h, w]."""

    def channel_means(self, image: Array) -> Array:
        """The means of all channels: [1, C, H, W] to float32 [1, 1, H, W]."""

    def adopt(self, array: Any) -> Array:
        """Another library's array on this memory's device, without a copy, ready to be read by
        what is queued from here on.

        Raises:
            TypeError: it lies elsewhere.
        """


# Records what a callable queues on the stream of a memory; calling the result queues it again.
Recorder = Callable[[Memory, Work], Work]


@dataclass(frozen=True)
class Engines:
    """The networks of one bundle, loaded.

    Attributes:
        description: for `trtseg info` and error messages, for instance "ONNX Runtime 1.20, CPU".
        memory: where all buffers given to the engines live.
        encoder, segment, select: the networks; None for one that the bundle does not have.
        recorder: how whole clicks are recorded for replay, see
            `trtseg.runtime.pipeline.recording`; None where every call is queued, or computed, anew.
    """

    description: str
    memory: Memory
    encoder: Engine | None
    segment: Engine
    select: Engine | None
    recorder: Recorder | None = None


@dataclass(frozen=True)
class Availability:
    """Whether a backend can be used here, and the reason in one sentence."""

    usable: bool
    reason: str


class HostMemory:
    """NumPy arrays; the stream is always 0."""

    stream = 0

    def lane(self) -> HostMemory:
        """See `Memory`."""
        return self

    def follow(self, other: Memory) -> None:
        """Nothing is ever queued."""

    def queueing(self) -> AbstractContextManager[Any]:
        """See `Memory`."""
        return nullcontext()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """See `Memory`."""
        return np.empty(shape, dtype)

    def array(self, values: np.ndarray) -> np.ndarray:
        """See `Memory`."""
        return values

    def fill(self, array: np.ndarray, value: float) -> None:
        """See `Memory`."""
        array.fill(value)

    def copy(self, source: np.ndarray, out: np.ndarray) -> None:
        """See `Memory`."""
        np.copyto(out, source, casting="same_kind")

    def host(self, array: np.ndarray) -> np.ndarray:
        """See `Memory`."""
        return array

    def synchronize(self) -> None:
        """Nothing is ever queued."""

    def fetch(self, array: np.ndarray) -> np.ndarray:
        """See `Memory`."""
        return array

    def staging(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """See `Memory`."""
        return np.empty(shape, dtype)

    def transfer(self, source: np.ndarray, out: np.ndarray) -> None:
        """See `Memory`."""
        np.copyto(out, source, casting="no")

    def cell_means(self, image: np.ndarray, stride: int) -> np.ndarray:
        """See `Memory`."""
        return cells_of(image, stride).mean((3, 5), dtype=np.float32)

    def channel_means(self, image: np.ndarray) -> np.ndarray:
        """See `Memory`."""
        return image.mean(1, dtype=np.float32, keepdims=True)

    def adopt(self, array: Any) -> np.ndarray:
        """See `Memory`."""
        raise TypeError(
            "expected an array in host memory, which is all that this model's backend reads, got "
            f"{type(array).__name__} on a device: copy it to the host (CuPy: array.get(), torch: "
            'tensor.cpu().numpy()), or load the model with backend="tensorrt"'
        )


def cells_of(image: Array, stride: int) -> Array:
    """[1, C, H, W] as [1, C, H / stride, stride, W / stride, stride]."""
    _, channels, height, width = image.shape
    return image.reshape(1, channels, height // stride, stride, width // stride, stride)
