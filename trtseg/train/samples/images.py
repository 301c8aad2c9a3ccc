"""Where training images come from: labelled data sets, drawn by weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trtseg.errors import DatasetError
from trtseg.evaluate.datasets import LAYOUTS, LabelledImage, open_dataset
from trtseg.evaluate.datasets.pairs import LabelPair
from trtseg.parse import one_of
from trtseg.train.samples.packed import LAYOUT as PACKED
from trtseg.train.samples.packed import Pack, is_pack


@dataclass(frozen=True)
class DataConfig:
    """One source of training images.

    Attributes:
        path: the data set's folder (for COCO also its JSON), or a file of `trtseg pack`.
        layout: one of `trtseg.evaluate.datasets.LAYOUTS`, or "packed"; looked for when None. A
            "folder" may hold `masks_parts/NAME.png` too: a second label map, of the objects' parts.
        subset: the split, for layouts that have several; the reader's own default when None.
        weight: probability of this source, up to a common factor.
        weights: probability (up to a common factor) of each group of images, by the prefix of
            their names; the longest fitting prefix counts. Images of no listed prefix are not
            used; an empty mapping uses all images alike, those of a pack as they were packed.
    """

    path: str
    layout: str | None = None
    subset: str | None = None
    weight: float = 1.0
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.layout is not None:
            one_of("layout", self.layout, (*LAYOUTS, PACKED))
        if not self.weight > 0:
            raise ValueError(f"weight: expected a positive number, got {self.weight}")
        if any(value < 0 for value in self.weights.values()):
            raise ValueError(f"weights: expected none below 0, got {self.weights}")


class LabelledImages:
    """Images with label maps (0 background, 255 void, 1..254 objects) of one or more sources.

    Raises:
        DatasetError: a source holds no image, or an image has no mask.
    """

    def __init__(self, sources: Sequence[DataConfig]) -> None:
        self.groups: list[list[LabelledImage]] = []
        self.parts: dict[Path, LabelledImage] = {}
        chances: list[float] = []
        for source in sources:
            groups = self._open(source)
            total = sum(chance for chance, _ in groups)
            for chance, members in groups:
                chances.append(source.weight * chance / total)
                self.groups.append(members)
        self.chances = np.array(chances) / np.sum(chances)

    def _open(self, source: DataConfig) -> list[tuple[float, list[LabelledImage]]]:
        """Weights and members of the groups that have any."""
        images, groups = self._read(source)
        if source.weights:
            by_prefix: dict[str, list[LabelledImage]] = {prefix: [] for prefix in source.weights}
            for image in images:
                # the longest prefix wins: "voc07_" is not "voc"
                fitting = [prefix for prefix in source.weights if image.name.startswith(prefix)]
                if fitting:
                    by_prefix[max(fitting, key=len)].append(image)
            groups = [(source.weights[prefix], members) for prefix, members in by_prefix.items()]
        found = [(weight, members) for weight, members in groups if members and weight > 0]
        if not found:
            raise DatasetError(
                f"{source.path}: no image has one of the prefixes {sorted(source.weights)}"
            )
        return found

    def _read(
        self, source: DataConfig
    ) -> tuple[Sequence[LabelledImage], list[tuple[float, list[LabelledImage]]]]:
        """The images, and the groups that they come in; keeps their parts."""
        if is_pack(source.path, source.layout):
            pack = Pack(Path(source.path))
            self.parts |= pack.parts
            return pack.images, [
                (chance, [pack.images[number] for number in members])
                for chance, members in pack.groups
            ]
        dataset = open_dataset(source.path, source.layout, subset=source.subset)
        if dataset.layout == "folder":
            parts = Path(source.path) / "masks_parts"
            names = {path.stem for path in parts.glob("*.png")}
            for image in dataset.images:
                if image.name in names:
                    self.parts[image.path] = LabelPair(
                        image.name, image.path, parts / f"{image.name}.png"
                    )
        return dataset.images, [(1.0, list(dataset.images))]

    def __len__(self) -> int:
        return sum(len(members) for members in self.groups)

    def draw(self, rng: np.random.Generator, part_fraction: float = 0.0) -> LabelledImage:
        """A random image; with probability `part_fraction` labelled by parts, where it has any."""
        group = self.groups[int(rng.choice(len(self.groups), p=self.chances))]
        image = group[int(rng.integers(len(group)))]
        parts = self.parts.get(image.path)
        return parts if parts is not None and rng.random() < part_fraction else image
