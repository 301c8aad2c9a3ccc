"""Building TensorRT engines from the ONNX graphs of a bundle.

Engines are strongly typed: the precision is the one in the ONNX file, and `precision` here is a
promise that is checked, because a float32 file would otherwise give a float32 engine without a
word. Most of TensorRT's calls fail by returning None; every failure becomes one `EngineError`
that carries what TensorRT recorded.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trtseg.atomic import read_file, write_atomically
from trtseg.errors import EngineError
from trtseg.runtime.engine import Progress, is_channels_last
from trtseg.runtime.tensorrt.build_options import BuildOptions, Precision, Profile, resolve_profile
from trtseg.runtime.tensorrt.build_watch import BuildWatch, make_monitor
from trtseg.runtime.tensorrt.library import Messages, TensorRT, collect, load_tensorrt

_log = logging.getLogger(__name__)

LARGEST_TIMINGS_BYTES = 256 * 2**20
# Builds measure kernels and share the process-wide logger: one at a time.
_one_build = threading.Lock()


class BuildCancelled(EngineError):
    """The build was cancelled through its `cancelled` callback."""


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """A serialized engine and how it came to be.

    Attributes:
        plan: the bytes that TensorRT's runtime loads.
        seconds: parsing and building.
        layers: layers of the parsed network.
        warnings: what TensorRT warned of.
        flavour, version: the TensorRT that built it, and the only one that loads it.
    """

    plan: bytes
    seconds: float
    layers: int
    warnings: tuple[str, ...]
    flavour: str
    version: str


def build_engine(
    onnx: str | Path | bytes,
    profiles: Sequence[Profile] = (),
    *,
    name: str = "",
    options: BuildOptions | None = None,
    target: str | None = None,
    timing_cache: Path | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> BuiltEngine:
    """Build an engine from an ONNX file.

    Args:
        onnx: the graph, as a file or as its bytes (then without external data); its precision
            is the engine's.
        profiles: at least one when an input has dynamic dimensions.
        name: what messages call the graph; the file's name by default.
        options: None for the defaults.
        target: see `load_tensorrt`.
        timing_cache: a file that keeps kernel timings between builds (TensorRT only: TensorRT
            for RTX measures nothing at build time); created when missing.
        progress: called with (fraction from 0 to 1, phase) from the building thread; what it
            raises cancels the build and comes out of this function.
        cancelled: polled at every step; True ends the build.

    Raises:
        ValueError: an option or a profile does not fit the graph.
        BackendUnavailable: no TensorRT can be imported.
        BuildCancelled: `cancelled` returned True.
        EngineError: the graph cannot be parsed or built; TensorRT's messages are in it.
    """
    options = options or BuildOptions()
    if not isinstance(onnx, bytes):
        onnx = Path(onnx)
        if not onnx.is_file():
            raise EngineError(f"{onnx}: no such ONNX file")
        name = name or onnx.name
    tensorrt = load_tensorrt(target)
    watch = BuildWatch(progress, cancelled)
    with _one_build, collect() as messages:
        started = time.perf_counter()
        plan, layers = _build(
            tensorrt, onnx, name, profiles, options, timing_cache, watch, messages
        )
        seconds = time.perf_counter() - started
    return BuiltEngine(
        plan, seconds, layers, tuple(messages.warnings()), tensorrt.flavour, tensorrt.version
    )


def _build(
    tensorrt: TensorRT,
    onnx: Path | bytes,
    name: str,
    profiles: Sequence[Profile],
    options: BuildOptions,
    timing_cache: Path | None,
    watch: BuildWatch,
    messages: Messages,
) -> tuple[bytes, int]:
    trt = tensorrt.module
    builder = trt.Builder(tensorrt.logger)
    if builder is None:
        raise EngineError(f"TensorRT made no builder: {messages.summary()}")
    # Needed by TensorRT 10, where weak typing is the default; harmless on 11.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(tensorrt, network, onnx, name, messages)
    layers = int(network.num_layers)  # now: the build fuses them
    _check_precision(trt, network, name, options.precision)
    _set_layouts(trt, network)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    monitor = make_monitor(trt, watch)
    if monitor is not None:
        config.progress_monitor = monitor
    _set_compatibility(tensorrt, config, options, messages)
    _set_refittable(trt, network, config, options.refittable, messages)
    _add_profiles(builder, network, config, profiles, name, messages)
    timings = _load_timings(tensorrt, config, timing_cache)
    # After the parser, whose errors come from `get_error`: the builder's are what is missing.
    tensorrt.recorder.clear()
    builder.error_recorder = tensorrt.recorder
    memory = builder.build_serialized_network(network, config)
    if watch.failure is not None:
        raise watch.failure
    if watch.stopped:
        raise BuildCancelled(f"{name}: the build was cancelled")
    if memory is None:
        raise EngineError(f"{name}: TensorRT built no engine: {messages.summary()}")
    if timings is not None and timing_cache is not None:
        _save_timings(config, timing_cache)
    return bytes(memory), layers


def _parse(
    tensorrt: TensorRT, network: Any, onnx: Path | bytes, name: str, messages: Messages
) -> None:
    parser = tensorrt.module.OnnxParser(network, tensorrt.logger)
    # A file is not read into memory first, so that external data resolves beside it.
    if parser.parse(onnx) if isinstance(onnx, bytes) else parser.parse_from_file(str(onnx)):
        return
    reasons = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        where = error.node_name() if hasattr(error, "node_name") else ""
        reasons.append(f"{error.desc()}{f' (node {where})' if where else ''}")
    raise EngineError(
        f"{name}: TensorRT cannot parse this graph: {'; '.join(reasons) or messages.summary()}"
    )


def _check_precision(trt: Any, network: Any, name: str, precision: Precision) -> None:
    """A convolution of another type means that the file is not what its name promises."""
    promised = trt.float16 if precision == "fp16" else trt.float32
    kinds = {
        getattr(trt.LayerType, name)
        for name in ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")
        if hasattr(trt.LayerType, name)
    }
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type in kinds and layer.get_output(0).dtype != promised:
            raise EngineError(
                f"{name}: {precision} was promised, but {layer.name} computes in "
                f"{layer.get_output(0).dtype}; TensorRT takes the precision from the ONNX file, "
                f"so export a {precision} graph"
            )


def _set_layouts(trt: Any, network: Any) -> None:
    """Features come in and go out as our kernels have them, so that nothing is reformatted."""
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    tensors += [network.get_output(index) for index in range(network.num_outputs)]
    formats = trt.TensorFormat
    for tensor in tensors:
        if is_channels_last(tensor.name, tuple(tensor.shape)):
            # HWC8 pads channels to a multiple of 8, which they are
            layout = formats.HWC8 if tensor.dtype == trt.float16 else formats.HWC
            tensor.allowed_formats = 1 << int(layout)


def _set_compatibility(
    tensorrt: TensorRT, config: Any, options: BuildOptions, messages: Messages
) -> None:
    trt = tensorrt.module
    if options.hardware_compatibility != "none":
        if tensorrt.flavour == "tensorrt_rtx":
            raise ValueError(
                "hardware_compatibility: TensorRT for RTX ignores it; use compute_capabilities"
            )
        level = getattr(
            trt.HardwareCompatibilityLevel, options.hardware_compatibility.upper(), None
        )
        if level is None:
            raise EngineError(
                f"TensorRT {tensorrt.version} knows no hardware compatibility "
                f"{options.hardware_compatibility!r}"
            )
        config.hardware_compatibility_level = level
    if options.compute_capabilities:
        if not hasattr(config, "set_compute_capability"):
            raise ValueError(
                "compute_capabilities: only TensorRT for RTX builds for a chosen GPU, "
                f"this is {tensorrt.flavour} {tensorrt.version}; build on the GPU itself, or "
                "use --target rtx"
            )
        config.num_compute_capabilities = len(options.compute_capabilities)
        for index, capability in enumerate(options.compute_capabilities):
            wanted = getattr(trt.ComputeCapability, "SM" + capability.replace(".", ""), None)
            if wanted is None or not config.set_compute_capability(wanted, index):
                raise EngineError(
                    f"{tensorrt.flavour} {tensorrt.version} does not build for compute "
                    f"capability {capability}: {messages.summary()}"
                )


def _set_refittable(
    trt: Any,
    network: Any,
    config: Any,
    refittable: Sequence[str] | Literal["all"],
    messages: Messages,
) -> None:
    if not refittable:
        return
    if refittable == "all":
        config.set_flag(trt.BuilderFlag.REFIT)
        return
    if not hasattr(trt.BuilderFlag, "REFIT_INDIVIDUAL"):
        raise EngineError(
            "this TensorRT cannot make single weights refittable (10.9 and newer can); "
            "use refittable='all'"
        )
    config.set_flag(trt.BuilderFlag.REFIT_INDIVIDUAL)
    for weights in refittable:
        if not network.mark_weights_refittable(weights):
            raise EngineError(
                f"the graph has no weights named {weights!r} that can be refitted: "
                f"{messages.summary()}"
            )


def _add_profiles(
    builder: Any,
    network: Any,
    config: Any,
    profiles: Sequence[Profile],
    name: str,
    messages: Messages,
) -> None:
    inputs = {}
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        inputs[tensor.name] = tuple(int(extent) for extent in tensor.shape)
    dynamic = [key for key, shape in inputs.items() if -1 in shape]
    if dynamic and not profiles:
        raise ValueError(
            f"profiles: {name} has dynamic inputs ({', '.join(dynamic)}); give at least one"
        )
    for profile in profiles:
        ranges = resolve_profile(profile, inputs)
        if not dynamic:
            continue  # the shapes were checked; a static graph takes no profile
        entry = builder.create_optimization_profile()
        for input_name, bounds in ranges.items():
            entry.set_shape(input_name, *bounds)
        # set_shape says nothing about a bad range: only this does.
        if config.add_optimization_profile(entry) == -1:
            raise EngineError(
                f"{name}: TensorRT refuses the profile {profile.text()}: {messages.summary()}"
            )


def _load_timings(tensorrt: TensorRT, config: Any, path: Path | None) -> Any:
    if path is None or tensorrt.flavour == "tensorrt_rtx":
        return None
    try:
        known = read_file(path, LARGEST_TIMINGS_BYTES)
    except OSError:
        known = b""
    timings = config.create_timing_cache(known)
    if timings is None or not config.set_timing_cache(timings, False):
        _log.info("timing cache %s is of another GPU or TensorRT; starting a new one", path)
        timings = config.create_timing_cache(b"")
        config.set_timing_cache(timings, False)
    return timings


def _save_timings(config: Any, path: Path) -> None:
    try:
        write_atomically(path, bytes(config.get_timing_cache().serialize()))
    except OSError as error:  # only speeds up later builds
        _log.warning("timing cache %s was not written: %s", path, error)
