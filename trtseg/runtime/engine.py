"""What the pipeline asks of whatever runs a network, and of the memory its arrays live in.

An implementation is a module with `load(bundle, *, device, threads, precision) -> Engines` and
`availability() -> Availability`: `trtseg.runtime.onnxruntime` is one. Anything else that makes an
`Engines` can be handed to `Segmenter(bundle, engines)` directly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Array = Any  # np.ndarray on the host, or what the backend's memory makes


@dataclass(frozen=True)
class TensorSpec:
    """A named input or output of a network; None in `shape` is a free dimension."""

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...]


class Binding(Protocol):
    """An engine tied to fixed buffers."""

    def run(self) -> None:
        """Read the input buffers, write the output buffers; queued on the binding's stream.

        Raises:
            EngineError: the network could not be run.
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

    def ramp(self, distance: Array, limit: float, out: Array) -> None:
        """out = distance / limit."""

    def gaussian(self, distance: Array, sigma: float, out: Array) -> None:
        """out = exp(-distance^2 / (2 sigma^2))."""

    def dots(self, pixels: np.ndarray, out: Array) -> None:
        """out [H, W] = 1 at `pixels`, int64 [N, 2] (y, x), and 0 elsewhere."""


@dataclass(frozen=True)
class Engines:
    """The networks of one bundle, loaded.

    Attributes:
        description: for `trtseg info` and error messages, for instance "ONNX Runtime 1.20, CPU".
        memory: where all buffers given to the engines live.
        encoder, segment, select: the networks; None for one that the bundle does not have.
    """

    description: str
    memory: Memory
    encoder: Engine | None
    segment: Engine
    select: Engine | None


@dataclass(frozen=True)
class Availability:
    """Whether a backend can be used here, and the reason in one sentence."""

    usable: bool
    reason: str


class HostMemory:
    """NumPy arrays; the stream is always 0."""

    stream = 0

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

    def ramp(self, distance: np.ndarray, limit: float, out: np.ndarray) -> None:
        """See `Memory`."""
        np.divide(distance, np.float32(limit), out=out, casting="same_kind")

    def gaussian(self, distance: np.ndarray, sigma: float, out: np.ndarray) -> None:
        """See `Memory`."""
        np.multiply(distance, distance, out=out, casting="same_kind")
        np.multiply(out, out.dtype.type(-0.5 / sigma**2), out=out)
        np.exp(out, out=out)

    def dots(self, pixels: np.ndarray, out: np.ndarray) -> None:
        """See `Memory`."""
        out.fill(0)
        out[pixels[:, 0], pixels[:, 1]] = 1
