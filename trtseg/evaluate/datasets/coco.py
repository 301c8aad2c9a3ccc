"""COCO: an `instances_*.json` and a folder of images (Lin et al. 2014), by pycocotools."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from trtseg.errors import BackendUnavailable, DatasetError
from trtseg.evaluate.datasets.dataset import MAX_OBJECTS, VOID, LabelledImage, Layout, has


class CocoImage(LabelledImage):
    """Label k is the k-th annotation by ascending id; crowds are void.

    Objects may overlap: `read_mask` gives each whole; in the label map the smaller is on top.
    """

    def __init__(self, name: str, path: Path, index: Any, record: dict, annotation: Path) -> None:
        super().__init__(name, path, annotation)
        self._index = index
        self._record = record

    def annotations(self) -> tuple[dict[int, dict], list[dict]]:
        """Objects by label, and crowds."""
        records = self._index.loadAnns(self._index.getAnnIds(imgIds=[self._record["id"]]))
        records = sorted(records, key=lambda record: record["id"])
        objects = [record for record in records if not record.get("iscrowd", 0)]
        if len(objects) > MAX_OBJECTS:
            raise DatasetError(
                f"{self.annotation}: image {self.name} has {len(objects)} objects, "
                f"at most {MAX_OBJECTS} can be read"
            )
        crowds = [record for record in records if record.get("iscrowd", 0)]
        return dict(enumerate(objects, start=1)), crowds

    def category(self, record: dict) -> str:
        """The name of an object's class."""
        return str(self._index.cats[record["category_id"]]["name"])

    def _rasterise(self, record: dict) -> np.ndarray:
        try:
            with warnings.catch_warnings():  # its C code predates NumPy 2's copy keyword
                warnings.simplefilter("ignore", DeprecationWarning)
                mask = self._index.annToMask(record).astype(bool)
        except Exception as error:  # pycocotools' C code raises nearly anything on bad input
            raise DatasetError(
                f"{self.annotation}: annotation {record.get('id')} of image {self.name} "
                f"has no valid segmentation ({type(error).__name__}: {error})"
            ) from None
        return mask

    def _void(self, crowds: list[dict]) -> np.ndarray:
        void = np.zeros((self._record["height"], self._record["width"]), bool)
        for record in crowds:
            void |= self._rasterise(record)
        return void

    def read_labels(self) -> np.ndarray:
        objects, crowds = self.annotations()
        labels = np.zeros((self._record["height"], self._record["width"]), np.uint8)
        labels[self._void(crowds)] = VOID
        masks = {label: self._rasterise(record) for label, record in objects.items()}
        for label in sorted(masks, key=lambda label: -int(masks[label].sum())):
            labels[masks[label]] = label
        return labels

    def read_mask(self, label: int) -> np.ndarray:
        objects, crowds = self.annotations()
        if label not in objects:
            raise DatasetError(f"{self.annotation}: image {self.name} has no object {label}")
        mask = np.zeros((self._record["height"], self._record["width"]), np.uint8)
        mask[self._void(crowds)] = VOID
        mask[self._rasterise(objects[label])] = 1
        return mask

    def object_areas(self) -> dict[int, float]:
        objects, _ = self.annotations()
        total = self._record["height"] * self._record["width"]
        areas = {label: float(self._rasterise(record).sum()) for label, record in objects.items()}
        return {label: area / total for label, area in areas.items() if area > 0}


def find_coco(annotation: Path, images: Path) -> list[CocoImage]:
    """All images of an annotation file, by ascending file name.

    Raises:
        DatasetError: the JSON is missing, damaged or not COCO's, or an image is missing.
        BackendUnavailable: pycocotools is not installed.
    """
    try:
        from pycocotools.coco import COCO
    except ImportError:
        raise BackendUnavailable(
            "COCO data needs pycocotools; pip install trtseg[evaluate]"
        ) from None
    if not annotation.is_file():
        raise DatasetError(f"{annotation}: no such file")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress there
            index = COCO(str(annotation))
            records = index.loadImgs(index.getImgIds())
            for record in records:
                int(record["height"]), int(record["width"])
            records = sorted(records, key=lambda record: record["file_name"])
    except Exception as error:  # of the many ways in which a foreign JSON can fail
        raise DatasetError(
            f"{annotation}: not a COCO annotation file ({type(error).__name__}: {error})"
        ) from None
    if not records:
        raise DatasetError(f"{annotation}: lists no image")
    found = []
    for record in records:
        path = images / record["file_name"]
        if not path.is_file():
            raise DatasetError(f"{path}: no such file, listed in {annotation}")
        name = Path(record["file_name"]).with_suffix("").as_posix()
        found.append(CocoImage(name, path, index, record, annotation))
    return found


def open_coco(root: Path, subset: str | None) -> list[CocoImage]:
    """The images of COCO's folder, or of its JSON; see `find_coco`.

    Raises:
        DatasetError: also where there are several subsets and none is named.
    """
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


def _is_coco(root: Path) -> bool:
    if root.is_file():
        return root.suffix == ".json"
    return has(root, "annotations") and not has(root, "JPEGImages")  # VOC's where case is ignored


def _find_coco(root: Path, subset: str | None) -> list[LabelledImage]:
    return list(open_coco(root, subset))


LAYOUTS = (Layout("coco", _find_coco, _is_coco),)
