"""What a file's header promises is known before anything is decoded."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import cv2
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image

from trtseg.runtime.image import load_image
from trtseg.runtime.image_size import declared_size

EXAMPLES = int(os.environ.get("TRTSEG_FUZZ", "100"))
PIXELS = np.random.default_rng(0).integers(0, 256, (23, 37, 3), np.uint8)


def pillow(kind: str, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, kind, **options)
    return stream.getvalue()


def opencv(suffix: str, pixels: np.ndarray = PIXELS) -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


FILES = {
    "png": lambda: pillow("PNG"),
    "jpeg": lambda: pillow("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"),
    "progressive": lambda: pillow("JPEG", progressive=True),
    "webp": lambda: pillow("WEBP"),
    "lossless webp": lambda: pillow("WEBP", lossless=True),
    "extended webp": lambda: pillow("WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"),
    "tiff": lambda: pillow("TIFF"),
    "big tiff": lambda: pillow("TIFF", big_tiff=True),
    "tiff of OpenCV": lambda: opencv(".tiff"),
    "bmp": lambda: pillow("BMP"),
    "gif": lambda: pillow("GIF"),
    "ppm": lambda: pillow("PPM"),
    "pam": lambda: opencv(".pam"),
    "pfm": lambda: opencv(".pfm", PIXELS.astype(np.float32)),
    "ras": lambda: opencv(".ras"),
    "hdr": lambda: opencv(".hdr", PIXELS.astype(np.float32)),
}


@pytest.mark.parametrize("kind", FILES)
def test_the_size_in_the_header_is_that_of_the_image(kind: str) -> None:
    data = FILES[kind]()
    assert declared_size(data) == PIXELS.shape[:2]
    for end in range(60):
        declared_size(data[:end])


def png(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    row = zlib.compress(b"")
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", row) + chunk(b"IEND", b"")


def test_a_bomb_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(32766, 32766))
    monkeypatch.setattr(cv2, "imdecodeWithMetadata", None)
    with pytest.raises(ValueError, match="expected at most 180,000,000 pixels, got 32766 x 32766"):
        load_image(path)


def test_a_caller_can_raise_and_lower_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(pillow("PNG"))
    assert load_image(path, max_pixels=23 * 37).size == (23, 37)
    with pytest.raises(ValueError, match="expected at most 850 pixels, got 37 x 23"):
        load_image(path, max_pixels=850)


def test_devices_and_endless_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="a device and no file"):
        load_image("/dev/zero")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)
    tracemalloc.start()
    with pytest.raises(OSError, match="larger than"):
        load_image(tmp_path / "sparse", max_pixels=100_000)
    assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    tracemalloc.stop()


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    readable, writable = os.pipe()
    os.write(writable, pillow("PNG"))
    os.close(writable)
    assert load_image(f"/dev/fd/{readable}").size == (23, 37)
    os.close(readable)


@hypothesis.given(
    kind=st.sampled_from(list(FILES)),
    mutations=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=5),
    end=st.integers(0, 3000),
)
@hypothesis.settings(max_examples=EXAMPLES)
def test_mutated_files_load_or_raise_one_error(kind, mutations, end, tmp_path_factory) -> None:
    data = bytearray(FILES[kind]()[: end or None])
    for at, value in mutations:
        if data:
            data[at % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "mutated"
    path.write_bytes(data)
    with contextlib.suppress(ValueError):
        assert load_image(path, max_pixels=100_000).size[0] > 0
