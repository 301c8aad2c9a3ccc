"""Files that commands write: never over another without being told, all of them or none."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np

from trtseg.atomic import beside, write_atomically

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
# Formats that give back the pixels, and the transparency, that were written.
EXACT_SUFFIXES = (".png", ".webp", ".tif", ".tiff")
DEEP_SUFFIXES = (".png", ".tif", ".tiff")  # 16 bits
WITH_PROFILE = (".png", ".webp", ".jpg", ".jpeg")


def check_targets(
    paths: Iterable[Path], *, force: bool, suffixes: tuple[str, ...] | None = SUFFIXES
) -> None:
    """Refuse before any work is done.

    Args:
        paths: of the files to write.
        force: whether files that are there may be replaced.
        suffixes: the formats to choose from; None where any name will do.

    Raises:
        FileExistsError: a file is there and `force` is False.
        ValueError: the suffix names none of the formats, or a path comes twice.
        OSError: the folder is missing, or nothing can be written there.
    """
    seen = set()
    for path in paths:
        if suffixes is not None and path.suffix.lower() not in suffixes:
            raise ValueError(f"{path}: expected a name ending in one of {', '.join(suffixes)}")
        check_folder(path.parent)
        with contextlib.suppress(FileNotFoundError):
            path.lstat()  # raises where the name itself is one that cannot be
        if path.is_dir():
            raise IsADirectoryError(f"{path}: is a folder")
        if os.path.lexists(path) and not force:  # a link that leads nowhere is there, too
            raise FileExistsError(f"{path}: exists already; pass --force to replace it")
        place = os.path.realpath(path)
        if place in seen:
            raise ValueError(f"{path}: expected a file for each result, got this one twice")
        seen.add(place)


def check_folder(folder: Path) -> None:
    """Refuse a folder in which nothing can be written.

    Raises:
        OSError: it is missing, no folder, or must not be written to.
    """
    if not folder.is_dir():
        if os.path.lexists(folder):
            raise NotADirectoryError(f"{folder}: is no folder")
        raise FileNotFoundError(f"{folder}: no such folder")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder}: this folder cannot be written to")


def write_images(images: Mapping[Path, np.ndarray], icc: bytes | None = None) -> None:
    """Write grey, RGB or RGBA pixels: all files appear, complete, or none does.

    Args:
        images: uint8, or uint16, which formats of 8 bits get reduced.
        icc: the colour profile of those in colour; written where OpenCV can (`WITH_PROFILE`).

    Raises:
        OSError: one of them could not be written; the message names it.
    """
    # What can fail comes first, under other names; renaming is then all that is left to do.
    staged = {path: beside(path, "new") for path in images}
    try:
        for path, temporary in staged.items():
            write_atomically(temporary, _encoded(path, images[path], icc), 0o666)
        for path, temporary in staged.items():
            temporary.replace(path)
    except OSError as error:
        raise OSError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)


def _encoded(path: Path, pixels: np.ndarray, icc: bytes | None) -> bytes:
    """The file's bytes, in the format that its name asks for."""
    suffix = path.suffix.lower()
    if pixels.dtype == np.uint16 and suffix not in DEEP_SUFFIXES:
        pixels = (pixels // 257).astype(np.uint8)
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(
            pixels, cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
        )
    try:
        if icc is not None and pixels.ndim == 3 and suffix in WITH_PROFILE:
            profile = np.frombuffer(icc, np.uint8)
            good, data = cv2.imencodeWithMetadata(
                suffix, pixels, [cv2.IMAGE_METADATA_ICCP], [profile]
            )
        else:
            good, data = cv2.imencode(suffix, pixels)
    except cv2.error as error:
        raise OSError(error.err) from None
    if not good:
        raise OSError("its format cannot hold this image")
    return data.tobytes()
