"""The networks of a bundle on torch: the pipeline on any GPU that torch knows, without TensorRT.

For measuring and for checking; an editor uses ONNX Runtime or TensorRT.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trtseg.bundle import Bundle, check_manifest
from trtseg.errors import BackendUnavailable, EngineError
from trtseg.nn.manifest import PARAMETERS, manifest_of, parameters_of
from trtseg.nn.network import LatentDiversity
from trtseg.nn.parts import Part, interfaces
from trtseg.runtime.engine import (
    Engines,
    HostMemory,
    Memory,
    TensorSpec,
    Work,
    check_buffers,
    is_channels_last,
)
from trtseg.runtime.segmenter import Segmenter
from trtseg.runtime.tensorrt.device_memory import CudaMemory, load_cupy

Function = Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]]


def load(
    network: LatentDiversity,
    *,
    device: str = "cuda",
    half: bool = True,
    cuda_graphs: bool = True,
) -> Engines:
    """A network as the engines of its bundle.

    Args:
        network: left as it is; a copy runs.
        device: "cpu", "cuda" or "cuda:1".
        half: FP16 weights and buffers; on a CPU that is some 150 times slower.
        cuda_graphs: replay each click, and the encoder, as one CUDA graph.

    Raises:
        BackendUnavailable: torch or CuPy finds no GPU.
    """
    place = torch.device(device)
    memory: Memory
    if place.type == "cuda":
        if not torch.cuda.is_available():
            raise BackendUnavailable("torch finds no GPU")
        memory = CudaMemory(load_cupy(), place.index or 0)
    else:
        memory = HostMemory()
    dtype = torch.float16 if half else torch.float32
    network = copy.deepcopy(network).eval().to(place, dtype)
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    element = np.dtype(np.float16 if half else np.float32)

    def spec(name: str) -> TensorSpec:
        if name == "scores":
            return TensorSpec(name, element, (1, network.config.candidates))
        shape = (1, network.config.channels(name), None, None)
        # the CPU's kernels take C-contiguous maps alone
        last = place.type == "cuda" and is_channels_last(name, shape)
        return TensorSpec(name, element, shape, last)

    engines = {
        role: TorchEngine(
            f"{role} (torch)", _by_name(Part(network, role), interface.inputs),
            list(map(spec, interface.inputs)), list(map(spec, interface.outputs)), place,
        )
        for role, interface in interfaces(network).items()
    }  # fmt: skip
    version = torch.__version__.partition("+")[0]
    recorder = record_cuda_graph if cuda_graphs and place.type == "cuda" else None
    return Engines(
        description=f"torch {version} on {_name(place)}, {'fp16' if half else 'fp32'}"
        f", channels last{', CUDA graphs' if recorder else ''}",
        memory=memory,
        encoder=engines.get("encoder"),
        segment=engines["segment"],
        select=engines.get("select"),
        recorder=recorder,
    )


def _by_name(part: Part, names: Sequence[str]) -> Function:
    return lambda given: part([given[name] for name in names])


def segmenter(network: LatentDiversity, **options: Any) -> Segmenter:
    """The runtime over a network as it is: what a bundle of it would show, without an export.

    Args:
        network: left as it is; a copy runs.
        options: of `load`.

    Raises:
        As `load`; EngineError where the network does not give what a bundle's has to.
    """
    engines = load(network, **options)
    roles = [role for role in ("encoder", "segment", "select") if getattr(engines, role)]
    raw = {
        **manifest_of(network, "network"),
        # the engines are there already: no graph is ever read
        "graphs": {role: {"fp32": f"{role}.onnx"} for role in roles},
    }
    files = dict.fromkeys((PARAMETERS, *(f"{role}.onnx" for role in roles)), b"")
    manifest = check_manifest("network", raw, files)
    fingerprint = f"network {id(engines)}"
    bundle = Bundle(Path("network"), manifest, parameters_of(network), fingerprint, files)
    return Segmenter(bundle, engines)


# cuDNN's workspace, torch's allocator and a capture belong to one thread at a time.
_one_capture = threading.RLock()


def record_cuda_graph(memory: Memory, work: Work) -> Work:
    """See `trtseg.runtime.engine.Recorder`: through torch, whose allocator then keeps what the
    networks allocate inside the graph for the graph alone.

    Raises:
        EngineError: something in `work` cannot be captured.
    """
    assert isinstance(memory, CudaMemory)
    stream = torch.cuda.ExternalStream(memory.stream, memory.index)
    graph = torch.cuda.CUDAGraph()
    before = torch.cuda.current_stream(memory.index)
    try:
        with _one_capture:
            # cuDNN searches its algorithms once a thread, and a search cannot be captured
            with torch.cuda.stream(stream):
                work()
            stream.synchronize()
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                work()
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        raise EngineError(f"a CUDA graph cannot be recorded: {first}") from error
    finally:
        # ending a capture that failed raises before torch leaves the captured stream
        torch.cuda.set_stream(before)

    def replay() -> None:
        with torch.cuda.stream(stream):
            graph.replay()

    return replay


class TorchEngine:
    """One network; see `Engine`.

    Args:
        name: for messages.
        function: input tensors by name to the outputs, in their order; its weights are ready, or
            queued on torch's current stream.
        inputs, outputs: of the buffers; what the function gives is converted to them.
        device: where it runs.
    """

    def __init__(
        self,
        name: str,
        function: Function,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        device: torch.device,
    ) -> None:
        self.name, self.inputs, self.outputs = name, tuple(inputs), tuple(outputs)
        self.device = device
        self._shape_lock = threading.Lock()
        self._function = function
        self._shapes: dict[tuple[Any, ...], dict[str, tuple[int, ...]]] = {}
        if device.type == "cuda":
            # lanes wait for no other stream, and would read weights that are still being written
            torch.cuda.current_stream(device).synchronize()

    def output_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """See `Engine`; runs the network once on zeros for a size it has not seen."""
        key = tuple(sorted(shapes.items()))
        with self._shape_lock:
            if key not in self._shapes:
                dtype = torch.float16 if self.inputs[0].dtype == np.float16 else torch.float32
                zeros = {
                    name: torch.zeros(shape, device=self.device, dtype=dtype)
                    for name, shape in shapes.items()
                }
                results = self.compute(zeros)
                self._shapes[key] = {
                    spec.name: tuple(result.shape)
                    for spec, result in zip(self.outputs, results, strict=True)
                }
            return dict(self._shapes[key])

    def bind(self, buffers: Mapping[str, Any], stream: int = 0) -> TorchBinding:
        """See `Engine`."""
        check_buffers(self.name, (*self.inputs, *self.outputs), buffers)
        return TorchBinding(self, buffers, stream)

    def compute(self, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run on tensors."""
        # the fastest algorithm for each size, and fp32 is fp32: no TF32
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            layout = torch.channels_last
            return self._function(
                {name: value.contiguous(memory_format=layout) for name, value in given.items()}
            )


