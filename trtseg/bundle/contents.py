"""The files of a bundle, from a folder or a zip file, no larger than they may be."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trtseg.atomic import LARGEST_HEAD_BYTES, read_folder
from trtseg.bundle.manifest import MANIFEST, listed_files, parse_manifest
from trtseg.errors import BundleError
from trtseg.parse import short

LARGEST_BYTES = 2**30  # of all files of a bundle, unpacked
_ARRAY_HEADER_BYTES = 16 * 2**10
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What a damaged or hostile archive can make the standard library raise.
_UNREADABLE = (
    OSError, EOFError, RuntimeError, NotImplementedError, ValueError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip


def read_contents(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """(the manifest, parsed but unchecked; contents by name of the files that it lists).

    A file that is missing has no entry, and neither has one in a folder that was altered.
    Whatever else lies beside them is left alone.

    Raises:
        BundleError: no manifest, or something that cannot be read.
    """
    try:
        if path.is_dir():
            text, found = read_folder(path, MANIFEST, lambda text: _listed(path, text),
                                      LARGEST_BYTES)  # fmt: skip
            return parse_manifest(path, text), found
        with zipfile.ZipFile(path) as archive:
            if MANIFEST not in archive.namelist():
                raise BundleError(f"{path}: no {MANIFEST} in it")
            text = _member(archive, MANIFEST, LARGEST_HEAD_BYTES)
            room, found, inside = LARGEST_BYTES, {}, set(archive.namelist())
            for name in _listed(path, text):
                if name in inside:
                    found[name] = _member(archive, name, room)
                    room -= len(found[name])
            return parse_manifest(path, text), found
    except BundleError:
        raise
    except _UNREADABLE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise BundleError(f"{path}: cannot be read as a bundle: {short(reason)}") from error


def _listed(path: Path, text: bytes) -> dict[str, str]:
    return listed_files(path, parse_manifest(path, text))


def write_zip(contents: Mapping[str, bytes]) -> bytes:
    """A zip file of these files; equal contents are equal bytes."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for filename, data in contents.items():
            archive.writestr(zipfile.ZipInfo(filename, (1980, 1, 1, 0, 0, 0)), data)
    return target.getvalue()


def read_arrays(data: bytes, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Read-only float32 arrays from the bytes of an npz file.

    Only what has the expected shape is unpacked.

    Raises:
        ValueError: an array is missing, of another shape or dtype, or cannot be read.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name, shape in shapes.items():
                if f"{name}.npy" not in archive.namelist():
                    raise ValueError(f"no array {name!r}")
                limit = 4 * math.prod(shape) + _ARRAY_HEADER_BYTES
                member = _member(archive, f"{name}.npy", limit, cut=True)
                arrays[name] = _array(member, name, shape)
    except (*_UNREADABLE, MemoryError) as error:
        raise ValueError(short(error, 200)) from None
    return arrays


def _array(data: bytes, name: str, shape: tuple[int, ...]) -> np.ndarray:
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        found, fortran, dtype = read(stream)
    except Exception:  # the header is Python's syntax, and a hostile one raises whatever it likes
        raise ValueError(f"{name}: no array of NumPy's format") from None
    if dtype != np.float32 or found != shape:
        raise ValueError(
            f"{name}: expected float32 {list(shape)}, got {short(dtype)} {short(list(found))}"
        )
    values = memoryview(data)[stream.tell() :]
    if len(values) != 4 * math.prod(shape):
        raise ValueError(f"{name}: {len(values)} bytes in place of {4 * math.prod(shape)}")
    flat = np.frombuffer(values, np.float32)
    array = np.array(flat.reshape(shape, order="F" if fortran else "C"), order="C")
    array.flags.writeable = False
    return array


def _member(archive: zipfile.ZipFile, name: str, limit_bytes: int, *, cut: bool = False) -> bytes:
    """The content of a file in an archive, of which no more than the limit is unpacked.

    Args:
        cut: give the beginning of one that is larger, in place of an error.
    """
    info = archive.getinfo(name)
    if info.compress_type not in _METHODS:
        raise ValueError(f"{short(name)}: expected it stored or deflated")
    if info.file_size > limit_bytes and not cut:
        raise ValueError(f"{short(name)}: larger than {limit_bytes:,} bytes")
    with archive.open(info) as file:
        return file.read(min(info.file_size, limit_bytes))
