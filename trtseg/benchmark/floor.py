"""The time below which no implementation can get: the arithmetic over the device's own speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from trtseg.bundle import Bundle
from trtseg.runtime.engine import Engine, Memory


@dataclass(frozen=True)
class Speed:
    """What the device does on its best day, as measured here.

    Attributes:
        copy_gb_s: bytes read and written per second by a large copy.
        matrix_tflop_s: of a large square matrix product in the networks' precision.
    """

    copy_gb_s: float
    matrix_tflop_s: float


@dataclass(frozen=True)
class Work:
    """What a network must do at one size.

    Attributes:
        gflop: two per multiplication in convolutions and matrix products.
        mib: weights, inputs and outputs once; what lies between may stay on the chip.
    """

    gflop: float
    mib: float

    def floor_ms(self, speed: Speed) -> float:
        """The larger of arithmetic and memory time."""
        arithmetic = self.gflop / (speed.matrix_tflop_s * 1e3)
        transfer = self.mib * 2**20 / (speed.copy_gb_s * 1e9)
        return 1e3 * max(arithmetic, transfer)


def measure_speed(memory: Memory, dtype: np.dtype, *, repeats: int = 5) -> Speed:
    """Copy bandwidth and matrix rate of the device that holds `memory`, the best of `repeats`.

    Args:
        memory: on whose device.
        dtype: of the networks. On a CPU the product is always of float32: that is what FP16 graphs
            are computed in there, and NumPy has no product of float16 worth the name.
        repeats: of each measurement.
    """
    cupy = getattr(memory, "cupy", None)
    copy_bytes, side = (2**28, 8192) if cupy is not None else (2**26, 1024)
    if cupy is None:
        dtype = np.dtype(np.float32)
    source, out = (memory.empty((copy_bytes,), np.dtype(np.uint8)) for _ in range(2))
    memory.fill(source, 1)
    # random: a product of constants toggles few bits, and runs at a clock that no network sees
    random = np.random.default_rng(0)
    left, right = (
        memory.array(random.standard_normal((side, side), np.float32).astype(dtype))
        for _ in range(2)
    )

    def multiply() -> None:
        if cupy is None:
            np.matmul(left, right)
        else:
            with memory.current():  # type: ignore[attr-defined]
                cupy.matmul(left, right)

    # in a row, so that what a launch costs the host does not count
    calls = 10 if cupy is not None else 1
    copy_s = _best(lambda: memory.copy(source, out), memory, repeats, calls)
    matrix_s = _best(multiply, memory, repeats, calls)
    return Speed(2 * copy_bytes / copy_s / 1e9, 2 * side**3 / matrix_s / 1e12)


def _best(call: Any, memory: Memory, repeats: int, calls: int) -> float:
    """Seconds of one call."""
    times = []
    for _ in range(repeats + 1):
        memory.synchronize()
        start = perf_counter()
        for _ in range(calls):
            call()
        memory.synchronize()
        times.append((perf_counter() - start) / calls)
    return min(times[1:])


def count_work(
    bundle: Bundle, role: str, engine: Engine, shapes: Mapping[str, tuple[int, ...]]
) -> Work:
    """The work of one network of a bundle at the given input shapes.

    Raises:
        ModuleNotFoundError: onnx is not installed.
    """
    import onnx

    precision = bundle.precisions(role)[0]
    model = onnx.load_model_from_string(bundle.graph(role, precision))
    for value in model.graph.input:
        for dimension, side in zip(
            value.type.tensor_type.shape.dim, shapes[value.name], strict=True
        ):
            dimension.Clear()
            dimension.dim_value = side
    # Names of free sizes and what the exporter inferred for them contradict the fixed sizes.
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model)
    weights = {value.name: tuple(value.dims) for value in inferred.graph.initializer}
    known = dict(weights)
    for value in (
        *inferred.graph.input,
        *inferred.graph.value_info,
        *inferred.graph.output,
    ):
        known[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    flop = 0
    for node in inferred.graph.node:
        if node.op_type == "Conv":
            kernel, out = known[node.input[1]], known[node.output[0]]
            flop += 2 * int(np.prod(out)) * int(np.prod(kernel[1:]))
        elif node.op_type in ("MatMul", "Gemm"):
            left, out = known[node.input[0]], known[node.output[0]]
            flop += 2 * int(np.prod(out)) * left[-1]
    itemsize = engine.inputs[0].dtype.itemsize
    elements = sum(int(np.prod(shape)) for shape in (*weights.values(), *shapes.values()))
    elements += sum(int(np.prod(known[value.name])) for value in inferred.graph.output)
    return Work(flop / 1e9, elements * itemsize / 2**20)
