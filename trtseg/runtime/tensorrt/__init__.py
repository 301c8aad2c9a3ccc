"""The TensorRT backend: the networks of a bundle as engines on an NVIDIA GPU."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Sequence

import numpy as np

from trtseg.bundle import Bundle
from trtseg.errors import BackendUnavailable, EngineError
from trtseg.runtime.engine import Availability, Engines, Progress
from trtseg.runtime.tensorrt.build_options import BuildOptions
from trtseg.runtime.tensorrt.bundle_plans import SizeRange, obtain, requests
from trtseg.runtime.tensorrt.device_memory import (
    CudaMemory,
    describe_gpu,
    load_cupy,
    record_cuda_graph,
)
from trtseg.runtime.tensorrt.execution import TensorRTEngine, captures_itself
from trtseg.runtime.tensorrt.library import load_tensorrt
from trtseg.runtime.tensorrt.plan_cache import EngineCache
from trtseg.runtime.tensorrt.refit import RefitPair

_log = logging.getLogger(__name__)
_NAMES = ("tensorrt", "tensorrt_rtx", "tensorrt_bindings")


def availability() -> Availability:
    """Whether engines can run here. Imports TensorRT only where there is one and a GPU."""
    if not any(importlib.util.find_spec(name) for name in _NAMES):
        return Availability(
            False, "no TensorRT is installed; `trtseg build-engine` says which to install"
        )
    try:
        cupy = load_cupy()
        gpu = describe_gpu(cupy, 0)
        tensorrt = load_tensorrt()
    except BackendUnavailable as error:
        return Availability(False, str(error).splitlines()[0])
    if importlib.util.find_spec("trtseg._cuda") is None:
        return Availability(
            False, "trtseg was built without its CUDA kernels; build it where nvcc is found"
        )
    return Availability(
        True,
        f"{tensorrt.flavour} {tensorrt.version} on {gpu.name} "
        f"(compute capability {gpu.compute_capability})",
    )


def load(
    bundle: Bundle,
    *,
    device: str | None = None,
    threads: int | None = None,
    precision: str | None = None,
    cache: EngineCache | None = None,
    limit_mib: int | None = None,
    cuda_graphs: bool = True,
    sizes: Sequence[SizeRange] = (),
    options: BuildOptions | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Engines:
    """Load a bundle's engines, building those that the cache lacks.

    Args:
        bundle: the model.
        device: "cuda" (default) or "cuda:1" for the second GPU.
        threads: has no meaning here.
        precision: "fp16" or "fp32"; by default fp16 where the bundle has it.
        cache: None for the user's.
        limit_mib: hard cap of the device memory that arrays and scratch take; the engines'
            weights come on top.
        cuda_graphs: replay each click, and the encoder, as one CUDA graph. TensorRT for RTX
            records its networks by itself instead, one graph each.
        sizes: working sizes as (minimum, optimum, maximum); `default_sizes` when empty. An image
            that none of them holds is an error when it is encoded.
        options: how to build, but for the precision; None for the defaults. What was built
            beforehand is found with the sizes and options that it was built with.
        progress: see `build_engine`; called for each engine that is built.
        cancelled: polled while building; True ends it.

    Raises:
        BackendUnavailable: TensorRT, CuPy or a GPU is missing.
        EngineError: an engine cannot be built or loaded.
        ValueError: no such device, or a size at which the model does not work.
    """
    del threads
    kind, _, number = (device or "cuda").partition(":")
    if kind != "cuda" or not (number or "0").isdigit():
        raise ValueError(f"device: expected cuda [:index], got {device!r}")
    cupy, tensorrt = load_cupy(), load_tensorrt()
    gpu = describe_gpu(cupy, int(number or 0))
    cache = cache or EngineCache()
    memory = CudaMemory(cupy, gpu.index, limit_mib=limit_mib)
    engines: dict[str, TensorRTEngine] = {}
    # TensorRT builds for, and loads on, the device that is current.
    with memory.current():
        for request in requests(
            bundle,
            flavour=tensorrt.flavour,
            version=tensorrt.version,
            gpu=gpu,
            precision=precision,
            sizes=sizes,
            options=options,
        ):
            cached = obtain(request, cache, progress=progress, cancelled=cancelled)
            if cached.built:
                _log.info("%s", cached.reason)
            engines[request.role] = TensorRTEngine(
                tensorrt,
                cached.plan,
                request.key.graph,
                memory=memory,
                cuda_graphs=cuda_graphs,
            )
            used = request.key.precision
    if "segment" not in engines:
        raise EngineError(f"{bundle.path}: no segment graph")
    return Engines(
        description=f"{tensorrt.flavour} {tensorrt.version} on {gpu.name}, {used}",
        memory=memory,
        encoder=engines.get("encoder"),
        segment=engines["segment"],
        select=engines.get("select"),
        recorder=record_cuda_graph if cuda_graphs and not captures_itself(tensorrt) else None,
    )


def load_refit_pair(
    bundle: Bundle,
    segment: TensorRTEngine,
    graph: bytes,
    names: Sequence[str],
    *,
    cache: EngineCache | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> RefitPair:
    """Two engines of a bundle's `segment` whose weights can be replaced while they run.

    Args:
        bundle: the model.
        segment: its engine that is running: gives TensorRT, memory and precision.
        graph: the ONNX graph to build from, of the same precision.
        names: initialisers of the graph that will be replaced.
        cache: None for the user's.
        progress, cancelled: see `load`.

    Raises:
        EngineError: the engine cannot be built or loaded, or a name is none of the graph's.
    """
    tensorrt, memory = segment.tensorrt, segment.memory
    gpu = describe_gpu(memory.cupy, memory.index)
    half = segment.inputs[0].dtype == np.float16
    with memory.current():
        (request,) = (
            request
            for request in requests(
                bundle,
                flavour=tensorrt.flavour,
                version=tensorrt.version,
                gpu=gpu,
                precision="fp16" if half else "fp32",
                options=BuildOptions(refittable=tuple(sorted(names))),
            )
            if request.role == "segment"
        )
        request = request.with_graph(graph)
        cached = obtain(request, cache or EngineCache(), progress=progress, cancelled=cancelled)

    def make() -> TensorRTEngine:
        with memory.current():
            return TensorRTEngine(
                tensorrt,
                cached.plan,
                f"{request.key.graph} (refittable)",
                memory=memory,
                cuda_graphs=segment.cuda_graphs,
            )

    return RefitPair(make)
