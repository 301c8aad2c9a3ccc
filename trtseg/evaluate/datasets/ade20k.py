"""ADE20K, the full release: scenes, every object of which has an instance (Zhou et al. 2017).

`images/SPLIT/.../NAME.jpg` and beside it `NAME_seg.png`, whose red and green are the class and
whose blue is the instance; the release of 2021 has `images/ADE/SPLIT`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trtseg.errors import DatasetError
from trtseg.evaluate.datasets.dataset import MAX_OBJECTS, LabelledImage, Layout, has
from trtseg.evaluate.datasets.decode import read_image

_ROOTS = ("images", "images/ADE")


class AdeImage(LabelledImage):
    """Label k is the instance of the k-th smallest blue; what has no class is background."""

    def read_labels(self) -> np.ndarray:
        red, green, blue = np.moveaxis(read_image(self.annotation), 2, 0)
        instance = np.where((red > 0) | (green > 0), blue, 0)
        values = np.unique(instance[instance > 0])
        if len(values) > MAX_OBJECTS:
            raise DatasetError(
                f"{self.annotation}: {len(values)} objects, at most {MAX_OBJECTS} can be read"
            )
        ranks = np.zeros(256, np.uint8)
        ranks[values] = np.arange(1, len(values) + 1)
        return ranks[instance]


def find_ade20k(root: Path, subset: str | None) -> list[LabelledImage]:
    """All images of a split, by path.

    Args:
        root: the release's folder.
        subset: "training" or "validation".

    Raises:
        DatasetError: there is no such split, or an image is missing.
    """
    folder = next((root / at / str(subset) for at in _ROOTS if (root / at / str(subset)).is_dir()),
                  root / "images" / str(subset))  # fmt: skip
    found: list[LabelledImage] = []
    for segmentation in sorted(folder.rglob("*_seg.png")):
        path = segmentation.with_name(segmentation.name.removesuffix("_seg.png") + ".jpg")
        if not path.is_file():
            raise DatasetError(f"{path}: no such file, of which {segmentation} is the segmentation")
        found.append(AdeImage(path.relative_to(folder).with_suffix("").as_posix(), path,
                              segmentation))  # fmt: skip
    if not found:
        raise DatasetError(f"{folder}: expected images with *_seg.png beside them, found none")
    return found


def _is_ade20k(root: Path) -> bool:
    return any(has(root, f"{at}/{split}") for at in _ROOTS for split in ("training", "validation"))


LAYOUTS = (Layout("ade20k", find_ade20k, _is_ade20k, subset="validation"),)
