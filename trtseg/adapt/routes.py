"""How adapted weights reach the engine that answers clicks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch

from trtseg.adapt.graph import AdaptableGraph
from trtseg.adapt.latent import AdaptableSegment
from trtseg.adapt.weights import AdaptedWeights
from trtseg.bundle import Bundle
from trtseg.machine import physical_cores
from trtseg.nn.engines import TorchEngine
from trtseg.runtime.engine import Engine, TensorSpec
from trtseg.runtime.onnxruntime import PROVIDERS, OnnxEngine
from trtseg.runtime.tensorrt import load_refit_pair
from trtseg.runtime.tensorrt.execution import TensorRTBinding, TensorRTEngine
from trtseg.runtime.tensorrt.refit import RefitPair

ROUTES = ("onnxruntime", "torch", "tensorrt")


class Route(Protocol):
    """Makes engines for `segment`.

    Attributes:
        kept: how many of the engines made last stay as they are.
    """

    kept: int

    def engine(self, weights: AdaptedWeights) -> Engine:
        """An engine with these weights."""


class OnnxRoute:
    """ONNX Runtime: a new session on the graph with its initialisers replaced.

    Args:
        bundle: whose graph.
        names: of the initialisers.
        precision: of the graph.
        like: the engine whose device and threads it takes; None for the CPU's physical cores.
    """

    kept = 3  # the present click's, and what undo or another session is likely to ask for

    def __init__(
        self,
        bundle: Bundle,
        names: list[str],
        precision: str = "fp32",
        like: OnnxEngine | None = None,
    ) -> None:
        self._graph = AdaptableGraph(bundle.graph("segment", precision), names)
        self._name, self._like = f"{bundle.name}/segment (adapted)", like

    def engine(self, weights: AdaptedWeights) -> OnnxEngine:
        """See `Route`."""
        values = {name: value.cpu().numpy() for name, value in weights.values.items()}
        graph = self._graph.with_weights(values)
        if self._like is not None:
            return self._like.like(graph, self._name)
        return OnnxEngine(graph, self._name, [PROVIDERS["cpu"]], physical_cores())


class TorchRoute:
    """torch runs f with the very tensors that were adapted: nothing is converted."""

    kept = 3

    def __init__(self, model: AdaptableSegment, like: Engine) -> None:
        self._model, self._like = model, like

    def engine(self, weights: AdaptedWeights) -> TorchEngine:
        """See `Route`; float32 arithmetic on the buffers of the model's own engine."""
        outputs = self._like.outputs

        def run(given: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
            values = [given[spec.name] for spec in self._like.inputs]
            return self._model.run(values, weights.values)[: len(outputs)]

        return TorchEngine("segment (torch, adapted)", run, self._like.inputs, outputs,
                           self._model.device)  # fmt: skip


class RefitRoute:
    """TensorRT: the idle one of two engines is refitted from device memory.

    Sessions share the two. A click's weights are put in before it runs, if another session's
    have taken their place in between.

    Args:
        pair: the engines.
        dtypes: of the refitted weights in the graph, see `AdaptableGraph`; the same names every
            time.
    """

    kept = 3

    def __init__(self, pair: RefitPair, dtypes: Mapping[str, np.dtype]) -> None:
        self.pair = pair
        self._dtypes = {
            name: torch.float16 if dtype == np.float16 else torch.float32
            for name, dtype in dtypes.items()
        }

    @classmethod
    def build(cls, bundle: Bundle, segment: TensorRTEngine, names: list[str]) -> RefitRoute:
        """From a bundle's graph, beside the engine that runs: builds what the cache lacks.

        Raises:
            BundleError: the graph has no initialiser of such a name.
            EngineError: the engines cannot be built.
        """
        precision = "fp16" if segment.inputs[0].dtype == np.float16 else "fp32"
        graph = AdaptableGraph(bundle.graph("segment", precision), names)
        pair = load_refit_pair(bundle, segment, graph.serialised(), names)
        return cls(pair, graph.dtypes)

    def engine(self, weights: AdaptedWeights) -> RefittedEngine:
        """See `Route`; the weights are in when this returns."""
        engine = RefittedEngine(self, weights)
        self.engine_with(weights)
        return engine

    def engine_with(self, weights: AdaptedWeights) -> TensorRTEngine:
        """The one of the two that has these weights, see `RefitPair.engine_with`."""
        return self.pair.engine_with(weights, lambda: self._arrays(weights))

    def _arrays(self, weights: AdaptedWeights) -> dict[str, Any]:
        memory, arrays = self.pair.memory, {}
        for name, dtype in self._dtypes.items():
            value = weights.values[name].detach().to(dtype).contiguous()
            arrays[name] = memory.adopt(value) if value.is_cuda else memory.array(value.numpy())
        return arrays


class RefittedEngine:
    """`segment` with certain weights, on whichever of the two engines has them when it runs."""

    def __init__(self, route: RefitRoute, weights: AdaptedWeights) -> None:
        engine = route.pair.engine
        self.inputs: tuple[TensorSpec, ...] = engine.inputs
        self.outputs: tuple[TensorSpec, ...] = engine.outputs
        self.route, self.weights = route, weights

    def output_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """See `Engine`."""
        return self.route.pair.engine.output_shapes(shapes)

    def bind(self, buffers: Mapping[str, Any], stream: int = 0) -> RefittedBinding:
        """See `Engine`."""
        return RefittedBinding(self, dict(buffers), stream)


class RefittedBinding:
    """See `Binding`."""

    def __init__(self, engine: RefittedEngine, buffers: dict[str, Any], stream: int) -> None:
        self._engine, self._buffers, self._stream = engine, buffers, stream
        self._bound: dict[TensorRTEngine, TensorRTBinding] = {}

    def run(self) -> None:
        """See `Binding`."""
        route = self._engine.route
        with route.pair.memory.queueing():
            engine = route.engine_with(self._engine.weights)
            if engine not in self._bound:
                self._bound = {engine: engine.bind(self._buffers, self._stream)}
            self._bound[engine].run()

    def graph_key(self) -> None:
        """See `Binding`: each click has weights of its own, so nothing would be replayed."""
