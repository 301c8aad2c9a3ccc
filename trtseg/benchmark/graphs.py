"""The networks of one bundle on two backends, side by side: how far apart, and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np

from trtseg.bundle import Bundle
from trtseg.runtime.engine import Engine, Engines, Memory

WARM_UP = 3


@dataclass(frozen=True)
class Difference:
    """One output of one network.

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
