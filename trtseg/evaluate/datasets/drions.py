"""DRIONS-DB: optic discs in 110 images of the retina, by two experts (Carmona et al. 2008).

`images/image_001.jpg` and `experts_anotation/anotExpert1_001.txt`, with a corner "x , y" a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trtseg.errors import DatasetError
from trtseg.evaluate.datasets.dataset import LabelledImage, Layout, has
from trtseg.evaluate.datasets.outlines import OutlinedImage

# the data's own spelling, and the one that copies of it have
FOLDERS = ("experts_anotation", "experts_annotation")


class DrionsImage(OutlinedImage):
    """A retina with its one optic disc."""

    def read_outlines(self) -> Sequence[np.ndarray]:
        try:
            lines = self.annotation.read_text(encoding="ascii").splitlines()
            points = [[float(part) for part in line.replace(",", " ").split()]
                      for line in lines if line.strip()]  # fmt: skip
            return [np.array(points, np.float64)]
        except OSError:
            raise DatasetError(f"{self.annotation}: no such file") from None
        except ValueError as error:
            raise DatasetError(f"{self.annotation}: expected lines \"x , y\" ({error})") from None


def find_drions(root: Path, subset: str | None) -> list[LabelledImage]:
    """All images, with the outline of one expert.

    Args:
        root: the data set's folder.
        subset: "expert1" or "expert2".

    Raises:
        DatasetError: there is no image, no such expert, or a contour is missing.
    """
    if subset not in ("expert1", "expert2"):
        raise DatasetError(f"{root}: expected the subset expert1 or expert2, got {subset!r}")
    folder = next((root / name for name in FOLDERS if (root / name).is_dir()), root / FOLDERS[0])
    found: list[LabelledImage] = []
    for path in sorted((root / "images").glob("image_*.jpg")):
        number = path.stem.removeprefix("image_")
        contour = folder / f"anotExpert{subset[-1]}_{number}.txt"
        if not contour.is_file():
            raise DatasetError(f"{contour}: no such file, for the image {path}")
        found.append(DrionsImage(path.stem, path, contour))
    if not found:
        raise DatasetError(f"{root / 'images'}: expected image_*.jpg, found none")
    return found


def _is_drions(root: Path) -> bool:
    return has(root, "images") and any(has(root, folder) for folder in FOLDERS)


LAYOUTS = (Layout("drions", find_drions, _is_drions, subset="expert1", single=True),)
