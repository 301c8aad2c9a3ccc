"""The one interface behind which every data set's layout disappears."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np

from trtseg.errors import DatasetError
from trtseg.evaluate.datasets.decode import read_image

VOID = 255
MAX_OBJECTS = 254  # labels are uint8; 0 and 255 are taken


class LabelledImage(ABC):
    """An image and its objects; nothing is read before it is asked for, nothing is kept.

    Attributes:
        name: unique within the data set.
        path: the image file.
        annotation: the file that holds the labels.
    """

    def __init__(self, name: str, path: Path, annotation: Path) -> None:
        self.name, self.path, self.annotation = name, path, annotation

    def read_image(self) -> np.ndarray:
        """uint8 RGB [H, W, 3].

        Raises:
            DatasetError: the file is missing, truncated or not an image.
        """
        return read_image(self.path)

    @abstractmethod
    def read_labels(self) -> np.ndarray:
        """uint8 [H, W]: 0 background, 255 void, 1..254 objects.

        Raises:
            DatasetError: the annotation is missing, corrupt or inconsistent.
        """

    def read_mask(self, label: int) -> np.ndarray:
        """uint8 [H, W] of one object: 1 object, 0 not, 255 void."""
        labels = self.read_labels()
        mask = (labels == label).astype(np.uint8)
        mask[labels == VOID] = VOID
        return mask

    def read_pair(self) -> tuple[np.ndarray, np.ndarray]:
        """The image and its label map.

        Raises:
            DatasetError: a file is bad, or the sizes differ.
        """
        image, labels = self.read_image(), self.read_labels()
        self.check_size(image, labels)
        return image, labels

    def check_size(self, image: np.ndarray, labels: np.ndarray) -> None:
        """Raise DatasetError if the annotation is not of the image's size."""
        if image.shape[:2] != labels.shape:
            raise DatasetError(
                f"{self.annotation}: the mask is {labels.shape[1]}x{labels.shape[0]}, "
                f"its image {self.path} is {image.shape[1]}x{image.shape[0]}"
            )

    def initial_mask(self, label: int) -> np.ndarray | None:
        """bool [H, W], the mask that work on an object begins with; None where there is none.

        Raises:
            DatasetError: its file is bad.
        """
        return None

    def object_areas(self) -> dict[int, float]:
        """Label to area, as a fraction of the image; void pixels do not belong to an object."""
        counts = np.bincount(self.read_labels().ravel(), minlength=VOID + 1)
        total = counts.sum()
        return {int(v): float(counts[v] / total) for v in np.flatnonzero(counts) if 0 < v < VOID}


class ImageOf(LabelledImage):
    """An image of another data set, of which something is changed; all else is as it was there."""

    def __init__(self, image: LabelledImage) -> None:
        super().__init__(image.name, image.path, image.annotation)
        self._image = image

    def read_image(self) -> np.ndarray:
        return self._image.read_image()

    def read_labels(self) -> np.ndarray:
        return self._image.read_labels()

    def read_mask(self, label: int) -> np.ndarray:
        return self._image.read_mask(label)

    def initial_mask(self, label: int) -> np.ndarray | None:
        return self._image.initial_mask(label)

    def object_areas(self) -> dict[int, float]:
        return self._image.object_areas()


class ChosenObjects(ImageOf):
    """An image of which only some objects are asked for; labels and masks stay."""

    def __init__(self, image: LabelledImage, labels: Collection[int]) -> None:
        super().__init__(image)
        self.labels = frozenset(labels)

    def object_areas(self) -> dict[int, float]:
        areas = self._image.object_areas()
        return {label: area for label, area in areas.items() if label in self.labels}


@dataclass(frozen=True)
class Layout:
    """How files of a data set are laid out; `layouts` finds those that this folder's modules list.

    Attributes:
        name: as the user calls it.
        find: from root and subset to the images; raises DatasetError where a file is missing.
        matches: whether a root has this layout, by the names of its parts; never for a layout
            that must be asked for.
        subset: the split that is taken when none is named.
        single: every image holds exactly one object, whose label is 1.
    """

    name: str
    find: Callable[[Path, str | None], list[LabelledImage]]
    matches: Callable[[Path], bool] = lambda root: False
    subset: str | None = None
    single: bool = False


def has(root: Path, *parts: str) -> bool:
    """Whether all these paths are below a folder."""
    return all((root / part).exists() for part in parts)


@dataclass(frozen=True)
class Sample:
    """One object of one image.

    `image` (uint8 RGB [H, W, 3]) and `mask` (uint8 [H, W]: 1 object, 0 not, 255 void) are read
    from disk at first use and then kept by this Sample; the data set keeps neither.

    Attributes:
        name: unique within the data set, `IMAGE` or `IMAGE#LABEL`.
        source: the image that holds the object.
        label: the object's value in the label map.
    """

    name: str
    source: LabelledImage
    label: int

    @cached_property
    def image(self) -> np.ndarray:
        return self.source.read_image()

    @cached_property
    def mask(self) -> np.ndarray:
        mask = self.source.read_mask(self.label)
        self.source.check_size(self.image, mask)
        if not (mask == 1).any():
            raise DatasetError(f"{self.source.annotation}: object {self.label} has no pixel")
        return mask

    @cached_property
    def initial_mask(self) -> np.ndarray | None:
        """See `LabelledImage.initial_mask`.

        Raises:
            DatasetError: it is bad, or not of the image's size.
        """
        mask = self.source.initial_mask(self.label)
        if mask is not None:
            self.source.check_size(self.image, mask)
        return mask


class Dataset(Sequence[Sample]):
    """A sequence of `Sample`s, one per object, in the order of image and label.

    The first use of a length or an index reads all annotations (not the images), because only
    they say how many objects there are; `images` needs none of that.

    Args:
        name: for tables and file names.
        layout: name of the layout it was read as.
        images: its images, in a fixed order.
        single: every image holds exactly one object, whose label is 1.
        min_area: objects of a smaller fraction of their image are left out.

    Raises:
        DatasetError: there is no image, or (at first use) no object.
    """

    def __init__(
        self,
        name: str,
        layout: str,
        images: Sequence[LabelledImage],
        *,
        single: bool = False,
        min_area: float = 0.0,
    ) -> None:
        self.name = name
        self.layout = layout
        self.images = list(images)
        self.single = single
        self.min_area = min_area

    @cached_property
    def _objects(self) -> list[tuple[LabelledImage, int]]:
        if self.single and self.min_area <= 0:
            return [(image, 1) for image in self.images]
        found = [
            (image, label)
            for image in self.images
            for label, area in sorted(image.object_areas().items())
            if area >= self.min_area
        ]
        if not found:
            first = self.images[0]
            # masks of 0 and 255 are common elsewhere
            unlabelled = not first.object_areas()
            hint = " (in a mask, 255 is void; objects are 1, 2, ...)" if unlabelled else ""
            raise DatasetError(
                f"{self.name}: no object of at least {self.min_area:g} of its image "
                f"in {len(self.images)} images, the first of which is {first.path}{hint}"
            )
        return found

    def __len__(self) -> int:
        return len(self._objects)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self._sample(entry) for entry in self._objects[index]]
        return self._sample(self._objects[index])

    def _sample(self, entry: tuple[LabelledImage, int]) -> Sample:
        image, label = entry
        return Sample(image.name if self.single else f"{image.name}#{label}", image, label)
