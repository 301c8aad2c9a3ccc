"""DAVIS-585: objects of DAVIS with a faulty mask to begin with (Chen et al., FocalClick, 2022).

`SEQUENCE/FRAME.jpg`, `SEQUENCE/OBJECT_FRAME.png`, and the masks to begin with,
`init_sp_OBJECT_FRAME.png` (superpixels that approach an IoU) and `init_stm_OBJECT_FRAME.png` (what
a network for video gave).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trtseg.errors import DatasetError
from trtseg.evaluate.datasets.dataset import LabelledImage, Layout
from trtseg.evaluate.datasets.pairs import LabelPair


class Davis585Object(LabelPair):
    """A frame with one object: brighter than 128 in its mask."""

    def labels_of(self, values: np.ndarray) -> np.ndarray:
        return (values > 128).astype(np.uint8)


def find_davis585(root: Path, subset: str | None) -> list[LabelledImage]:
    """One entry an object and frame, by sequence.

    Args:
        root: the folder of the sequences.
        subset: the masks to begin with, "sp" or "stm".

    Raises:
        DatasetError: there is no object, or an image or a mask is missing.
    """
    found: list[LabelledImage] = []
    for mask in sorted(root.glob("*/*_*.png")):
        if mask.name.startswith("init_"):
            continue
        path = mask.with_name(mask.stem.rpartition("_")[2] + ".jpg")
        initial = mask.with_name(f"init_{subset}_{mask.name}")
        for file in (path, initial):
            if not file.is_file():
                raise DatasetError(f"{file}: no such file, for the mask {mask}")
        found.append(Davis585Object(f"{mask.parent.name}/{mask.stem}", path, mask, initial))
    if not found:
        raise DatasetError(f"{root}: expected SEQUENCE/OBJECT_FRAME.png, found none")
    return found


def _is_davis585(root: Path) -> bool:
    return root.is_dir() and any(root.glob("*/init_*_*.png"))


LAYOUTS = (Layout("davis-585", find_davis585, _is_davis585, subset="sp", single=True),)
