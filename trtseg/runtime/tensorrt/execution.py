"""Running TensorRT engines: the networks of a bundle on the GPU, over fixed buffers.

An engine is shared by all threads. Each binding owns an execution context, and queues on the
stream of one lane of the engine's `CudaMemory` and computes in that lane's scratch buffer, which
all bindings of the lane share. A lane, and the bindings on it, belong to one thread at a time, so
threads overlap on the GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from trtseg.errors import EngineError
from trtseg.runtime.engine import TensorSpec, check_buffers
from trtseg.runtime.tensorrt.device_memory import ALIGNMENT_BYTES, CudaMemory
from trtseg.runtime.tensorrt.library import TensorRT, collect

Shapes = Mapping[str, tuple[int, ...]]


def deserialize(tensorrt: TensorRT, plan: bytes, name: str) -> tuple[Any, Any]:
    """Load a plan.

    Returns:
        (runtime, engine); the runtime must outlive the engine.

    Raises:
        EngineError: the plan is corrupt, of another TensorRT or another GPU, or there is no GPU.
    """
    with collect() as messages:
        runtime = tensorrt.module.Runtime(tensorrt.logger)
        engine = runtime.deserialize_cuda_engine(plan) if runtime is not None else None
    if engine is None:
        raise EngineError(f"{name}: TensorRT cannot load this engine: {messages.summary()}")
    return runtime, engine


def captures_itself(tensorrt: TensorRT) -> bool:
    """TensorRT for RTX records CUDA graphs of its own, since it compiles as it runs."""
    return hasattr(tensorrt.module, "CudaGraphStrategy")


class TensorRTEngine:
    """One network; see `Engine`.

    Args:
        plan: verified bytes: a plan is executable code.
        name: for messages, such as "lite/segment".
        memory: where the buffers live; bindings queue on its lanes.
        cuda_graphs: where TensorRT records graphs by itself (TensorRT for RTX), let it.

    Raises:
        EngineError: the plan cannot be loaded here.
    """

    def __init__(
        self,
        tensorrt: TensorRT,
        plan: bytes,
        name: str,
        *,
        memory: CudaMemory,
        cuda_graphs: bool = True,
    ) -> None:
        self.name, self.memory = name, memory
        self.cuda_graphs = cuda_graphs
        self.tensorrt = tensorrt
        runtime, engine = deserialize(tensorrt, plan, name)
        # Attributes are released in the order they were set: the engine before its runtime, and
        # in a binding the context before the engine.
        self._engine, self._runtime = engine, runtime
        trt = tensorrt.module
        modes: dict[Any, list[TensorSpec]] = {
            trt.TensorIOMode.INPUT: [],
            trt.TensorIOMode.OUTPUT: [],
        }
        for index in range(self._engine.num_io_tensors):
            tensor = self._engine.get_tensor_name(index)
            shape = tuple(
                None if side == -1 else int(side) for side in self._engine.get_tensor_shape(tensor)
            )
            dtype = np.dtype(trt.nptype(self._engine.get_tensor_dtype(tensor)))
            layout = self._engine.get_tensor_format(tensor)
            spec = TensorSpec(
                tensor, dtype, shape, layout in (trt.TensorFormat.HWC8, trt.TensorFormat.HWC)
            )
            modes[self._engine.get_tensor_mode(tensor)].append(spec)
        self.inputs = tuple(modes[trt.TensorIOMode.INPUT])
        self.outputs = tuple(modes[trt.TensorIOMode.OUTPUT])
        self._profiles = [
            {
                spec.name: tuple(
                    tuple(int(side) for side in bound)
                    for bound in self._engine.get_tensor_profile_shape(spec.name, number)
                )
                for spec in self.inputs
            }
            for number in range(self._engine.num_optimization_profiles)
        ]
        self._shape_lock = threading.Lock()
        self._known_shapes: dict[tuple[Any, ...], dict[str, tuple[int, ...]]] = {}
        # How often weights were replaced: what was recorded before is then stale.
        self.generation = 0

    @property
    def handle(self) -> Any:
        """TensorRT's own engine object."""
        return self._engine

    def smallest_shapes(self) -> dict[str, tuple[int, ...]]:
        """Input shapes of the smallest image that the engine takes."""
        profile = min(
            self._profiles,
            key=lambda ranges: sum(
                int(np.prod(low, dtype=np.int64)) for low, _, _ in ranges.values()
            ),
        )
        return {name: low for name, (low, _, _) in profile.items()}

    def output_shapes(self, shapes: Shapes) -> dict[str, tuple[int, ...]]:
        """See `Engine`."""
        key = tuple(sorted(shapes.items()))
        with self._shape_lock:
            if key not in self._known_shapes:
                context = self.make_context()
                self.set_shapes(context, shapes, self.memory.stream)
                self._known_shapes[key] = {
                    spec.name: tuple(int(s) for s in context.get_tensor_shape(spec.name))
                    for spec in self.outputs
                }
            return dict(self._known_shapes[key])

    def bind(self, buffers: Mapping[str, Any], stream: int = 0) -> TensorRTBinding:
        """See `Engine`; `stream` is one of the lanes of the engine's memory."""
        lane = self.memory.lane_of(stream)
        check_buffers(self.name, (*self.inputs, *self.outputs), buffers)
        for name, array in buffers.items():
            if array.data.ptr % ALIGNMENT_BYTES:
                raise EngineError(
                    f"{self.name}: {name}: its address must be a multiple of {ALIGNMENT_BYTES}"
                )
        return TensorRTBinding(self, dict(buffers), lane)

    def make_context(self) -> Any:
        """A context without scratch of its own.

        Raises:
            EngineError: TensorRT makes none.
        """
        trt = self.tensorrt.module
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        with collect() as messages:
            if captures_itself(self.tensorrt) and self.cuda_graphs:
                config = self._engine.create_runtime_config()
                config.set_execution_context_allocation_strategy(strategy)
                config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
                context = self._engine.create_execution_context(config)
            else:
                context = self._engine.create_execution_context(strategy)
        if context is None:
            raise EngineError(f"{self.name}: no execution context: {messages.summary()}")
        return context

    def choose_profile(self, shapes: Shapes) -> int:
        """The tightest profile that holds these shapes: a static one before a dynamic one.

        Raises:
            EngineError: none does; the message gives the ranges.
        """
        best: tuple[int, int] | None = None
        for number, profile in enumerate(self._profiles):
            fits = all(
                len(low) == len(shapes[name])
                and all(a <= side <= b for a, side, b in zip(low, shapes[name], high, strict=True))
                for name, (low, _, high) in profile.items()
            )
            room = sum(int(np.prod(high, dtype=np.int64)) for _, _, high in profile.values())
            if fits and (best is None or room < best[0]):
                best = (room, number)
        if best is None:
            ranges = "; ".join(
                ", ".join(f"{n} {list(low)} to {list(high)}" for n, (low, _, high) in p.items())
                for p in self._profiles
            )
            got = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            raise EngineError(f"{self.name}: {got} fits no profile of this engine ({ranges})")
        return best[1]

    def set_shapes(self, context: Any, shapes: Shapes, stream: int) -> None:
        """Give a context its profile and input shapes, in the order TensorRT asks for.

        Raises:
            EngineError: a shape does not fit.
        """
        why = ""
        with collect() as messages:
            profile = self.choose_profile(shapes)
            good = context.set_optimization_profile_async(profile, stream) and all(
                context.set_input_shape(spec.name, tuple(shapes[spec.name])) for spec in self.inputs
            )
            try:
                missing = context.infer_shapes() if good else []
            except RuntimeError as error:
                good, missing, why = False, [], str(error)
        if not good or missing:
            if missing:
                why = f"{', '.join(missing)} not given"
            raise EngineError(
                f"{self.name}: the input shapes are refused: {why or messages.summary()}"
            )


