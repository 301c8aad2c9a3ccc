"""Rooftop Aerial: 65 aerial images whose roofs are outlined by polygons (Sun et al., ECCV 2014).

Beside each image lies `NAME.mat` with the cell array `gt`, an n x 2 matrix of (x, y) an object, by
Matlab's count: the centre of the first pixel is (1, 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trtseg.errors import DatasetError
from trtseg.evaluate.datasets.dataset import LabelledImage, Layout
from trtseg.evaluate.datasets.decode import IMAGE_SUFFIXES
from trtseg.evaluate.datasets.outlines import OutlinedImage


class RooftopImage(OutlinedImage):
    """An aerial image; its objects are the roofs, in the order of `gt`."""

    def read_outlines(self) -> Sequence[np.ndarray]:
        from scipy.io import loadmat

        try:
            cells = loadmat(str(self.annotation), variable_names=["gt"])["gt"].ravel()
            return [np.asarray(cell, np.float64) - 1 for cell in cells]
        except Exception as error:  # loadmat raises nearly anything on damaged files
            reason = f"{type(error).__name__}: {error}"
            raise DatasetError(f"{self.annotation}: no cell array gt ({reason})") from None


def find_rooftop(root: Path, subset: str | None) -> list[LabelledImage]:
    """All images that have a .mat file beside them, by name.

    Raises:
        DatasetError: there is none.
    """
    found: list[LabelledImage] = [
        RooftopImage(path.stem, path, path.with_suffix(".mat"))
        for path in sorted(root.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and path.with_suffix(".mat").is_file()
    ]
    if not found:
        raise DatasetError(f"{root}: expected images with .mat files beside them, found none")
    return found


def _is_rooftop(root: Path) -> bool:
    return root.is_dir() and any(
        path.with_suffix(suffix).is_file() for path in root.glob("*.mat")
        for suffix in IMAGE_SUFFIXES
    )


LAYOUTS = (Layout("rooftop", find_rooftop, _is_rooftop),)
