"""Which layout a folder has, and opening it."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from trtseg.errors import DatasetError
from trtseg.evaluate.datasets.dataset import Dataset, Layout


def _layouts() -> dict[str, Layout]:
    found = {}
    for info in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if info.name != "layouts":
            module = importlib.import_module(f"trtseg.evaluate.datasets.{info.name}")
            found.update({layout.name: layout for layout in getattr(module, "LAYOUTS", ())})
    return found


LAYOUTS = _layouts()


def open_dataset(
    path: str | Path,
    layout: str | None = None,
    *,
    subset: str | None = None,
    min_area: float = 0.0,
    name: str | None = None,
) -> Dataset:
    """Open a data set in one of the layouts in which such data is distributed. The head of each
    module of this folder tells its files, and `LAYOUTS` has them all by name.

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
    known = LAYOUTS[layout]
    images = known.find(root, subset or known.subset)
    title = name or (root.resolve().name if root.is_dir() else root.stem)
    return Dataset(title, layout, images, single=known.single, min_area=min_area)


def detect_layout(path: str | Path) -> str:
    """The layout of a folder (or of COCO's JSON), by the names of its parts.

    `images/` + `masks/` is "berkeley" when no mask among the first few holds a value that only
    the folder convention has (1..254 but not 128), and some hold 255.

    Raises:
        DatasetError: the folder has no known layout.
    """
    for name, layout in LAYOUTS.items():
        if layout.matches(Path(path)):
            return name
    raise DatasetError(f"{path}: none of the known layouts ({', '.join(LAYOUTS)})")