class TensorRTBinding:
    """See `Binding`: a context and its buffers."""

    def __init__(self, engine: TensorRTEngine, buffers: dict[str, Any], lane: CudaMemory) -> None:
        self._context = engine.make_context()
        self._engine, self._buffers, self._lane = engine, buffers, lane
        self._scratch_address = -1
        shapes = {spec.name: tuple(buffers[spec.name].shape) for spec in engine.inputs}
        expected = engine.output_shapes(shapes)
        for name, shape in expected.items():
            if tuple(buffers[name].shape) != shape:
                raise EngineError(
                    f"{engine.name}: {name}: expected shape {list(shape)}, "
                    f"got {list(buffers[name].shape)}"
                )
        engine.set_shapes(self._context, shapes, lane.stream)
        for name, array in buffers.items():
            if not self._context.set_tensor_address(name, int(array.data.ptr)):
                raise EngineError(f"{engine.name}: TensorRT refuses the address of {name}")
        with collect() as messages:
            scratch = int(self._context.update_device_memory_size_for_shapes())
        # 0 is also what a network gives that needs none; an error is logged
        if scratch == 0 and messages.errors():
            raise EngineError(
                f"{engine.name}: TensorRT cannot tell how much memory it needs: "
                f"{messages.summary()}"
            )
        lane.reserve_scratch(scratch)

    def run(self) -> None:
        """See `Binding`."""
        lane = self._lane
        with lane.queueing(), collect() as messages:
            if lane.scratch_address != self._scratch_address:
                self._context.set_device_memory(lane.scratch_address, lane.scratch_bytes)
                self._scratch_address = lane.scratch_address
            queued = self._context.execute_async_v3(lane.stream)
        if not queued:
            raise EngineError(f"{self._engine.name}: TensorRT cannot run: {messages.summary()}")

    def layer_times(self) -> list[tuple[str, float]]:
        """Run once, layer by layer; (name, milliseconds) of each, in the order in which they ran.

        Raises:
            EngineError: TensorRT cannot run, or tells no times (as where it captures a CUDA graph
                by itself).
        """
        profiler = layer_clock(self._engine.tensorrt.module)
        self._context.profiler = profiler
        self.run()
        self._lane.synchronize()
        if not profiler.times:
            raise EngineError(f"{self._engine.name}: TensorRT tells no times of its layers")
        return profiler.times

    def graph_key(self) -> Hashable | None:
        """See `Binding`."""
        if captures_itself(self._engine.tensorrt):
            return None
        return self._lane.scratch_address, self._engine.generation


def layer_clock(trt: Any) -> Any:
    """A profiler that keeps what TensorRT reports in `times`."""

    class LayerClock(trt.IProfiler):
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.times: list[tuple[str, float]] = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times.append((layer_name, ms))

    return LayerClock()
