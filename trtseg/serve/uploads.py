"""Image files from anybody: looked at before they are decoded, and told in words."""

from __future__ import annotations

import io
import secrets
import threading
import warnings
from pathlib import Path

import cv2
from PIL import Image, UnidentifiedImageError

from trtseg.runtime.image import Picture, load_image
from trtseg.serve.refusals import NotAnImage, NotStored, Refusal, TooLarge

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
THUMBNAIL_PX = 240
_READING = threading.Lock()


def checked_size(data: bytes, limit: int) -> tuple[int, int]:
    """Height and width from a file's head; at most `limit` pixels.

    Raises:
        NotAnImage: of none of `FORMATS`.
        TooLarge: it has more pixels.
    """
    try:
        with _READING, warnings.catch_warnings():  # which are the whole process's
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
    except Image.DecompressionBombError:
        raise TooLarge(f"a photo has at most {limit} pixels here") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, MemoryError):
        raise NotAnImage(f"expected an image: {', '.join(FORMATS)}") from None
    if height * width > limit:
        raise TooLarge(f"the photo has {width} x {height} pixels, at most {limit} go")
    if height < 1 or width < 1:
        raise NotAnImage("the image has no pixels")
    return height, width


def decoded(data: bytes, folder: Path) -> Picture:
    """`load` of a file's bytes, by way of a file in `folder` that is gone afterwards.

    Raises:
        NotAnImage, NotStored.
    """
    incoming = folder / f".incoming-{secrets.token_hex(8)}"
    try:
        try:
            incoming.write_bytes(data)
        except OSError as error:
            raise NotStored(f"the server could not store this: {error.strerror}") from None
        return load(incoming)
    finally:
        incoming.unlink(missing_ok=True)


def load(path: Path) -> Picture:
    """A photo, upright.

    Raises:
        NotAnImage: it cannot be decoded.
        Refusal: it cannot be read.
    """
    try:
        return load_image(path)
    except ValueError as error:
        told = str(error).removeprefix(f"{path}: ")
        raise NotAnImage(f"the photo cannot be read: {told}") from None
    except OSError as error:
        raise Refusal(f"the photo cannot be read: {error.strerror or error}") from None


def thumbnail(picture: Picture) -> bytes:
    """A JPEG of at most `THUMBNAIL_PX` a side."""
    rgb = picture.rgb()
    scale = min(1.0, THUMBNAIL_PX / max(rgb.shape[:2]))
    size = max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 85))[1].tobytes()
