"""Layouts of one image file and one mask file per image: folder, GrabCut, Berkeley, DAVIS, VOC."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np

from trtseg.errors import DatasetError
from trtseg.evaluate.datasets.dataset import VOID, LabelledImage, Layout, has
from trtseg.evaluate.datasets.decode import IMAGE_SUFFIXES, read_labels

MASK_SUFFIXES = (".png", ".bmp", ".jpg")
_MASKS_LOOKED_AT = 8


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


def _find_folder(root: Path, subset: str | None) -> list[LabelledImage]:
    return find_pairs(root / "images", root / "masks", LabelPair)


def _find_grabcut(root: Path, subset: str | None) -> list[LabelledImage]:
    return find_pairs(root / "data_GT", root / "boundary_GT", TrimapPair)


def _find_berkeley(root: Path, subset: str | None) -> list[LabelledImage]:
    return find_pairs(root / "images", root / "masks", TrimapPair)


def _find_voc(root: Path, subset: str | None) -> list[LabelledImage]:
    names = read_names(root / "ImageSets" / "Segmentation" / f"{subset}.txt")
    return find_pairs(root / "JPEGImages", root / "SegmentationObject", LabelPair, names)


def _find_davis(root: Path, subset: str | None) -> list[LabelledImage]:
    if (root / "img").is_dir():
        return find_pairs(root / "img", root / "gt", BinaryPair)
    names = None
    if subset is not None:
        # lines are "/JPEGImages/480p/SEQUENCE/00000.jpg /Annotations/480p/SEQUENCE/00000.png"
        listed = read_names(root / "ImageSets" / "480p" / f"{subset}.txt")
        names = ["/".join(Path(line).with_suffix("").parts[-2:]) for line in listed]
    return find_pairs(root / "JPEGImages/480p", root / "Annotations/480p", BinaryPair, names)


def _binary_masks(root: Path) -> bool:
    """Whether no mask among the first few holds a value that only the folder convention has.

    That is 1..254 but not 128; and some must hold 255.
    """
    pairs = find_pairs(root / "images", root / "masks", LabelPair)
    values: set[int] = set()
    for pair in islice(pairs, _MASKS_LOOKED_AT):
        values.update(int(value) for value in np.unique(pair.read_labels()))
    return 255 in values and values <= {0, 128, 255}


def _is_folder(root: Path) -> bool:
    return has(root, "images", "masks") and not _binary_masks(root)


def _is_berkeley(root: Path) -> bool:
    return has(root, "images", "masks") and _binary_masks(root)


def _is_davis(root: Path) -> bool:
    return has(root, "img", "gt") or has(root, "JPEGImages/480p", "Annotations/480p")


LAYOUTS = (
    Layout("folder", _find_folder, _is_folder),
    Layout("grabcut", _find_grabcut, lambda r: has(r, "data_GT", "boundary_GT"), single=True),
    Layout("berkeley", _find_berkeley, _is_berkeley, single=True),
    Layout("davis", _find_davis, _is_davis, single=True),
    Layout("voc", _find_voc, lambda r: has(r, "JPEGImages", "SegmentationObject"), subset="val"),
)
