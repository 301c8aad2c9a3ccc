"""What one evaluation is: everything that its numbers depend on, and nothing else."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trtseg.errors import DatasetError
from trtseg.evaluate.clicks import PROTOCOLS
from trtseg.evaluate.datasets import LAYOUTS, Dataset, open_dataset
from trtseg.evaluate.datasets.shifts import SHIFTS, ShiftedImage
from trtseg.parse import at_least, one_of

ADAPTATIONS = ("none", "image", "sequence", "both")


@dataclass(frozen=True)
class DataSpec:
    """A data set, or a part of it, perhaps as another modality might show it.

    Attributes:
        path: folder or COCO JSON.
        layout: one of `LAYOUTS`; detected when None.
        subset: the split, where a layout has several.
        shift: one of `datasets.shifts.SHIFTS`; None shows the images as they are.
        prefix: only images whose name begins so.

    Raises:
        ValueError: an unknown shift.
    """

    path: str
    layout: str | None = None
    subset: str | None = None
    shift: str | None = None
    prefix: str = ""

    def __post_init__(self) -> None:
        if self.shift is not None:
            one_of("shift", self.shift, SHIFTS)

    @classmethod
    def parse(cls, text: str) -> DataSpec:
        """Read `PATH[:LAYOUT[:SUBSET]]`; a colon that no layout follows belongs to the path."""
        parts = text.split(":")
        for index in (len(parts) - 1, len(parts) - 2):
            if index >= 1 and parts[index] in LAYOUTS:
                rest = parts[index + 1 :]
                return cls(":".join(parts[:index]), parts[index], rest[0] if rest else None)
        return cls(text)

    def open(self, min_area: float) -> Dataset:
        """The data set, with objects of at least `min_area` of their image.

        Raises:
            DatasetError: see `open_dataset`; what follows a path's colon is no layout; or no
                image's name begins with the prefix.
        """
        if self.layout is None and not Path(self.path).exists():
            parts = self.path.split(":")
            for index in range(1, len(parts)):
                # taken for a part of the path by `parse`, yet it cannot be one
                if Path(":".join(parts[:index])).exists():
                    raise DatasetError(
                        f"{self.path}: {parts[index]!r} is none of the known layouts "
                        f"({', '.join(LAYOUTS)})"
                    )
        dataset = open_dataset(self.path, self.layout, subset=self.subset, min_area=min_area)
        if self.prefix:
            dataset.name = self.prefix.strip("_")
            dataset.images = [i for i in dataset.images if i.name.startswith(self.prefix)]
            if not dataset.images:
                raise DatasetError(f"{self.path}: no image's name begins with {self.prefix!r}")
        if self.shift is not None:
            dataset.name += f"-{self.shift}"
            dataset.images = [ShiftedImage(image, self.shift) for image in dataset.images]
        return dataset


@dataclass(frozen=True)
class EvaluationConfig:
    """One method on some data sets under one protocol.

    Attributes:
        model: bundle (name or path), checkpoint of an early-fusion model, or baseline.
        data: what to segment.
        protocol: one of `clicks.PROTOCOLS`.
        clicks: the simulated user gives up after as many.
        targets: IoUs to reach, for NoC; all different.
        seed: of protocols that draw; not negative.
        min_area: objects of a smaller fraction of their image are left out.
        limit: only so many objects of each data set, evenly spread over it; None takes all.
        stop_at_target: end an object once the highest target is reached; faster, but IoU@k is
            then a lower bound.
        adapt: "image", "sequence" or "both" adapts the weights to the corrections; over a
            sequence, each data set is one, in its order.
        learning: how it learns, the values of an `adapt.AdaptConfig`; None takes what was chosen
            for the model.
        long_side_px: of the model's working images; None for its own.
        focus: let the model look closer at small objects, where it can.
        refine: pass the model's probabilities through a graph cut (Xu et al. 2016).

    Raises:
        ValueError: a value out of its range.
    """

    model: str
    data: tuple[DataSpec, ...]
    protocol: str = "standard"
    clicks: int = 20
    targets: tuple[float, ...] = (0.85, 0.90)
    seed: int = 0
    min_area: float = 0.0
    limit: int | None = None
    stop_at_target: bool = False
    adapt: str = "none"
    learning: dict[str, Any] | None = None
    long_side_px: int | None = None
    focus: bool = True
    refine: bool = False

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("data: expected at least one data set")
        one_of("protocol", self.protocol, PROTOCOLS)
        one_of("adapt", self.adapt, ADAPTATIONS)
        at_least(self, 1, "clicks", "limit", "long_side_px")
        at_least(self, 0, "seed")
        if not self.targets or not all(0 < target <= 1 for target in self.targets):
            raise ValueError(f"target: expected values in (0, 1], got {self.targets}")
        # results are kept under the targets as they are printed
        if len({f"{target:g}" for target in self.targets}) < len(self.targets):
            raise ValueError(f"target: expected different values, got {self.targets}")
        if not 0 <= self.min_area < 1:
            raise ValueError(f"min_area: expected a fraction in [0, 1), got {self.min_area}")
        if self.learning is not None and self.adapt == "none":
            raise ValueError("learning: expected with an adaptation, got none")

        if self.protocol == "spoiled-mask" and self.sequential:
            raise ValueError(
                "protocol: 'spoiled-mask' begins each object with clicks that a sequence would "
                f"learn from; expected adapt 'none' or 'image', got {self.adapt!r}"
            )

    @property
    def sequential(self) -> bool:
        """Whether an object's result depends on those before it."""
        return self.adapt in ("sequence", "both")

    def indices(self, count: int) -> list[int]:
        """Which of a data set's `count` objects are taken."""
        if self.limit is None or self.limit >= count:
            return list(range(count))
        return [(2 * k + 1) * count // (2 * self.limit) for k in range(self.limit)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return json.loads(json.dumps(asdict(self)))

    def open_data(self) -> dict[str, Dataset]:
        """Data sets by a name that is unique in this evaluation.

        Raises:
            DatasetError: see `open_dataset`.
        """
        opened: dict[str, Dataset] = {}
        for spec in self.data:
            dataset = spec.open(self.min_area)
            name = dataset.name
            if name in opened:  # two splits, or two folders of one name
                name = f"{Path(spec.path).resolve().parent.name}_{name}_{len(opened)}"
            opened[name] = dataset
        return opened
