"""SBD: `img/NAME.jpg`, `inst/NAME.mat`, `train.txt`, `val.txt` (Hariharan et al. 2011)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trtseg.errors import DatasetError
from trtseg.evaluate.datasets.dataset import MAX_OBJECTS, LabelledImage, Layout, has
from trtseg.evaluate.datasets.pairs import read_names


class SbdImage(LabelledImage):
    """Labels are `GTinst.Segmentation`; SBD has no void."""

    def read_labels(self) -> np.ndarray:
        from scipy.io import loadmat

        if not self.annotation.is_file():
            raise DatasetError(f"{self.annotation}: no such file")
        try:
            content = loadmat(str(self.annotation), variable_names=["GTinst"])
            labels = np.asarray(content["GTinst"]["Segmentation"][0, 0])
        except Exception as error:  # loadmat raises nearly anything on damaged files
            reason = f"{type(error).__name__}: {error}"
            raise DatasetError(f"{self.annotation}: no GTinst.Segmentation ({reason})") from None
        if labels.ndim != 2 or labels.max(initial=0) > MAX_OBJECTS:
            raise DatasetError(f"{self.annotation}: GTinst.Segmentation is not a label map")
        return labels.astype(np.uint8)


def find_sbd(root: Path, subset: str | None) -> list[LabelledImage]:
    """The images listed in `root/SUBSET.txt`.

    Raises:
        DatasetError: the list or one of its images is missing.
    """
    images: list[LabelledImage] = []
    for name in read_names(root / f"{subset}.txt"):
        path = root / "img" / f"{name}.jpg"
        if not path.is_file():
            raise DatasetError(f"{path}: no such file, listed in {root}/{subset}.txt")
        images.append(SbdImage(name, path, root / "inst" / f"{name}.mat"))
    return images


LAYOUTS = (Layout("sbd", find_sbd, lambda root: has(root, "img", "inst"), subset="val"),)
