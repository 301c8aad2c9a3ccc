"""The networks on ONNX Runtime: the CPU by default, its GPU providers where they are installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np
import onnxruntime

from trtseg.bundle import Bundle
from trtseg.errors import BackendUnavailable, EngineError
from trtseg.machine import physical_cores
from trtseg.parse import short
from trtseg.runtime.engine import (
    Availability,
    Engines,
    HostMemory,
    Progress,
    TensorSpec,
    check_buffers,
)
from trtseg.runtime.onnxruntime import rtx_provider, symbolic_shapes
from trtseg.runtime.onnxruntime.interruption import interruptible

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
}
# Of host memory for all weights and intermediate arrays of a process: far beyond what networks take
# at their working sizes, and less than fills a machine. A graph may make much of little.
LARGEST_BYTES = 4 * 2**30
_DTYPES: dict[str, np.dtype] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
}


def availability() -> Availability:
    """ONNX Runtime is a dependency: it is always there, with the providers named."""
    have = [name for name, p in PROVIDERS.items() if p in onnxruntime.get_available_providers()]
    if "tensorrt-rtx" not in have and rtx_provider.installed():
        have.append("tensorrt-rtx (its plugin is installed)")
    return Availability(True, f"ONNX Runtime {onnxruntime.__version__} for {', '.join(have)}")


def load(
    bundle: Bundle,
    *,
    device: str | None = None,
    threads: int | None = None,
    precision: str | None = None,
    progress: Progress | None = None,
) -> Engines:
    """Load a bundle's networks.

    Args:
        bundle: the model.
        device: "cpu" (default), "cuda", "tensorrt" or "tensorrt-rtx"; ":1" chooses the second GPU.
        threads: of the CPU; `physical_cores()` by default.
        precision: "fp32" or "fp16"; by default fp32 on the CPU, fp16 on a GPU if the bundle has it.
        progress: has no meaning here; providers that build engines do not tell how far they are.

    Raises:
        ValueError: no such device, or more threads than ONNX Runtime can count.
        BackendUnavailable: the installed ONNX Runtime lacks that provider.
        EngineError: a graph could not be loaded or its inputs and outputs are not as agreed.
    """
    del progress
    if threads is not None and threads >= 2**31:
        raise ValueError(f"threads: expected less than 2**31, got {threads}")
    kind, _, index = ("cpu" if device is None else device).partition(":")
    if kind not in PROVIDERS or not (index or "0").isdigit():
        raise ValueError(f"device: expected {', '.join(PROVIDERS)} [:index], got {device!r}")
    provider = PROVIDERS[kind]
    have = onnxruntime.get_available_providers()
    plugin = None
    if kind == "tensorrt-rtx" and (provider not in have or rtx_provider.installed()):
        plugin = rtx_provider.device(int(index or 0))
    elif provider not in have:
        raise BackendUnavailable(
            f"device {kind}: this ONNX Runtime has no {provider} (it has {', '.join(have)})"
        )
    if precision is None:
        both = all("fp16" in bundle.precisions(role) for role in bundle.manifest.graphs)
        precision = "fp16" if kind != "cpu" and both else "fp32"
    providers: list[Any] = [provider]
    if kind != "cpu":
        providers = [(provider, {"device_id": index or "0"}), PROVIDERS["cpu"]]

    def engine(role: str) -> OnnxEngine | None:
        if role not in bundle.manifest.graphs:
            return None
        graph = bundle.graph(role, precision)
        name = f"{bundle.name}/{role}"
        return OnnxEngine(graph, name, providers, threads or physical_cores(), plugin)

    segment = engine("segment")
    if segment is None:
        raise EngineError(f"{bundle.path}: no segment graph")
    return Engines(
        description=f"ONNX Runtime {onnxruntime.__version__} on {device or 'cpu'}, {precision}",
        memory=HostMemory(),
        encoder=engine("encoder"),
        segment=segment,
        select=engine("select"),
    )


@cache
def _limit_memory() -> None:
    """Make the arena that all engines share."""
    kinds = onnxruntime.OrtAllocatorType, onnxruntime.OrtMemType
    place = onnxruntime.OrtMemoryInfo("Cpu", kinds[0].ORT_ARENA_ALLOCATOR, 0, kinds[1].DEFAULT)
    limit = onnxruntime.OrtArenaCfg({"max_mem": LARGEST_BYTES})
    with suppress(RuntimeError):  # the program has one of its own: then that is the limit
        onnxruntime.create_and_register_allocator(place, limit)


class OnnxEngine:
    """One graph; threads share it, each with bindings of its own."""

    def __init__(
        self, graph: bytes, name: str, providers: list[Any], threads: int = 1,
        plugin: Any = None,
    ) -> None:
        _limit_memory()
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # The networks run in turn: a pool that kept spinning after its turn would slow the next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Never its own format, which is not checked for what it holds.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        self.name, self._how = name, (providers, threads, plugin)
        self._on_cpu = providers == [PROVIDERS["cpu"]]
        try:
            chosen = {"providers": providers}
            if plugin is not None:
                options.add_provider_for_devices([plugin], {})
                chosen = {}
            # Constants of constants are computed in runs, which can be stopped; loading cannot. And
            # who cannot load is told: ONNX Runtime would print it and try other providers.
            self._session = onnxruntime.InferenceSession(
                graph, options, disabled_optimizers=["ConstantFolding"], enable_fallback=0, **chosen
            )
        except Exception as error:  # ONNX Runtime's exceptions share no narrower base
            raise EngineError(f"{name}: cannot be loaded: {_first_line(error)}") from error
        # With providers that fall back silently, say so rather than run ten times slower.
        first = providers[0] if isinstance(providers[0], str) else providers[0][0]
        if first not in self._session.get_providers():
            raise EngineError(f"{name}: {first} refused to start; see ONNX Runtime's log")
        self.inputs = tuple(map(self._spec, self._session.get_inputs()))
        self.outputs = tuple(map(self._spec, self._session.get_outputs()))
        self._shapes: dict[tuple, dict[str, tuple[int, ...]]] = {}

    def like(self, graph: bytes, name: str) -> OnnxEngine:
        """Another graph on the same device with as many threads."""
        return OnnxEngine(graph, name, *self._how)

    def _spec(self, node: onnxruntime.NodeArg) -> TensorSpec:
        if node.type not in _DTYPES:
            raise EngineError(f"{self.name}: {node.name}: unexpected type {node.type}")
        shape = tuple(side if isinstance(side, int) else None for side in node.shape)
        return TensorSpec(node.name, _DTYPES[node.type], shape)

    def output_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """See `Engine`; runs the network once on zeros only where the graph leaves a side open."""
        key = tuple(sorted(shapes.items()))
        if key not in self._shapes:
            known = symbolic_shapes.resolve(
                {node.name: node.shape for node in self._session.get_inputs()},
                {node.name: node.shape for node in self._session.get_outputs()},
                shapes,
            )
            if known is not None:
                self._shapes[key] = known
                return dict(known)
            feeds = {s.name: np.zeros(shapes[s.name], s.dtype) for s in self.inputs}
            results = self.run(lambda options: self._session.run(None, feeds, options))
            self._shapes[key] = {
                spec.name: result.shape for spec, result in zip(self.outputs, results, strict=True)
            }
        return dict(self._shapes[key])

    def run(self, call: Callable[[onnxruntime.RunOptions], Any]) -> Any:
        """What a run with the options that it is given gives.

        Raises:
            EngineError: it failed.
            KeyboardInterrupt: it was stopped.
        """
        try:
            return interruptible(call)
        except Exception as error:
            raise EngineError(f"{self.name}: {_first_line(error)}") from error

    def bind(self, buffers: Mapping[str, np.ndarray], stream: int = 0) -> OnnxBinding:
        """See `Engine`."""
        del stream
        check_buffers(self.name, (*self.inputs, *self.outputs), buffers)
        return OnnxBinding(self._session, self, dict(buffers), self._on_cpu)


class OnnxBinding:
    """See `Binding`; reads and writes the NumPy buffers in place."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        engine: OnnxEngine,
        buffers: dict[str, np.ndarray],
        on_cpu: bool,
    ) -> None:
        self._session, self._engine, self._buffers = session, engine, buffers
        self._on_cpu = on_cpu
        self._binding = session.io_binding()
        self._bind_inputs()
        for spec in engine.outputs:
            array = buffers[spec.name]
            self._binding.bind_output(
                spec.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data
            )

    def _bind_inputs(self) -> None:
        for spec in self._engine.inputs:
            array = self._buffers[spec.name]
            self._binding.bind_input(
                spec.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data
            )

    def run(self) -> None:
        """See `Binding`."""
        self._engine.run(self._run)

    def _run(self, options: onnxruntime.RunOptions) -> None:
        if not self._on_cpu:
            self._bind_inputs()  # a GPU provider copies its inputs at the moment of binding
        self._session.run_with_iobinding(self._binding, options)

    def graph_key(self) -> None:
        """See `Binding`: nothing is queued here."""


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return short(text.splitlines()[0], 400) if text else type(error).__name__
