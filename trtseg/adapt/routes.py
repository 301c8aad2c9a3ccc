"""How adapted weights reach the engine that answers clicks."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, Protocol

import numpy as np
import torch

from trtseg.adapt.graph import AdaptableGraph
from trtseg.adapt.latent import AdaptableSegment
from trtseg.adapt.weights import AdaptedWeights
from trtseg.bundle import Bundle
from trtseg.errors import EngineError
from trtseg.runtime.engine import Engine, TensorSpec
from trtseg.runtime.onnxruntime import PROVIDERS, OnnxEngine, physical_cores

ROUTES = ("onnxruntime", "torch")


class Route(Protocol):
    """Makes engines for `segment`.

    Attributes:
        kept: how many of the engines made last stay as they are.
    """

    kept: int

    def engine(self, weights: AdaptedWeights) -> Engine:
        """An engine with these weights."""


class OnnxRoute:
    """ONNX Runtime on the CPU: a new session on the graph with its initialisers replaced."""

    kept = 3  # the present click's, and what undo or another session is likely to ask for

    def __init__(
        self, bundle: Bundle, names: list[str], precision: str = "fp32", threads: int | None = None
    ) -> None:
        self._graph = AdaptableGraph(bundle.graph("segment", precision), names)
        self._name, self._threads = f"{bundle.name}/segment (adapted)", threads

    def engine(self, weights: AdaptedWeights) -> OnnxEngine:
        """See `Route`."""
        values = {name: value.cpu().numpy() for name, value in weights.values.items()}
        graph = self._graph.with_weights(values)
        threads = self._threads or physical_cores()
        return OnnxEngine(graph, self._name, [PROVIDERS["cpu"]], threads)


class TorchRoute:
    """torch runs f with the very tensors that were adapted: nothing is converted."""

    kept = 3

    def __init__(self, model: AdaptableSegment, like: Engine) -> None:
        self._model, self._like = model, like

    def engine(self, weights: AdaptedWeights) -> TorchEngine:
        """See `Route`."""
        return TorchEngine(self._model, weights, self._like)


class RefitPair(Protocol):
    """Two refittable engines, one answering; `trtseg.runtime.tensorrt_refit.RefitPair`."""

    def refit(self, weights: Mapping[str, Any]) -> Engine:
        """Put weights into the idle engine and make it the one that answers."""


class RefitRoute:
    """TensorRT: the idle one of two engines is refitted from device memory.

    For one session at a time: a click after the next overwrites this click's engine.

    Args:
        pair: the engines.
        dtypes: of the refitted weights in the graph, see `AdaptableGraph`; the same names every
            time.
        to_device: a contiguous tensor as an array of the pair's memory; by default CuPy's view
            of it, without a copy.
    """

    kept = 1

    def __init__(
        self,
        pair: RefitPair,
        dtypes: Mapping[str, np.dtype],
        to_device: Callable[[torch.Tensor], Any] | None = None,
    ) -> None:
        self._pair, self._to_device = pair, to_device or _cupy_view
        self._dtypes = {
            name: torch.float16 if dtype == np.float16 else torch.float32
            for name, dtype in dtypes.items()
        }

    def engine(self, weights: AdaptedWeights) -> Engine:
        """See `Route`."""
        arrays = {
            name: self._to_device(weights.values[name].to(dtype).contiguous())
            for name, dtype in self._dtypes.items()
        }
        return self._pair.refit(arrays)


def _cupy_view(tensor: torch.Tensor) -> Any:
    return importlib.import_module("cupy").asarray(tensor)


class TorchEngine:
    """`segment` in torch on host or CUDA buffers; float32 arithmetic."""

    def __init__(self, model: AdaptableSegment, weights: AdaptedWeights, like: Engine) -> None:
        self.inputs: tuple[TensorSpec, ...] = like.inputs
        self.outputs: tuple[TensorSpec, ...] = like.outputs
        self._shapes = like.output_shapes
        self.model, self.weights = model, weights

    def output_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """See `Engine`."""
        return self._shapes(shapes)

    def bind(self, buffers: Mapping[str, Any], stream: int = 0) -> TorchBinding:
        """See `Engine`."""
        for spec in (*self.inputs, *self.outputs):
            if spec.name not in buffers:
                raise EngineError(f"segment (torch): no buffer for {spec.name!r}")
        return TorchBinding(self, dict(buffers), stream)


class TorchBinding:
    """See `Binding`; works on the buffers in place."""

    def __init__(self, engine: TorchEngine, buffers: dict[str, Any], stream: int) -> None:
        self._engine, self._buffers, self._stream = engine, buffers, stream
        self._tensors = {name: _as_tensor(array) for name, array in buffers.items()}

    def run(self) -> None:
        """See `Binding`."""
        x = self._tensors["x"]
        with torch.inference_mode(), _on_stream(x.device, self._stream):
            masks, features = self._engine.model.run(x, self._engine.weights.values)
            self._tensors["masks"].copy_(masks)
            if "features" in self._tensors:
                self._tensors["features"].copy_(features)

    def graph_key(self) -> None:
        """See `Binding`: these weights are run a few times at most, so nothing is recorded."""


def _as_tensor(array: Any) -> torch.Tensor:
    if isinstance(array, np.ndarray):
        return torch.from_numpy(array)
    return torch.as_tensor(array, device="cuda")


def _on_stream(device: torch.device, stream: int) -> Any:
    if device.type != "cuda":
        return nullcontext()
    return torch.cuda.stream(torch.cuda.ExternalStream(stream))
