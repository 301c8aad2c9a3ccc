"""Which layout a folder has, and opening it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np

from trtseg.errors import DatasetError
from trtseg.evaluate.datasets.coco import find_coco
from trtseg.evaluate.datasets.dataset import Dataset, LabelledImage
from trtseg.evaluate.datasets.pairs import (
    BinaryPair,
    LabelPair,
    TrimapPair,
    find_pairs,
    read_names,
)
from trtseg.evaluate.datasets.sbd import find_sbd

LAYOUTS = ("folder", "grabcut", "berkeley", "davis", "sbd", "voc", "coco")
_SUBSETS = {"sbd": "val", "voc": "val"}
_MASKS_LOOKED_AT = 8


def open_dataset(
    path: str | Path,
    layout: str | None = None,
    *,
    subset: str | None = None,
    min_area: float = 0.0,
    name: str | None = None,
) -> Dataset:
    """Open a data set in one of the layouts in which such data is distributed.

    | layout   | files |
    |----------|-------|
    | folder   | `images/`, `masks/`: 0 background, 255 void, 1..254 objects |
    | grabcut  | `data_GT/`, `boundary_GT/`: above 128 object, 128 void |
    | berkeley | `images/`, `masks/`: values as in grabcut |
    | davis    | `img/`, `gt/`, or 2016's `JPEGImages/480p/`, `Annotations/480p/`: not 0 is object |
    | sbd      | `img/`, `inst/*.mat`, `SUBSET.txt` (val) |
    | voc      | `JPEGImages/`, `SegmentationObject/`, `ImageSets/Segmentation/SUBSET.txt` (val) |
    | coco     | `annotations/instances_SUBSET.json` and `SUBSET/`, or the JSON itself |

    Args:
        path: the folder (for coco also the JSON, whose images are beside it in a folder `images`
            or in COCO's own layout).
        layout: one of `LAYOUTS`; looked for when None.
        subset: the split, where a layout has several; for davis a name list below `ImageSets`.
        min_area: objects of a smaller fraction of their image are left out.
        name: for tables; the folder's name when None.

    Raises:
        DatasetError: nothing is there, or a file is missing or bad. Images and masks are checked
            when they are read.
        ValueError: an unknown layout, or min_area outside [0, 1).
    """
    root = Path(path)
    if not 0 <= min_area < 1:
        raise ValueError(f"min_area: expected a fraction in [0, 1), got {min_area}")
    if not root.exists():
        raise DatasetError(f"{root}: no such file or folder")
    if layout is None:
        layout = detect_layout(root)
    elif layout not in LAYOUTS:
        raise ValueError(f"layout: expected one of {', '.join(LAYOUTS)}, got {layout!r}")
    images = _find(root, layout, subset or _SUBSETS.get(layout))
    single = layout in ("grabcut", "berkeley", "davis")
    title = name or (root.resolve().name if root.is_dir() else root.stem)
    return Dataset(title, layout, images, single=single, min_area=min_area)


def _find(root: Path, layout: str, subset: str | None) -> list[LabelledImage]:
    if layout == "folder":
        return find_pairs(root / "images", root / "masks", LabelPair)
    if layout == "berkeley":
        return find_pairs(root / "images", root / "masks", TrimapPair)
    if layout == "grabcut":
        return find_pairs(root / "data_GT", root / "boundary_GT", TrimapPair)
    if layout == "davis":
        return _find_davis(root, subset)
    if layout == "sbd":
        return find_sbd(root, str(subset))
    if layout == "voc":
        names = read_names(root / "ImageSets" / "Segmentation" / f"{subset}.txt")
        return find_pairs(root / "JPEGImages", root / "SegmentationObject", LabelPair, names)
    return _find_coco(root, subset)


def _find_davis(root: Path, subset: str | None) -> list[LabelledImage]:
    if (root / "img").is_dir():
        return find_pairs(root / "img", root / "gt", BinaryPair)
    names = None
    if subset is not None:
        # lines are "/JPEGImages/480p/SEQUENCE/00000.jpg /Annotations/480p/SEQUENCE/00000.png"
        listed = read_names(root / "ImageSets" / "480p" / f"{subset}.txt")
        names = ["/".join(Path(line).with_suffix("").parts[-2:]) for line in listed]
    return find_pairs(root / "JPEGImages/480p", root / "Annotations/480p", BinaryPair, names)


def _find_coco(root: Path, subset: str | None) -> list[LabelledImage]:
    if root.is_file():
        beside = root.parent / "images"
        official = root.parent.parent / root.stem.removeprefix("instances_")
        return find_coco(root, beside if beside.is_dir() else official)
    files = sorted((root / "annotations").glob("instances_*.json"))
    if subset is not None:
        return find_coco(root / "annotations" / f"instances_{subset}.json", root / subset)
    if len(files) != 1:
        found = ", ".join(file.stem.removeprefix("instances_") for file in files) or "none"
        raise DatasetError(f"{root / 'annotations'}: expected one subset or its name, got {found}")
    return find_coco(files[0], root / files[0].stem.removeprefix("instances_"))


def detect_layout(path: str | Path) -> str:
    """The layout of a folder, by the names of its parts.

    `images/` + `masks/` is "berkeley" when no mask among the first few holds a value that only
    the folder convention has (1..254 but not 128), and some hold 255.

    Raises:
        DatasetError: the folder has no known layout.
    """
    root = Path(path)
    if root.is_file() and root.suffix == ".json":
        return "coco"

    def has(*parts: str) -> bool:
        return all((root / part).exists() for part in parts)

    if has("data_GT", "boundary_GT"):
        return "grabcut"
    if has("img", "inst"):
        return "sbd"
    if has("img", "gt") or has("JPEGImages/480p", "Annotations/480p"):
        return "davis"
    if has("JPEGImages", "SegmentationObject"):
        return "voc"
    if has("annotations"):
        return "coco"
    if has("images", "masks"):
        return "berkeley" if _binary_masks(root) else "folder"
    raise DatasetError(f"{root}: none of the known layouts ({', '.join(LAYOUTS)})")


def _binary_masks(root: Path) -> bool:
    pairs = find_pairs(root / "images", root / "masks", LabelPair)
    values: set[int] = set()
    for pair in islice(pairs, _MASKS_LOOKED_AT):
        values.update(int(value) for value in np.unique(pair.read_labels()))
    return 255 in values and values <= {0, 128, 255}
