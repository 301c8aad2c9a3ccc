"""The one EXIF tag that changes pixels."""

from __future__ import annotations

import struct

_ORIENTATION = 0x0112


def orientation(data: bytes) -> int:
    """The orientation, 1 to 8, that a JPEG, PNG or WebP file asks for; 1 where it says nothing."""
    for marker in (b"Exif\x00\x00", b"eXIf", b"EXIF"):
        found = data.find(marker)
        if found >= 0:
            start = found + len(marker)
            # A WebP chunk has its length before the TIFF header, and may repeat the JPEG marker.
            for offset in (start, start + 4, start + 10):
                tag = _from_tiff(data[offset : offset + 65536])
                if tag:
                    return tag
    return 1


def _from_tiff(tiff: bytes) -> int:
    """The tag in the first directory of a TIFF block; 0 where there is none."""
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None:
        return 0
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(count):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, directory + 2 + 12 * entry)
            if tag == _ORIENTATION:
                return value if 1 <= value <= 8 else 0
    except struct.error:
        return 0
    return 0
