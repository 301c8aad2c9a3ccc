"""Which engines a bundle needs, what each depends on, and how it is got or built."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import Any, cast

from trtseg.bundle import Bundle, Manifest
from trtseg.errors import EngineError
from trtseg.runtime.engine import Progress
from trtseg.runtime.image import working_size
from trtseg.runtime.tensorrt.build import build_engine
from trtseg.runtime.tensorrt.build_options import BuildOptions, Precision, Profile, Size
from trtseg.runtime.tensorrt.device_memory import Gpu
from trtseg.runtime.tensorrt.plan_cache import CachedPlan, EngineCache
from trtseg.runtime.tensorrt.plan_key import EngineKey, system_name

SizeRange = tuple[Size, Size, Size]


@dataclass(frozen=True)
class EngineRequest:
    """One engine to be had.

    Attributes:
        role: "encoder", "segment" or "select".
        key: what it depends on.
        onnx: the graph.
        profiles: on the graph's own grid.
        options, target: see `build_engine`.
    """

    role: str
    key: EngineKey
    onnx: bytes
    profiles: tuple[Profile, ...]
    options: BuildOptions
    target: str | None

    def with_graph(self, onnx: bytes) -> EngineRequest:
        """The same from another graph with the same inputs and outputs."""
        digest = hashlib.sha256(onnx).hexdigest()
        return replace(self, onnx=onnx, key=replace(self.key, graph_sha256=digest))


def default_sizes(bundle: Bundle) -> tuple[SizeRange, ...]:
    """Working sizes for which engines are built: 4:3 tuned for, then every aspect ratio.

    Every image has the same longer working side, so these cover every image.
    """
    long_side, multiple = bundle.manifest.long_side_px, bundle.manifest.multiple_px
    usual = working_size(3, 4, long_side_px=long_side, multiple_px=multiple)
    return (
        (usual, usual, usual),
        ((multiple, multiple), usual, (long_side, long_side)),
    )


def requests(
    bundle: Bundle,
    *,
    flavour: str,
    version: str,
    gpu: Gpu | None,
    precision: str | None = None,
    sizes: Sequence[SizeRange] = (),
    options: BuildOptions | None = None,
    target: str | None = None,
) -> list[EngineRequest]:
    """The engines of a bundle.

    Args:
        flavour, version: of the TensorRT that will build, and later run, them.
        gpu: the GPU they will run on; None ahead of time.
        precision: "fp16" or "fp32"; by default fp16 where the bundle has it for every graph.
        sizes: working sizes as (minimum, optimum, maximum); `default_sizes` when empty.
        options: workspace, optimisation level and targets; its precision is ignored. TensorRT for
            RTX builds for `gpu`, where there is one and no other target is given.
        target: see `load_tensorrt`.

    Raises:
        TypeError: options are no `BuildOptions`.
        ValueError: a size is not a multiple that the model works at, or sizes are no ranges.
        BundleError: a graph is missing in that precision.
    """
    manifest = bundle.manifest
    if precision is None:
        both = all("fp16" in bundle.precisions(role) for role in manifest.graphs)
        precision = "fp16" if both else "fp32"
    if precision not in ("fp16", "fp32"):
        raise ValueError(f"precision: expected 'fp16' or 'fp32', got {precision!r}")
    if options is not None and not isinstance(options, BuildOptions):
        raise TypeError(f"options: expected BuildOptions, got {type(options).__name__}")
    options = replace(options or BuildOptions(), precision=cast("Precision", precision))
    if flavour == "tensorrt_rtx" and gpu is not None and not options.compute_capabilities:
        # told which card it is for, TensorRT for RTX compiles for no other
        options = replace(options, compute_capabilities=(gpu.compute_capability,))
    sizes = tuple(_size_range(given) for given in sizes) or default_sizes(bundle)
    for size in {bound for bounds in sizes for bound in bounds}:
        if any(side < 1 or side % manifest.multiple_px for side in size):
            raise ValueError(
                f"sizes: expected multiples of {manifest.multiple_px}, got {size[0]}x{size[1]}"
            )
    found = []
    for role in manifest.graphs:
        onnx = bundle.graph(role, precision)
        stride = 1 if role == "encoder" else manifest.base_stride
        coarser = coarser_inputs(manifest, role)
        profiles = tuple(
            Profile(_cells(low, stride), _cells(best, stride), _cells(high, stride), coarser)
            for low, best, high in sizes
        )
        key = EngineKey(
            graph=f"{bundle.name}/{role}",
            graph_sha256=hashlib.sha256(onnx).hexdigest(),
            flavour=flavour,
            version=version,
            gpu=gpu.name if gpu is not None else "any",
            compute_capability=_capabilities(options, gpu),
            precision=precision,
            profiles=" ".join(profile.text() for profile in profiles),
            options=options.text(),
            system=system_name(),
        )
        found.append(EngineRequest(role, key, onnx, profiles, options, target))
    return found


def coarser_inputs(manifest: Manifest, role: str) -> dict[str, int]:
    """Inputs that lie on a grid so many times coarser than f's."""
    times = [each.stride // manifest.base_stride for each in manifest.maps]
    if role == "segment":
        return {f"map_{index}": factor for index, factor in enumerate(times)}
    if role == "select" and times and "features" in manifest.select_inputs:
        return {"features": times[1]}  # f hands them over on the grid of map_1
    return {}


def obtain(
    request: EngineRequest,
    cache: EngineCache,
    *,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> CachedPlan:
    """The engine's plan, from the cache or built now.

    Raises:
        EngineError: it cannot be built, or `cancelled` returned True.
        BackendUnavailable: it is not in the cache and no TensorRT can be imported.
    """

    def build() -> tuple[bytes, dict[str, Any]]:
        built = build_engine(
            request.onnx,
            request.profiles,
            name=request.key.graph,
            options=request.options,
            target=request.target,
            timing_cache=cache.directory / f"{_timing_name(request.key)}.timing",
            progress=progress,
            cancelled=cancelled,
        )
        if (built.flavour, built.version) != (request.key.flavour, request.key.version):
            raise EngineError(
                f"{request.key.graph}: asked for {request.key.flavour} {request.key.version}, "
                f"built with {built.flavour} {built.version}"
            )
        return built.plan, {
            "build_seconds": round(built.seconds, 3),
            "layers": built.layers,
            "warnings": list(built.warnings),
        }

    portable = cache.load_portable(request.key)
    if portable is not None:
        plan, found = portable
        return CachedPlan(
            plan, False, f"{found.graph}: built ahead of time for {found.compute_capability}"
        )
    return cache.load_or_build(request.key, build, stop_waiting=cancelled)


def _size_range(given: object) -> SizeRange:
    """(minimum, optimum, maximum), checked.

    Raises:
        ValueError: it is no such thing.
    """
    try:
        low, best, high = ((index(h), index(w)) for h, w in given)  # type: ignore[attr-defined]
        ordered = all(low[i] <= best[i] <= high[i] for i in (0, 1))
    except (TypeError, ValueError):
        ordered = False
    if not ordered:
        raise ValueError(
            "sizes: expected (minimum, optimum, maximum), in this order, each (height, width), "
            f"got {given!r}"
        )
    return low, best, high


def _capabilities(options: BuildOptions, gpu: Gpu | None) -> str:
    if options.compute_capabilities:
        return ",".join(options.compute_capabilities)
    return gpu.compute_capability if gpu is not None else "portable"


def _timing_name(key: EngineKey) -> str:
    text = f"{key.flavour} {key.version} {key.gpu} {key.compute_capability} {key.system}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _cells(size: Size, stride: int) -> Size:
    return size[0] // stride, size[1] // stride
