"""The networks of one bundle on two backends, side by side: how far apart, and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter

import numpy as np

from trtseg.bundle import Bundle
from trtseg.runtime.engine import Engine, Engines, Memory

WARM_UP = 3


@dataclass(frozen=True)
class Difference:
    """One output of one network, of a layer where they give those, see `with_layers`.

    Attributes:
        graph, output: names.
        shape: of the output.
        largest: absolute difference; NaN where a value is not finite.
        mean: of the absolute differences.
        scale: largest absolute value of the reference.
        ms, reference_ms: medians of one run of the network, its waiting included.
    """

    graph: str
    output: str
    shape: tuple[int, ...]
    largest: float
    mean: float
    scale: float
    ms: float
    reference_ms: float


def compare_graphs(
    bundle: Bundle, engines: Engines, reference: Engines, *, repeats: int = 20
) -> list[Difference]:
    """Run every network on the same random inputs at the model's usual working size.

    Args:
        bundle: the model.
        engines: to be checked.
        reference: to check against.
        repeats: timed runs of each.

    Raises:
        EngineError: a network cannot be run.
    """
    manifest = bundle.manifest
    multiple = manifest.multiple_px
    short = max(1, round(manifest.long_side_px * 3 / 4 / multiple)) * multiple
    working = short, manifest.long_side_px
    grid = tuple(side // manifest.base_stride for side in working)
    found = []
    for role in manifest.graphs:
        ours: Engine = getattr(engines, role)
        theirs: Engine = getattr(reference, role)
        size = working if role == "encoder" else grid
        random = np.random.default_rng(0)
        inputs = {}
        for spec in ours.inputs:
            shape = tuple(side or size[axis - 2] for axis, side in enumerate(spec.shape))
            # guidance and masks lie in [0, 1], images and hidden activations around 0
            values = random.random(shape, np.float32)
            inputs[spec.name] = values if spec.name in ("guidance", "masks") else values * 2 - 1
        got, ms = _run(ours, engines.memory, inputs, repeats)
        wanted, reference_ms = _run(theirs, reference.memory, inputs, repeats)
        for spec in ours.outputs:
            if spec.name not in wanted:
                continue  # a layer that this precision alone has
            difference = np.abs(got[spec.name] - wanted[spec.name])
            found.append(
                Difference(
                    role, spec.name, got[spec.name].shape, float(difference.max()),
                    float(difference.mean()), float(np.abs(wanted[spec.name]).max()), ms,
                    reference_ms,
                )
            )  # fmt: skip
    return found


def _run(
    engine: Engine, memory: Memory, inputs: Mapping[str, np.ndarray], repeats: int
) -> tuple[dict[str, np.ndarray], float]:
    """Outputs as float32, and the median of the milliseconds."""
    shapes = {spec.name: inputs[spec.name].shape for spec in engine.inputs}
    shapes |= engine.output_shapes(shapes)
    buffers = {
        spec.name: spec.empty(memory, shapes[spec.name])
        for spec in (*engine.inputs, *engine.outputs)
    }
    for spec in engine.inputs:
        memory.copy(inputs[spec.name].astype(spec.dtype), buffers[spec.name])
    binding = engine.bind(buffers, memory.stream)
    times = []
    for _ in range(WARM_UP + repeats):
        memory.synchronize()
        start = perf_counter()
        binding.run()
        memory.synchronize()
        times.append((perf_counter() - start) * 1e3)
    outputs = {
        spec.name: memory.host(buffers[spec.name]).astype(np.float32) for spec in engine.outputs
    }
    return outputs, median(times[WARM_UP:])


def with_layers(bundle: Bundle) -> Bundle:
    """A bundle of the same networks, with the output of every layer among theirs.

    It tells which layer is wrong. Engines built of it fuse fewer layers than those of the bundle:
    where every layer is right, the fusion is left to suspect.

    Raises:
        ModuleNotFoundError: onnx is not installed.
    """
    graphs = bundle.manifest.graphs
    files = {
        name: _graph_with_layers(bundle.graph(role, precision))
        for role in graphs
        for precision, name in graphs[role].items()
    }
    return replace(bundle, fingerprint=f"{bundle.fingerprint} with layers", _files=files)


def _graph_with_layers(data: bytes) -> bytes:
    import onnx

    model = onnx.load_model_from_string(data)
    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model).graph
    known = {value.name: value for value in (*inferred.value_info, *graph.output)}
    floats = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    computed = {value.name for value in graph.input}
    layers = []
    for node in graph.node:
        # what does not depend on the inputs are weights and shapes
        if computed.isdisjoint(node.input):
            continue
        for name in node.output:
            value = known.get(name)
            tensor = None if value is None else value.type.tensor_type
            if tensor is not None and tensor.elem_type in floats and len(tensor.shape.dim) >= 2:
                computed.add(name)
                layers.append(value)
    del graph.output[:]
    graph.output.extend(layers)
    return model.SerializeToString()
