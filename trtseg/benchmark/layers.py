"""Where a network's time goes, layer by layer, as ONNX Runtime and TensorRT tell it."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from trtseg.runtime.engine import Engine

if TYPE_CHECKING:
    from trtseg.runtime.tensorrt.execution import TensorRTEngine

WARM_UP = 3


def onnxruntime_layers(
    graph: bytes,
    engine: Engine,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    providers: list[Any],
    threads: int,
    repeats: int,
) -> list[tuple[str, str, float]]:
    """(node, operator, median milliseconds) in the order in which they run.

    Args:
        graph: the serialised graph of `engine`.
        engine: whose inputs are filled with zeros; it is not run.
        shapes: of the inputs.
        providers: as ONNX Runtime names them.
        threads: of the CPU.
        repeats: profiled runs.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_profiling = True
    feeds = {spec.name: np.zeros(shapes[spec.name], spec.dtype) for spec in engine.inputs}
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(graph, options, providers=providers)
        for _ in range(WARM_UP + repeats):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text())
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        name = event["name"].removesuffix("_kernel_time")
        if event.get("cat") == "Node" and name != event["name"]:
            times[name, event["args"]["op_name"]].append(event["dur"] / 1e3)
    return [(*node, median(values[WARM_UP:])) for node, values in times.items()]


def tensorrt_layers(
    engine: TensorRTEngine, shapes: Mapping[str, tuple[int, ...]], *, repeats: int
) -> list[tuple[str, str, float]]:
    """(layer, "", median milliseconds) in the order in which they run.

    A layer is what TensorRT made of several nodes. Each is waited for: their sum is more than the
    network takes at once.

    Args:
        engine: its inputs are zeros.
        shapes: of the inputs.
        repeats: profiled runs.

    Raises:
        EngineError: TensorRT cannot run, or tells no times.
    """
    memory = engine.memory
    every = {**shapes, **engine.output_shapes(shapes)}
    buffers = {
        spec.name: spec.empty(memory, every[spec.name])
        for spec in (*engine.inputs, *engine.outputs)
    }
    for spec in engine.inputs:
        memory.copy(np.zeros(shapes[spec.name], spec.dtype), buffers[spec.name])
    binding = engine.bind(buffers, memory.stream)
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(WARM_UP + repeats):
        for layer, ms in binding.layer_times():
            times[layer].append(ms)
    return [(layer, "", median(values[WARM_UP:])) for layer, values in times.items()]
