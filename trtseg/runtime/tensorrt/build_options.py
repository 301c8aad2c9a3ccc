"""What an engine is built for: input shapes, precision, cards; checked before TensorRT sees it."""

from __future__ import annotations

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
    """The range of input sizes that an engine accepts, and the size it is tuned for.

    Attributes:
        minimum, optimum, maximum: (height, width) of every input.
        coarser: inputs that lie on a grid so many times coarser than a size says.
    """

    minimum: Size
    optimum: Size
    maximum: Size
    coarser: Mapping[str, int] = field(default_factory=dict)

    def text(self) -> str:
        """The profile in a line, equal for equal profiles."""
        bounds = ["x".join(map(str, b)) for b in (self.minimum, self.optimum, self.maximum)]
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
        ValueError: a shape does not fit the graph, which would otherwise fail much later, inside
            the build.
    """
    ranges = {}
    for name, graph in inputs.items():
        times = profile.coarser.get(name, 1)
        low, best, high = (
            (*graph[:-2], *(side // times for side in size))
            for size in (profile.minimum, profile.optimum, profile.maximum)
        )
        for shape in (low, best, high):
            fits = len(shape) == len(graph) and all(
                extent >= 1 and wanted in (-1, extent)
                for extent, wanted in zip(shape, graph, strict=True)
            )
            if not fits:
                raise ValueError(f"profiles: {name}: {shape} does not fit the graph's {graph}")
        if not all(a <= b <= c for a, b, c in zip(low, best, high, strict=True)):
            raise ValueError(
                f"profiles: {name}: expected minimum <= optimum <= maximum, "
                f"got {low}, {best}, {high}"
            )
        ranges[name] = low, best, high
    return ranges
