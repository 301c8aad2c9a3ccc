"""As much of TensorRT's Python interface as the runtime uses, computing with ONNX Runtime.

It enforces the order of calls, the alignment and the failures-by-None of the real one, so that
everything around the GPU can be tested without one. A "plan" is the graph and its profiles.
As long as the interface that the runtime uses.
"""

from __future__ import annotations

import ctypes
import enum
import importlib.machinery
import pickle
import types
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from tensorrt_fixture import fake_cupy

SCRATCH_PER_ELEMENT = 4
_MAGIC = b"FAKEPLAN"


def make(version: str = "11.4.0", flavour: str = "tensorrt", *, own_graphs: bool = False):
    """A module that can stand for `tensorrt` or `tensorrt_rtx`."""
    trt = types.ModuleType(flavour)
    trt.__version__, trt.__spec__ = version, importlib.machinery.ModuleSpec(flavour, None)
    trt.calls = []  # (what, value), for tests to look at
    trt.fail_execution = False
    trt.fail_shapes = trt.fail_scratch = False
    trt.timed_layers = ("conv + relu", "head")

    class ILogger:
        class Severity(enum.IntEnum):
            INTERNAL_ERROR = 0
            ERROR = 1
            WARNING = 2
            INFO = 3
            VERBOSE = 4

    def say(logger, text: str) -> None:
        logger.log(ILogger.Severity.ERROR, text)

    class DataType(enum.Enum):
        FLOAT = 0
        HALF = 1

    class TensorFormat(enum.IntEnum):
        LINEAR = 0
        HWC8 = 4
        HWC = 8

    kinds = {np.dtype(np.float32): DataType.FLOAT, np.dtype(np.float16): DataType.HALF}
    dtypes = {kind: dtype for dtype, kind in kinds.items()}

    class Empty:
        pass

    class Tensor:
        def __init__(self, name: str, dtype: DataType, shape: tuple[int, ...]) -> None:
            self.name, self.dtype, self.shape = name, dtype, shape
            self.allowed_formats = 1 << TensorFormat.LINEAR

    class Layer:
        def __init__(self, node: onnx.NodeProto, kind: object, dtype: DataType) -> None:
            self.name, self.type, self._dtype = node.name, kind, dtype

        def get_output(self, index: int) -> Tensor:
            return Tensor("", self._dtype, ())

    class LayerType(enum.Enum):
        CONVOLUTION = 0
        OTHER = 1

    class Network:
        def __init__(self) -> None:
            self.onnx = b""
            self.inputs: list[Tensor] = []
            self.outputs: list[Tensor] = []
            self.layers: list[Layer] = []
            self.weights: set[str] = set()
            self.refittable: set[str] = set()

        num_inputs = property(lambda self: len(self.inputs))
        num_outputs = property(lambda self: len(self.outputs))
        num_layers = property(lambda self: len(self.layers))

        def get_input(self, index: int) -> Tensor:
            return self.inputs[index]

        def get_output(self, index: int) -> Tensor:
            return self.outputs[index]

        def get_layer(self, index: int) -> Layer:
            return self.layers[index]

        def mark_weights_refittable(self, name: str) -> bool:
            self.refittable.add(name)
            return name in self.weights

    class OnnxParser:
        num_errors = 0

        def __init__(self, network: Network, logger: object) -> None:
            self._network = network

        def parse_from_file(self, path: str) -> bool:
            return self.parse(Path(path).read_bytes())

        def parse(self, data: bytes) -> bool:
            model = onnx.load_model_from_string(data)
            network = self._network
            network.onnx = data
            network.weights = {weight.name for weight in model.graph.initializer}
            types_ = {w.name: numpy_helper.to_array(w).dtype for w in model.graph.initializer}
            for values, tensors in (
                (model.graph.input, network.inputs),
                (model.graph.output, network.outputs),
            ):
                for value in values:
                    tensor = value.type.tensor_type
                    kind = DataType.HALF if tensor.elem_type == 10 else DataType.FLOAT
                    shape = tuple(d.dim_value or -1 for d in tensor.shape.dim)
                    tensors.append(Tensor(value.name, kind, shape))
            for node in model.graph.node:
                if node.op_type == "Cast":
                    to = onnx.helper.tensor_dtype_to_np_dtype(node.attribute[0].i)
                    types_[node.output[0]] = to
                convolution = node.op_type == "Conv"
                dtype = types_[node.input[1]] if convolution else np.dtype(np.float16)
                kind = LayerType.CONVOLUTION if convolution else LayerType.OTHER
                network.layers.append(Layer(node, kind, kinds[dtype]))
            return True

    class Profile:
        def __init__(self) -> None:
            self.shapes: dict[str, tuple] = {}

        def set_shape(self, name: str, low, best, high) -> None:
            self.shapes[name] = (tuple(low), tuple(best), tuple(high))

    class TimingCache:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def serialize(self) -> bytes:
            return self.data + b"t"

    class Config:
        def __init__(self) -> None:
            self.profiles: list[Profile] = []
            self.flags: list[object] = []
            self.hardware_compatibility_level = None
            self.timing: TimingCache | None = None

        def set_memory_pool_limit(self, pool: object, size: int) -> None:
            trt.calls.append(("workspace", size))

        def set_flag(self, flag: object) -> None:
            self.flags.append(flag)

        def add_optimization_profile(self, profile: Profile) -> int:
            self.profiles.append(profile)
            return len(self.profiles) - 1

        def create_timing_cache(self, data: bytes) -> TimingCache | None:
            return TimingCache(data) if not data or data.startswith(b"t") else None

        def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
            self.timing = cache
            return True

        def get_timing_cache(self) -> TimingCache | None:
            return self.timing

    class Builder:
        def __init__(self, logger: object) -> None:
            self.logger = logger

        def create_network(self, flags: int) -> Network:
            assert flags == 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED)
            return Network()

        def create_builder_config(self) -> Config:
            return Config()

        def create_optimization_profile(self) -> Profile:
            return Profile()

        def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
            trt.calls.append(("build", config))
            monitor = getattr(config, "progress_monitor", None)
            if monitor is not None:
                monitor.phase_start("Building", None, 2)
                for step in range(2):
                    if not monitor.step_complete("Building", step):
                        return None
                monitor.phase_finish("Building")
            profiles = [profile.shapes for profile in config.profiles] or [
                {t.name: (t.shape,) * 3 for t in network.inputs}
            ]
            every = any(flag is BuilderFlag.REFIT for flag in config.flags)
            refittable = network.weights if every else network.refittable
            formats = {}
            for tensor in (*network.inputs, *network.outputs):
                (only,) = (f for f in TensorFormat if tensor.allowed_formats == 1 << f)
                bound = {TensorFormat.HWC8: DataType.HALF, TensorFormat.HWC: DataType.FLOAT}
                assert bound.get(only, tensor.dtype) is tensor.dtype, "a format is bound to a type"
                formats[tensor.name] = int(only)
            return _MAGIC + pickle.dumps((network.onnx, profiles, sorted(refittable), formats))

    class NetworkDefinitionCreationFlag(enum.IntEnum):
        STRONGLY_TYPED = 1

    class BuilderFlag(enum.Enum):
        REFIT = 0
        REFIT_INDIVIDUAL = 1

    class HardwareCompatibilityLevel(enum.Enum):
        NONE = 0
        AMPERE_PLUS = 1

    class MemoryPoolType(enum.Enum):
        WORKSPACE = 0

    class TensorIOMode(enum.Enum):
        INPUT = 0
        OUTPUT = 1

    class ExecutionContextAllocationStrategy(enum.Enum):
        USER_MANAGED = 2

    class TensorLocation(enum.Enum):
        DEVICE = 0

    class Runtime:
        def __init__(self, logger: object) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            if not plan.startswith(_MAGIC):
                say(self._logger, "the plan's magic tag does not match")
                return None
            return Engine(*pickle.loads(plan[len(_MAGIC) :]), self._logger)

    class Engine:
        def __init__(
            self, data: bytes, profiles: list, refittable: list, formats: dict, logger
        ) -> None:
            self.logger, self.profiles, self.refittable = logger, profiles, refittable
            self.formats = formats
            self.model = onnx.load_model_from_string(data)
            self.start()
            self.inputs = [node.name for node in self.session.get_inputs()]
            outputs = [node.name for node in self.session.get_outputs()]
            self.names = self.inputs + outputs

        def start(self) -> None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self.session = onnxruntime.InferenceSession(
                self.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            nodes = [*self.session.get_inputs(), *self.session.get_outputs()]
            self.nodes = {node.name: node for node in nodes}

        num_io_tensors = property(lambda self: len(self.names))
        num_optimization_profiles = property(lambda self: len(self.profiles))

        def get_tensor_name(self, index: int) -> str:
            return self.names[index]

        def get_tensor_mode(self, name: str) -> TensorIOMode:
            return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return tuple(s if isinstance(s, int) else -1 for s in self.nodes[name].shape)

        def get_tensor_format(self, name: str) -> TensorFormat:
            return TensorFormat(self.formats[name])

        def get_tensor_dtype(self, name: str) -> DataType:
            half = self.nodes[name].type == "tensor(float16)"
            return DataType.HALF if half else DataType.FLOAT

        def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
            return list(self.profiles[index][name])

        def create_runtime_config(self) -> RuntimeConfig:
            return RuntimeConfig()

        def create_execution_context(self, how: object) -> Context:
            strategy = how.strategy if isinstance(how, RuntimeConfig) else how
            assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
            trt.calls.append(("context", how))
            return Context(self)

    class RuntimeConfig:
        cuda_graph_strategy = None
        strategy: object = None

        def set_execution_context_allocation_strategy(self, strategy: object) -> None:
            self.strategy = strategy

    class Context:
        def __init__(self, engine: Engine) -> None:
            self.engine = engine
            self.profile: dict | None = None
            self.shapes: dict[str, tuple[int, ...]] = {}
            self.addresses: dict[str, int] = {}
            self.scratch = (0, 0)
            self.profiler = None

        def set_optimization_profile_async(self, index: int, stream: int) -> bool:
            self.profile = self.engine.profiles[index]
            return True

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            assert self.profile is not None, "shapes come after the profile"
            low, _, high = self.profile[name]
            good = all(a <= s <= b for a, s, b in zip(low, shape, high, strict=True))
            if good:
                self.shapes[name] = tuple(shape)
            else:
                say(self.engine.logger, f"{name}: {shape} is outside of the profile")
            return good

        def infer_shapes(self) -> list[str]:
            if trt.fail_shapes:
                raise RuntimeError("shape inference failed")
            return [name for name in self.engine.inputs if name not in self.shapes]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            if name in self.shapes:
                return self.shapes[name]
            return self._results_on_zeros()[name].shape

        def set_tensor_address(self, name: str, address: int) -> bool:
            assert address % 256 == 0
            self.addresses[name] = address
            return name in self.engine.names

        def update_device_memory_size_for_shapes(self) -> int:
            if trt.fail_scratch:
                say(self.engine.logger, "the partition is invalid")
                return 0
            return SCRATCH_PER_ELEMENT * sum(int(np.prod(s)) for s in self.shapes.values())

        def set_device_memory(self, address: int, size: int) -> None:
            assert size >= self.update_device_memory_size_for_shapes()
            self.scratch = (address, size)

        def execute_async_v3(self, stream: int) -> bool:
            if trt.fail_execution:
                say(self.engine.logger, "CUDA error 700: an illegal address was accessed")
                return False
            assert self.scratch[1] >= self.update_device_memory_size_for_shapes()
            assert set(self.addresses) == set(self.engine.names)
            trt.calls.append(("run", (self, stream, self.scratch[0])))
            if self.profiler is not None:
                for name in trt.timed_layers:
                    self.profiler.report_layer_time(name, 0.25)
            addresses, shapes, scratch = dict(self.addresses), dict(self.shapes), self.scratch
            session = self.engine.session  # what is queued, or recorded, keeps its weights
            fake_cupy.streams[stream].queue(
                lambda: self._run(session, addresses, shapes, scratch)
            )
            return True

        def _run(self, session, addresses, shapes, scratch) -> None:
            # Every byte of the scratch is overwritten, as kernels would.
            ctypes.memset(scratch[0], 0xFF, scratch[1])
            engine = self.engine
            feeds = {name: self._view(addresses, name, shapes[name]) for name in engine.inputs}
            names = engine.names[len(engine.inputs) :]
            for name, values in zip(names, session.run(names, feeds), strict=True):
                self._view(addresses, name, values.shape)[...] = values

        def _results_on_zeros(self) -> dict[str, np.ndarray]:
            names = self.engine.names[len(self.engine.inputs) :]
            feeds = {
                name: np.zeros(shape, dtypes[self.engine.get_tensor_dtype(name)])
                for name, shape in self.shapes.items()
            }
            return dict(zip(names, self.engine.session.run(names, feeds), strict=True))

        def _view(self, addresses, name: str, shape: tuple[int, ...]) -> np.ndarray:
            dtype = dtypes[self.engine.get_tensor_dtype(name)]
            size = int(np.prod(shape)) * dtype.itemsize
            buffer = (ctypes.c_uint8 * size).from_address(addresses[name])
            values = np.frombuffer(buffer, dtype)
            if self.engine.formats[name] == TensorFormat.LINEAR:
                return values.reshape(shape)
            n, c, h, w = shape
            assert c % 8 == 0, "channels are padded to a multiple of 8, for which there is no room"
            return values.reshape(n, h, w, c).transpose(0, 3, 1, 2)

    class Weights:
        def __init__(self, kind: DataType, address: int, count: int) -> None:
            self.kind, self.address, self.count = kind, address, count

    class Refitter:
        fail = False

        def __init__(self, engine: Engine, logger: object) -> None:
            self._engine, self._given = engine, {}

        def set_named_weights(self, name: str, weights: Weights, location: object) -> bool:
            assert location is TensorLocation.DEVICE
            found = {w.name: w for w in self._engine.model.graph.initializer}.get(name)
            if name not in self._engine.refittable or found is None:
                say(self._engine.logger, f"{name} cannot be refitted")
                return False
            old = numpy_helper.to_array(found)
            if kinds[old.dtype] is not weights.kind or old.size != weights.count:
                say(self._engine.logger, f"{name}: count or type differs")
                return False
            self._given[name] = weights
            return True

        def get_missing_weights(self) -> list[str]:
            return []

        def refit_cuda_engine_async(self, stream: int) -> bool:
            if trt.fail_refit:
                say(self._engine.logger, "the refit broke off")
                return False
            for initializer in self._engine.model.graph.initializer:
                weights = self._given.get(initializer.name)
                if weights is not None:
                    old = numpy_helper.to_array(initializer)
                    buffer = (ctypes.c_uint8 * old.nbytes).from_address(weights.address)
                    new = np.frombuffer(buffer, old.dtype).reshape(old.shape)
                    initializer.CopyFrom(numpy_helper.from_array(new.copy(), initializer.name))
            self._engine.start()
            return True

    trt.fail_refit = False
    for item in (
        ILogger, DataType, TensorFormat, LayerType, OnnxParser, Builder,
        NetworkDefinitionCreationFlag, BuilderFlag, HardwareCompatibilityLevel, MemoryPoolType,
        TensorIOMode, ExecutionContextAllocationStrategy, TensorLocation, Runtime,
        Weights, Refitter,
    ):  # fmt: skip
        setattr(trt, item.__name__, item)
    trt.IErrorRecorder = trt.IProgressMonitor = trt.IProfiler = Empty
    ILogger.__init__ = lambda self: None
    trt.float16, trt.float32 = DataType.HALF, DataType.FLOAT
    trt.nptype = dtypes.__getitem__
    if own_graphs:
        trt.CudaGraphStrategy = enum.Enum("CudaGraphStrategy", ["WHOLE_GRAPH_CAPTURE"])
    return trt
