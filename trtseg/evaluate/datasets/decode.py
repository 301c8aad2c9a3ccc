"""Reading image and mask files; every failure is a DatasetError that names the file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from trtseg.atomic import read_file
from trtseg.errors import DatasetError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
LARGEST_BYTES = 2**30
_PNG = b"\x89PNG\r\n\x1a\n"


def read_bytes(path: Path) -> bytes:
    """The content of a complete image file.

    Decoders fill the missing part of a truncated file with grey and only print a warning, which
    would enter the results as a strange photograph: truncation is looked for here.

    Raises:
        DatasetError: the file is missing, unreadable, empty or truncated.
    """
    try:
        data = read_file(path, LARGEST_BYTES)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from None
    if not data:
        raise DatasetError(f"{path}: the file is empty")
    if (
        (data.startswith(_PNG) and b"IEND" not in data[-1024:])
        or (data.startswith(b"\xff\xd8") and not _ends_as_jpeg(data))
        # a RIFF file (WebP) says at its beginning how long it is
        or (data.startswith(b"RIFF") and len(data) < 8 + int.from_bytes(data[4:8], "little"))
    ):
        raise DatasetError(f"{path}: the file is truncated")
    return data


def _ends_as_jpeg(data: bytes) -> bool:
    """Whether an end marker follows the first scan; thumbnails in earlier segments have their own.

    Within a scan 0xFF is always followed by 0 or a restart marker, so the search is exact.
    """
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        if data[position + 1] == 0xFF:  # fill byte
            position += 1
            continue
        if data[position + 1] == 0xDA:
            return data.find(b"\xff\xd9", position) >= 0
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


def read_image(path: Path) -> np.ndarray:
    """uint8 RGB [H, W, 3], as stored: masks are drawn on stored pixels, so EXIF is not applied.

    Raises:
        DatasetError: the file is missing, truncated or not an image.
    """
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = _decode(path, read_bytes(path), flags)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_labels(path: Path) -> np.ndarray:
    """uint8 [H, W]: the values of a grey image, or the indices of one with a palette.

    An image with three equal channels is read as grey; other colours are an error.

    Raises:
        DatasetError: the file is missing, truncated, coloured or not 8-bit.
    """
    data = read_bytes(path)
    if data.startswith(_PNG) and data[25] == 3:
        return _palette_indices(path)
    labels = _decode(path, data, cv2.IMREAD_UNCHANGED)
    if labels.dtype != np.uint8:
        raise DatasetError(f"{path}: expected an 8-bit mask, got {labels.dtype}")
    if labels.ndim == 3:
        colour = labels[..., :3] if labels.shape[2] >= 3 else labels[..., :1]
        if (colour != colour[..., :1]).any():
            raise DatasetError(f"{path}: expected a mask of one channel, got a colour image")
        labels = colour[..., 0]
    return np.ascontiguousarray(labels)


def _decode(path: Path, data: bytes, flags: int) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise DatasetError(f"{path}: cannot be decoded as an image")
    return image


def _palette_indices(path: Path) -> np.ndarray:
    # OpenCV expands palettes to colours, from which the indices cannot be had back
    try:
        from PIL import Image
    except ImportError:
        raise DatasetError(
            f"{path}: a mask with a palette needs Pillow; pip install trtseg[evaluate]"
        ) from None
    try:
        with Image.open(path) as image:
            return np.array(image, np.uint8)
    except (OSError, SyntaxError) as error:
        raise DatasetError(f"{path}: cannot be decoded as an image ({error})") from None
