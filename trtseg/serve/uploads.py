"""Image files from anybody: looked at before they are decoded, and told in words."""

from __future__ import annotations

import secrets
from pathlib import Path

import cv2

from trtseg.runtime.image import Picture, load_image
from trtseg.runtime.image_size import declared_size
from trtseg.serve.folder import INCOMING
from trtseg.serve.refusals import NotAnImage, NotStored, Refusal, TooLarge

THUMBNAIL_PX = 240


def checked_size(data: bytes, limit: int) -> tuple[int, int]:
    """Height and width from a file's head; at most `limit` pixels.

    Raises:
        NotAnImage: of no format that has such a head.
        TooLarge: it has more pixels.
    """
    size = declared_size(data)
    if size is None or min(size) < 1:
        raise NotAnImage("expected an image: JPEG, PNG, WebP, TIFF or BMP")
    height, width = size
    if height * width > limit:
        raise TooLarge(f"the photo has {width} x {height} pixels, at most {limit} go")
    return height, width


def decoded(data: bytes, folder: Path) -> Picture:
    """`load` of a file's bytes, by way of a file in `folder` that is gone afterwards.

    Raises:
        NotAnImage, NotStored.
    """
    incoming = folder / f"{INCOMING}{secrets.token_hex(8)}"
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
