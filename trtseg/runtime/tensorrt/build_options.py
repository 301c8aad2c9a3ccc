"""What an engine is built for: input shapes, precision, cards; checked before TensorRT sees it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Shape = tuple[int, ...]
Size = tuple[int, int]
Range = tuple[Shape, Shape, Shape]
Precision = Literal["fp16", "fp32"]
Compatibility = Literal["none", "ampere_plus", "same_compute_capability"]

# In the key though no option: plans built before this have planar inputs and outputs.
LAYOUT = "features=channels-last"
RTX_COMPUTE_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")


@dataclass(frozen=True, slots=True)
class Profile:
    """The range of input shapes that an engine accepts, and the shape it is tuned for.

    Attributes:
        minimum, optimum, maximum: either a size (height, width) that stands for the last two
            dimensions of every dynamic input, or a mapping from input name to full shape.
        coarser: inputs that lie on a grid so many times coarser than a size says.
    """

    minimum: Size | Mapping[str, Shape]
    optimum: Size | Mapping[str, Shape]
    maximum: Size | Mapping[str, Shape]
    coarser: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def static(cls, shape: Size | Mapping[str, Shape]) -> Profile:
        """A profile of one shape: the fastest engine and the least memory."""
        return cls(shape, shape, shape)

    def text(self) -> str:
        """The profile in a line, equal for equal profiles."""
        bounds = [_bound_text(b) for b in (self.minimum, self.optimum, self.maximum)]
        text = bounds[0] if len(set(bounds)) == 1 else ":".join(bounds)
        return "".join([text, *(f",{name}/{self.coarser[name]}" for name in sorted(self.coarser))])


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How an engine is built; everything here enters the key of the engine cache.

    Attributes:
        precision: what the ONNX file must hold; checked on every convolution.
        workspace_mib: scratch memory that tactics may use; 1 MiB makes most builds fail.
        optimization_level: 0 (fast build) to 5 (fast engine); None for TensorRT's default.
        hardware_compatibility: TensorRT only. "ampere_plus" is slower and larger.
        compute_capabilities: TensorRT for RTX only: the cards the plan is for, such as "8.6".
            Empty: the plan runs on all cards of 8.6 and newer.
        refittable: names of the ONNX initialisers that may be replaced later, or "all".
    """

    precision: Precision = "fp16"
    workspace_mib: int = 4096
    optimization_level: int | None = None
    hardware_compatibility: Compatibility = "none"
    compute_capabilities: tuple[str, ...] = ()
    refittable: tuple[str, ...] | Literal["all"] = ()

    def __post_init__(self) -> None:
        if self.precision not in ("fp16", "fp32"):
            raise ValueError(f"precision: expected 'fp16' or 'fp32', got {self.precision!r}")
        if self.workspace_mib < 1:
            raise ValueError(f"workspace_mib: expected >= 1, got {self.workspace_mib}")
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise ValueError(
                f"optimization_level: expected 0 to 5 or None, got {self.optimization_level}"
            )
        levels = ("none", "ampere_plus", "same_compute_capability")
        if self.hardware_compatibility not in levels:
            raise ValueError(
                f"hardware_compatibility: expected one of {levels}, "
                f"got {self.hardware_compatibility!r}"
            )
        for capability in self.compute_capabilities:
            if capability not in RTX_COMPUTE_CAPABILITIES:
                raise ValueError(
                    f"compute_capabilities: TensorRT for RTX builds for "
                    f"{', '.join(RTX_COMPUTE_CAPABILITIES)}, got {capability!r}"
                )

    def text(self) -> str:
        """The options in a line, without precision and compute capabilities."""
        refit = self.refittable if self.refittable == "all" else ",".join(sorted(self.refittable))
        return (
            f"workspace={self.workspace_mib} level={self.optimization_level} "
            f"compatibility={self.hardware_compatibility} refit={refit or 'none'} {LAYOUT}"
        )


def resolve_profile(profile: Profile, inputs: Mapping[str, Shape]) -> dict[str, Range]:
    """The (minimum, optimum, maximum) shape of every input, checked against the graph.

    Args:
        inputs: the graph's input shapes, -1 for a dynamic extent.

    Raises:
        ValueError: an input is unknown or missing, or a shape does not fit the graph; a
            misspelt name would otherwise fail much later, inside the build.
    """
    bounds = (profile.minimum, profile.optimum, profile.maximum)
    for bound in bounds:
        if isinstance(bound, Mapping):
            for name in bound:
                if name not in inputs:
                    near = difflib.get_close_matches(name, inputs, n=1)
                    hint = f"; did you mean {near[0]!r}?" if near else ""
                    raise ValueError(
                        f"profiles: the graph has no input {name!r}, "
                        f"its inputs are {', '.join(sorted(inputs))}{hint}"
                    )
    ranges = {}
    for name, graph_shape in inputs.items():
        times = profile.coarser.get(name, 1)
        shapes = tuple(_resolve_bound(bound, name, graph_shape, times) for bound in bounds)
        low, best, high = shapes
        if not all(a <= b <= c for a, b, c in zip(low, best, high, strict=True)):
            raise ValueError(
                f"profiles: {name}: expected minimum <= optimum <= maximum, "
                f"got {low}, {best}, {high}"
            )
        ranges[name] = (low, best, high)
    return ranges


def _resolve_bound(
    bound: Size | Mapping[str, Shape], name: str, graph_shape: Shape, times_coarser: int
) -> Shape:
    if isinstance(bound, Mapping):
        if name not in bound:
            if -1 in graph_shape:
                raise ValueError(f"profiles: no shape for the dynamic input {name!r}")
            return graph_shape
        shape = tuple(int(extent) for extent in bound[name])
    else:
        if len(graph_shape) < 2:
            raise ValueError(f"profiles: {name} has no height and width, name its shape")
        shape = (*graph_shape[:-2], *(int(extent) // times_coarser for extent in bound))
    fits = len(shape) == len(graph_shape) and all(
        extent >= 1 and graph in (-1, extent)
        for extent, graph in zip(shape, graph_shape, strict=True)
    )
    if not fits:
        raise ValueError(f"profiles: {name}: {shape} does not fit the graph's {graph_shape}")
    return shape


def _bound_text(bound: Size | Mapping[str, Shape]) -> str:
    if isinstance(bound, Mapping):
        return ",".join(f"{name}={'x'.join(map(str, bound[name]))}" for name in sorted(bound))
    return "x".join(map(str, bound))
