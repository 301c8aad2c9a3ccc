"""Files that commands write: never over another without being told, never half."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from trtseg.runtime.atomic_file import write_atomically

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
# Formats that give back the pixels, and the transparency, that were written.
EXACT_SUFFIXES = (".png", ".webp", ".tif", ".tiff")


def check_targets(
    paths: Iterable[Path], *, force: bool, suffixes: tuple[str, ...] = SUFFIXES
) -> None:
    """Refuse before any work is done.

    Args:
        paths: of the files to write.
        force: whether files that are there may be replaced.
        suffixes: the image formats to choose from.

    Raises:
        FileExistsError: a file is there and `force` is False.
        ValueError: the suffix names none of the formats, or a path comes twice.
        OSError: the folder is missing, or nothing can be written there.
    """
    seen = set()
    for path in paths:
        if path.suffix.lower() not in suffixes:
            raise ValueError(f"{path}: expected a name ending in one of {', '.join(suffixes)}")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"{path.parent}: no such folder")
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(f"{path.parent}: this folder cannot be written to")
        if path.is_dir():
            raise IsADirectoryError(f"{path}: is a folder")
        if path.exists() and not force:
            raise FileExistsError(f"{path}: exists already; pass --force to replace it")
        place = path.resolve()
        if place in seen:
            raise ValueError(f"{path}: expected a file for each result, got this one twice")
        seen.add(place)


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write grey, RGB or RGBA pixels; the file appears complete or not at all.

    Raises:
        OSError: it could not be written.
    """
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(
            pixels, cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
        )
    try:
        good, data = cv2.imencode(path.suffix.lower(), pixels)
    except cv2.error as error:
        raise OSError(f"{path}: cannot be encoded: {error.err}") from None
    if not good:
        raise OSError(f"{path}: cannot be encoded")
    try:
        write_atomically(path, data.tobytes(), 0o666)
    except OSError as error:
        raise OSError(f"{path}: cannot be written: {error.strerror or error}") from error