class TorchBinding:
    """See `Binding`; copies between the caller's buffers and torch's are part of a run."""

    def __init__(self, engine: TorchEngine, buffers: Mapping[str, Any], stream: int) -> None:
        self._engine, self._stream = engine, stream
        self._keep = dict(buffers)
        tensors = {name: _as_tensor(array) for name, array in buffers.items()}
        self._inputs = {spec.name: tensors[spec.name] for spec in engine.inputs}
        self._outputs = [tensors[spec.name] for spec in engine.outputs]

    def run(self) -> None:
        """See `Binding`."""
        with self._on_stream():
            try:
                results = self._engine.compute(self._inputs)
                for out, result in zip(self._outputs, results, strict=True):
                    out.copy_(result)
            except RuntimeError as error:  # torch.cuda.OutOfMemoryError among them
                first = str(error).partition("\n")[0]
                raise EngineError(f"{self._engine.name}: {first}") from error

    def graph_key(self) -> Hashable | None:
        """See `Binding`: nothing but the buffers and the weights is baked in."""
        return ()

    def _on_stream(self) -> AbstractContextManager[Any]:
        if self._engine.device.type != "cuda":
            return nullcontext()
        return torch.cuda.stream(torch.cuda.ExternalStream(self._stream, self._engine.device))


def _as_tensor(array: Any) -> Tensor:
    return torch.from_numpy(array) if isinstance(array, np.ndarray) else torch.from_dlpack(array)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
