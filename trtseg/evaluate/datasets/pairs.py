"""Layouts of one image file and one mask file per image: folder, GrabCut, Berkeley, DAVIS, VOC."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from trtseg.errors import DatasetError
from trtseg.evaluate.datasets.dataset import VOID, LabelledImage
from trtseg.evaluate.datasets.decode import IMAGE_SUFFIXES, read_labels

MASK_SUFFIXES = (".png", ".bmp", ".jpg")


class LabelPair(LabelledImage):
    """The mask's values are the labels: 0 background, 255 void, 1..254 objects."""

    def __init__(self, name: str, path: Path, mask: Path) -> None:
        super().__init__(name, path)
        self._mask = mask

    @property
    def annotation(self) -> Path:
        return self._mask

    def read_labels(self) -> np.ndarray:
        return read_labels(self._mask)


class TrimapPair(LabelPair):
    """GrabCut and Berkeley: 128 is void, what is brighter is the object."""

    def read_labels(self) -> np.ndarray:
        values = read_labels(self._mask)
        labels = (values > 128).astype(np.uint8)
        labels[values == 128] = VOID
        return labels


class BinaryPair(LabelPair):
    """DAVIS 2016: everything that is not 0 is the object, and nothing is void."""

    def read_labels(self) -> np.ndarray:
        return (read_labels(self._mask) > 0).astype(np.uint8)


def find_pairs(
    images: Path, masks: Path, kind: type[LabelPair], names: Iterable[str] | None = None
) -> list[LabelledImage]:
    """Images and masks whose paths below the two folders agree up to the suffix, sorted by name.

    Args:
        images: folder of images, searched in depth.
        masks: folder of masks.
        kind: how a mask's values are read.
        names: only these (paths below the folders without suffix); None takes all images.

    Raises:
        DatasetError: a folder is missing or empty, or an image or a mask is missing.
    """
    image_files = _by_stem(images, IMAGE_SUFFIXES)
    mask_files = _by_stem(masks, MASK_SUFFIXES)
    if not image_files:
        raise DatasetError(f"{images}: expected images, found none")
    wanted = sorted(image_files) if names is None else list(names)
    pairs: list[LabelledImage] = []
    for name in wanted:
        if name not in image_files:
            raise DatasetError(f"{images / name}: no image of this name")
        if name not in mask_files:
            raise DatasetError(f"{masks / name}: no mask for the image {image_files[name]}")
        pairs.append(kind(name, image_files[name], mask_files[name]))
    return pairs


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder")
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in suffixes
    }


def read_names(path: Path) -> list[str]:
    """The names in a split list, one a line; the first column where there are several.

    Raises:
        DatasetError: the list is missing or empty.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise DatasetError(f"{path}: expected a list of image names") from None
    names = [line.split()[0] for line in lines if line.strip()]
    if not names:
        raise DatasetError(f"{path}: the list of images is empty")
    return names
