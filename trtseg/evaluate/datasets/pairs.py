"""Layouts of one image file and one mask file per image.

| layout | files |
|---|---|
| folder | `images/`, `masks/`: 0 background, 255 void, 1..254 objects |
| grabcut | `data_GT/`, `boundary_GT/`: above 128 object, 128 void |
| berkeley | `images/`, `masks/`: values as in grabcut |
| davis | `img/`, `gt/`, or 2016's `JPEGImages/480p/`, `Annotations/480p/`: not 0 is object |
| voc | `JPEGImages/`, `SegmentationObject/`, `ImageSets/Segmentation/SUBSET.txt` (val) |

Beside `images/` and `masks/`, and beside `img/` and `gt/`, a folder `init_masks/` may hold masks to
begin with, of the same names and values.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np

from trtseg.errors import DatasetError
from trtseg.evaluate.datasets.dataset import VOID, LabelledImage, Layout, has
from trtseg.evaluate.datasets.decode import IMAGE_SUFFIXES, read_labels

MASK_SUFFIXES = (".png", ".bmp", ".jpg")
INITIAL = "init_masks"  # beside images and masks: what work on the objects begins with
_MASKS_LOOKED_AT = 8


class LabelPair(LabelledImage):
    """The mask's values are the labels: 0 background, 255 void, 1..254 objects.

    Args:
        name, path: see `LabelledImage`.
        mask: the file of the labels.
        initial: a file of the same kind with the masks that work on the objects begins with.
    """

    def __init__(self, name: str, path: Path, mask: Path, initial: Path | None = None) -> None:
        super().__init__(name, path, mask)
        self._initial = initial

    def labels_of(self, values: np.ndarray) -> np.ndarray:
        """What a file's values mean: uint8 [H, W] to labels."""
        return values

    def read_labels(self) -> np.ndarray:
        return self.labels_of(read_labels(self.annotation))

    def initial_mask(self, label: int) -> np.ndarray | None:
        return None if self._initial is None else (
            self.labels_of(read_labels(self._initial)) == label
        )


class TrimapPair(LabelPair):
    """GrabCut and Berkeley: 128 is void, what is brighter is the object."""

    def labels_of(self, values: np.ndarray) -> np.ndarray:
        labels = (values > 128).astype(np.uint8)
        labels[values == 128] = VOID
        return labels


class BinaryPair(LabelPair):
    """DAVIS 2016: everything that is not 0 is the object, and nothing is void."""

    def labels_of(self, values: np.ndarray) -> np.ndarray:
        return (values > 0).astype(np.uint8)


def find_pairs(
    images: Path,
    masks: Path,
    kind: type[LabelPair],
    names: Iterable[str] | None = None,
    initial: Path | None = None,
) -> list[LabelledImage]:
    """Images and masks whose paths below the two folders agree up to the suffix, sorted by name.

    Args:
        images: folder of images, searched in depth.
        masks: folder of masks.
        kind: how a mask's values are read.
        names: only these (paths below the folders without suffix); None takes all images.
        initial: folder of masks to begin with; not every image needs one.

    Raises:
        DatasetError: a folder is missing or empty, or an image or a mask is missing.
    """
    image_files = files_by_stem(images, IMAGE_SUFFIXES)
    mask_files = files_by_stem(masks, MASK_SUFFIXES)
    if not image_files:
        raise DatasetError(f"{images}: expected images, found none")
    initial_files = files_by_stem(initial, MASK_SUFFIXES) if initial and initial.is_dir() else {}
    wanted = sorted(image_files) if names is None else list(names)
    pairs: list[LabelledImage] = []
    for name in wanted:
        if name not in image_files:
            raise DatasetError(f"{images / name}: no image of this name")
        if name not in mask_files:
            raise DatasetError(f"{masks / name}: no mask for the image {image_files[name]}")
        pairs.append(kind(name, image_files[name], mask_files[name], initial_files.get(name)))
    return pairs


def files_by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Path below a folder without suffix to file, in order.

    Raises:
        DatasetError: no such folder.
    """
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
    return find_pairs(root / "images", root / "masks", LabelPair, initial=root / INITIAL)


def _find_grabcut(root: Path, subset: str | None) -> list[LabelledImage]:
    return find_pairs(root / "data_GT", root / "boundary_GT", TrimapPair)


def _find_berkeley(root: Path, subset: str | None) -> list[LabelledImage]:
    return find_pairs(root / "images", root / "masks", TrimapPair, initial=root / INITIAL)


def _find_voc(root: Path, subset: str | None) -> list[LabelledImage]:
    names = read_names(root / "ImageSets" / "Segmentation" / f"{subset}.txt")
    return find_pairs(root / "JPEGImages", root / "SegmentationObject", LabelPair, names)


def find_davis(root: Path, subset: str | None) -> list[LabelledImage]:
    """The frames of DAVIS 2016, or of its copies as single frames, by sequence.

    Args:
        root: the data set's folder.
        subset: a list below `ImageSets/480p`; None takes all frames.

    Raises:
        DatasetError: the list or a file is missing.
    """
    if (root / "img").is_dir():
        return find_pairs(root / "img", root / "gt", BinaryPair, initial=root / INITIAL)
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
    Layout("davis", find_davis, _is_davis, single=True),
    Layout("voc", _find_voc, lambda r: has(r, "JPEGImages", "SegmentationObject"), subset="val"),
)
