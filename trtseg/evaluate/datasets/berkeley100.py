"""Berkeley-100: 100 objects in 96 photographs (McGuinness and O'Connor 2010).

`images/NAME.jpg` and `ground-truth/` with a mask an object: `NAME.png`, or where a photograph has
several, NAME, a separator and what tells them apart (`NAME-1.png`, `NAME#002.png`).
"""

from __future__ import annotations

from pathlib import Path

from trtseg.errors import DatasetError
from trtseg.evaluate.datasets.dataset import LabelledImage, Layout, has
from trtseg.evaluate.datasets.decode import IMAGE_SUFFIXES
from trtseg.evaluate.datasets.pairs import MASK_SUFFIXES, TrimapPair, files_by_stem

_FOLDERS = ("ground-truth", "masks")


def find_berkeley100(root: Path, subset: str | None) -> list[LabelledImage]:
    """One entry an object, by the name of its mask.

    Raises:
        DatasetError: a folder is missing or empty, or a mask has no image.
    """
    folder = next((root / name for name in _FOLDERS if (root / name).is_dir()), root / _FOLDERS[0])
    images = files_by_stem(root / "images", IMAGE_SUFFIXES)
    found: list[LabelledImage] = []
    for name, mask in files_by_stem(folder, MASK_SUFFIXES).items():
        # the longest name of an image that the mask's begins with, up to a separator
        fitting = [image for image in images if name == image or
                   (name.startswith(image) and not name[len(image)].isalnum())]  # fmt: skip
        if not fitting:
            raise DatasetError(f"{mask}: no image of this name in {root / 'images'}")
        found.append(TrimapPair(name, images[max(fitting, key=len)], mask))
    if not found:
        raise DatasetError(f"{folder}: expected masks, found none")
    return found


LAYOUTS = (
    Layout("berkeley-100", find_berkeley100, lambda r: has(r, "images", "ground-truth"),
           single=True),
)  # fmt: skip
