"""Where a network's time goes, node by node, as ONNX Runtime profiles it."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime

from trtseg.runtime.engine import Engine

WARM_UP = 3


def profile_layers(
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
