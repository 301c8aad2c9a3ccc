"""Images as callers have them, and as the encoder wants them."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from trtseg import ops
from trtseg.runtime.engine import Array, on_host
from trtseg.runtime.exif import orientation
from trtseg.runtime.image_size import declared_size

CHANNELS = {"GRAY": 1, "RGB": 3, "BGR": 3, "RGBA": 4, "BGRA": 4}
LONGEST_SIDE_PX = 32766  # what OpenCV's resize can address
MAX_PIXELS = 180_000_000  # of a file, by default: more than cameras make, less than fills a memory
_INFERRED = {1: "GRAY", 3: "RGB", 4: "RGBA"}
# Of images on a device.
DEVICE_DTYPES = (np.uint8, np.float16, np.float32)
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1")
_DLPACK_HOST = (1, 3, 11)  # plain, and pinned by CUDA or ROCm
# Pillow's modes whose numbers are what they look like; a palette's, or CMYK's, are not.
PILLOW_MODES = ("L", "RGB", "RGBA", "I;16", "I;16B", "F")


@dataclass(frozen=True, eq=False)
class Picture:
    """A checked image that is not copied.

    Attributes:
        pixels: [H, W] or [H, W, channels], uint8, uint16 or floating point, any strides; NumPy's,
            or of another library, on a device.
        image_format: a key of `CHANNELS`.
        icc: the colour profile of the file it came from, if that had one.
    """

    pixels: Array
    image_format: str
    icc: bytes | None = None

    @property
    def on_device(self) -> bool:
        """Whether the pixels are in a device's memory."""
        return not isinstance(self.pixels, np.ndarray)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def rgb(self) -> np.ndarray:
        """A uint8 [H, W, 3] copy in RGB order, without alpha."""
        return _as_bytes(self.colours())

    def colours(self) -> np.ndarray:
        """An [H, W, 3] copy in RGB order, without alpha: uint16 where the image is, else uint8."""
        pixels = _plain(on_host(self.pixels))
        if pixels.dtype != np.uint16:
            pixels = _as_bytes(pixels)
        return np.array(_order_rgb(pixels, self.image_format)[..., :3], order="C")

    def digest(self) -> str:
        """Hexadecimal hash of the size, the kind and the values of the pixels.

        Neither the order of the channels nor strides enter: RGB and BGR of one image agree.
        """
        pixels = _plain(on_host(self.pixels))
        digest = hashlib.blake2b(digest_size=20)
        kind = CHANNELS[self.image_format], pixels.dtype.str, pixels.shape[:2]
        digest.update(repr(kind).encode())
        rows = max(1, 2**24 // max(1, pixels[:1].nbytes))  # what is reordered is copied by pieces
        for start in range(0, pixels.shape[0], rows):
            part = pixels[start : start + rows]
            if self.image_format != "GRAY":
                part = _order_rgb(part, self.image_format)
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()

    def alpha(self) -> np.ndarray | None:
        """How opaque each pixel is, [H, W] as `colours`; None for formats that are opaque."""
        if CHANNELS[self.image_format] != 4:
            return None
        pixels = _plain(on_host(self.pixels)[..., 3])
        return pixels if pixels.dtype == np.uint16 else _as_bytes(pixels)


def as_picture(image: Any, image_format: str | None = None) -> Picture:
    """Check an image.

    Args:
        image: array [H, W] or [H, W, C] (or an object with `__array_interface__`, such as a
            Pillow image); uint8, uint16, or floating point in [0, 1]. Any strides. In the memory
            of a device (`__cuda_array_interface__` or DLPack): uint8, float16 or float32, whose
            values are not looked at.
        image_format: "GRAY", "RGB", "BGR", "RGBA" or "BGRA"; by default GRAY, RGB or RGBA
            according to the number of channels.

    Raises:
        TypeError: not an array, or of another dtype.
        ValueError: wrong shape, empty, too large, wrong format, values that are not finite
            numbers in [0, 1], or a Pillow image whose mode is none of `PILLOW_MODES`.
    """
    on_device = _is_on_device(image)
    if on_device:
        dtype = _device_dtype(image)
    elif not isinstance(image, np.ndarray):
        if hasattr(image, "__dlpack__"):
            image = np.from_dlpack(image)
        elif not hasattr(image, "__array_interface__"):
            raise TypeError(f"image: expected a NumPy array, got {type(image).__name__}")
        mode = getattr(image, "mode", None)
        if isinstance(mode, str) and mode not in PILLOW_MODES:
            raise ValueError(
                f"image: expected a Pillow image of mode {', '.join(PILLOW_MODES)}, got {mode}; "
                "convert it"
            )
        image = np.asarray(image)
    if not on_device:
        dtype = image.dtype
        if dtype.str[1:] not in ("u1", "u2") and dtype.kind != "f":
            raise TypeError(f"image: expected uint8, uint16 or floating point, got {dtype}")
    shape = tuple(int(side) for side in image.shape)
    channels = {2: 1, 3: shape[-1] if shape else 0}.get(len(shape), 0)
    if channels not in _INFERRED:
        raise ValueError(f"image: expected [H, W] or [H, W, 1|3|4], got {list(shape)}")
    if 0 in shape or max(shape) > LONGEST_SIDE_PX:
        raise ValueError(f"image: expected sides of 1 to {LONGEST_SIDE_PX}, got {list(shape[:2])}")
    if len(shape) == 3 and channels == 1 and not on_device:
        image = image[:, :, 0]
    if image_format is None:
        image_format = _INFERRED[channels]
    if not isinstance(image_format, str) or image_format not in CHANNELS:
        raise ValueError(f"image_format: expected {', '.join(CHANNELS)}, got {image_format!r}")
    if CHANNELS[image_format] != channels:
        raise ValueError(f"image_format: {image_format} does not fit {channels} channels")
    if not on_device and dtype.kind == "f":
        low, high = float(image.min()), float(image.max())
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # also false for NaN
            raise ValueError(f"image: expected floats in [0, 1], got {low:g} to {high:g}")
    return Picture(image, image_format)


def _is_on_device(image: Any) -> bool:
    if isinstance(image, np.ndarray):
        return False
    if hasattr(image, "__cuda_array_interface__"):
        return True
    find = getattr(image, "__dlpack_device__", None)
    return find is not None and int(find()[0]) not in _DLPACK_HOST


def _device_dtype(image: Any) -> np.dtype:
    name = str(image.dtype).rpartition(".")[2]  # torch's are called torch.uint8
    if name not in {np.dtype(known).name for known in DEVICE_DTYPES}:
        raise TypeError(f"image: expected uint8, float16 or float32 on a device, got {name}")
    return np.dtype(name)


def load_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read an image file: 8 or 16 bits, grey, colour or with alpha, turned upright by its EXIF tag
    (in JPEG, PNG, WebP, AVIF; by what libheif says in HEIC; by TIFF's own tag).

    Args:
        path: of the file.
        max_pixels: larger images are refused, most before anything of them is decoded: a file of a
            hundred kilobytes may hold a thousand million pixels.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not an image that OpenCV (for HEIC, pillow-heif) can decode, of more
            pixels than allowed, or of another kind of them than `as_picture` takes.
    """
    # No format needs more for a pixel, but for what surrounds them.
    data = _content(path, 16 * max_pixels + 2**24)
    _check_pixels(path, declared_size(data), max_pixels)
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
        return _heif(path, data)
    pixels, notes = None, {}
    try:
        if data:
            buffer = np.frombuffer(data, np.uint8)
            pixels, kinds, metadata = cv2.imdecodeWithMetadata(buffer, flags=cv2.IMREAD_UNCHANGED)
            notes = {k: np.asarray(v).tobytes() for k, v in zip(kinds, metadata, strict=True)}
    except cv2.error as error:
        raise ValueError(f"{path}: cannot be decoded: {error.err}") from None
    _check_pixels(path, None if pixels is None else pixels.shape[:2], max_pixels)
    if pixels is None:
        raise ValueError(f"{path}: not an image that can be read")
    kind = "GRAY" if pixels.ndim == 2 else "BGRA" if pixels.shape[2] == 4 else "BGR"
    try:
        # OpenCV turns only what it may drop the alpha channel of, and a TIFF file, of which it
        # hands out no EXIF
        upright = _upright(pixels, orientation(notes.get(cv2.IMAGE_METADATA_EXIF, b"")))
        return replace(as_picture(upright, kind), icc=notes.get(cv2.IMAGE_METADATA_ICCP))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def _content(path: str | os.PathLike[str], limit_bytes: int) -> bytes:
    """Of a file, or of a pipe until it ends."""
    too_large = OSError(errno.EFBIG, f"larger than {limit_bytes:,} bytes", os.fspath(path))
    with Path(path).open("rb") as file:
        info = os.fstat(file.fileno())
        if stat.S_ISCHR(info.st_mode):
            raise OSError(errno.EINVAL, "a device and no file", os.fspath(path))
        if stat.S_ISREG(info.st_mode):
            if info.st_size > limit_bytes:
                raise too_large
            return file.read(info.st_size)
        parts, room = [], limit_bytes
        while part := file.read(2**20):
            room -= len(part)
            if room < 0:
                raise too_large
            parts.append(part)
    return b"".join(parts)


def _check_pixels(
    path: str | os.PathLike[str], size: tuple[int, int] | None, max_pixels: int
) -> None:
    if size is not None and size[0] * size[1] > max_pixels:
        raise ValueError(
            f"{path}: expected at most {max_pixels:,} pixels, got {size[1]} x {size[0]}"
        )


def _heif(path: str | os.PathLike[str], data: bytes) -> Picture:
    """A picture of a phone's; libheif turns it upright itself."""
    try:
        from pillow_heif import open_heif
    except ModuleNotFoundError as error:
        if error.name != "pillow_heif":
            raise
        raise ValueError(
            f"{path}: HEIC needs pillow-heif, which is not installed: pip install 'trtseg[heic]'"
        ) from None
    try:
        image = open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
        picture = as_picture(np.array(image))
    except (TypeError, ValueError, RuntimeError, OSError, SyntaxError) as error:
        raise ValueError(f"{path}: cannot be decoded: {error}") from None
    return replace(picture, icc=image.info.get("icc_profile"))


def working_size(
    height: int, width: int, *, long_side_px: int, multiple_px: int
) -> tuple[int, int]:
    """The (height, width) at which the networks see an image of that size.

    The longer side becomes `long_side_px`, the other keeps the aspect ratio as far as multiples
    of `multiple_px` allow.
    """
    longest = max(height, width)

    def side(length: int) -> int:
        exact = length * long_side_px / longest
        return max(1, int(exact / multiple_px + 0.5)) * multiple_px

    return side(height), side(width)


def prepare(
    picture: Picture,
    region: tuple[int, int, int, int],
    mean: Sequence[float],
    scale: Sequence[float],
    out: np.ndarray,
) -> None:
    """Resize a region to the working size and normalise it.

    Transparent pixels take the model's mean colour, so that they say nothing.

    Args:
        picture: the image.
        region: (y0, x0, y1, x1), half open, inside the image.
        mean, scale: three numbers each, RGB, for 0..255 pixels.
        out: float32 [1, 3, h, w] to write (pixel - mean) * scale into.
    """
    y0, x0, y1, x1 = region
    pixels = picture.pixels[y0:y1, x0:x1]
    if pixels.dtype.kind == "f":
        pixels = pixels.astype(np.float32, copy=False)
    pixels = _plain(pixels)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    ops.prepare_image(
        pixels, out[0], mean=mean, scale=scale, bgr=picture.image_format in ("BGR", "BGRA")
    )


def _plain(pixels: np.ndarray) -> np.ndarray:
    """The same pixels in a layout and dtype that OpenCV and `ops` take; copied where needed."""
    if pixels.dtype == np.float16 or not pixels.dtype.isnative or pixels.dtype.itemsize > 8:
        pixels = pixels.astype(
            np.float32 if pixels.dtype.kind == "f" else pixels.dtype.newbyteorder("=")
        )
    item = pixels.dtype.itemsize
    inner = item if pixels.ndim == 2 else item * pixels.shape[2]
    row = inner * pixels.shape[1]
    packed = pixels.strides[1] == inner and (pixels.ndim == 2 or pixels.strides[2] == item)
    if not packed or pixels.strides[0] < row or pixels.strides[0] % item:
        return np.ascontiguousarray(pixels)
    if not pixels.flags.aligned:
        return pixels.copy()
    return pixels


def _as_bytes(pixels: np.ndarray) -> np.ndarray:
    """The same pixels as uint8; the very same array where they are."""
    if pixels.dtype == np.uint16:
        return (pixels // 257).astype(np.uint8)
    if pixels.dtype != np.uint8:
        return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    return pixels


def _order_rgb(pixels: np.ndarray, image_format: str) -> np.ndarray:
    """As [..., channels] with red first; grey becomes three equal channels."""
    if image_format == "GRAY":
        return np.broadcast_to(pixels[..., None], (*pixels.shape, 3))
    if image_format == "BGRA":
        return pixels[..., [2, 1, 0, 3]]
    return pixels[..., ::-1] if image_format == "BGR" else pixels


def _upright(pixels: np.ndarray, tag: int) -> np.ndarray:
    """Undo an EXIF orientation tag, 1 to 8."""
    if tag in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    if tag in (3, 4, 6, 7):
        pixels = pixels[::-1]
    if tag in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    return np.ascontiguousarray(pixels)
