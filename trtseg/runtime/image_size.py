"""How many pixels an image file promises, from its first bytes and before anything is decoded."""

from __future__ import annotations

import re
import struct

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # tables and extensions
_PNM = re.compile(rb"P[1-6fF](?:\s+|#[^\n]*\n)+(\d{1,12})(?:\s+|#[^\n]*\n)+(\d{1,12})")
_PAM = re.compile(rb"(WIDTH|HEIGHT)\s+(\d{1,12})")
_RADIANCE = re.compile(rb"\n[-+]([XY])\s+(\d{1,12})\s+[-+][XY]\s+(\d{1,12})\n")
_EXR = re.compile(rb"dataWindow\0box2i\0.{4}(.{16})", re.DOTALL)
_HEAD = 65536  # within which headers of text stand


def declared_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) in pixels that the header of an image file gives.

    Where a header gives several, as of thumbnails or frames, the larger of each. None for a format
    that is not known here, or a header that is cut off: nothing is said about the content.
    """
    try:
        sizes = _sizes(data)
    except (struct.error, IndexError):
        return None
    if not sizes:
        return None
    return max(height for height, _ in sizes), max(width for _, width in sizes)


def _sizes(data: bytes) -> list[tuple[int, int]]:
    if data.startswith(b"\x89PNG"):
        width, height = struct.unpack_from(">II", data, 16)
        return [(height, width)]
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff(data)
    if data.startswith(b"BM"):
        old = struct.unpack_from("<I", data, 14)[0] == 12
        width, height = struct.unpack_from("<HH" if old else "<ii", data, 18)
        return [(abs(height), abs(width))]
    if data.startswith(b"GIF8"):
        width, height = struct.unpack_from("<HH", data, 6)
        return [(height, width)]
    if data.startswith(b"\x59\xa6\x6a\x95"):  # Sun raster
        width, height = struct.unpack_from(">II", data, 4)
        return [(height, width)]
    if data.startswith(b"\xff\x4f\xff\x51"):  # JPEG 2000, the bare stream
        width, height = struct.unpack_from(">II", data, 8)
        return [(height, width)]
    if data[4:8] in (b"ftyp", b"jP  "):  # AVIF and JPEG 2000: boxes
        return _boxes(data, b"ispe", ">4xII") + [
            (width, height) for height, width in _boxes(data, b"ihdr", ">II")
        ]
    return _text(data[:_HEAD])


def _jpeg(data: bytes) -> list[tuple[int, int]]:
    found, at = [], 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            at += 1
            continue
        marker = data[at + 1]
        if marker == 0xDA:  # the pixels begin
            break
        if marker in (0xFF, 0x00, 0x01) or 0xD0 <= marker <= 0xD9:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in _JPEG_FRAMES:
            found.append(struct.unpack_from(">HH", data, at + 5))
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return found


def _webp(data: bytes) -> list[tuple[int, int]]:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    return [(height, width)]


def _tiff(data: bytes) -> list[tuple[int, int]]:
    order = "<" if data[:1] == b"I" else ">"
    big = b"+" in data[2:4]
    pointer, count, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    (directory,) = struct.unpack_from(order + pointer, data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + count, data, directory)
    sides: dict[int, int] = {}
    for index in range(min(entries, 4096)):
        at = directory + struct.calcsize(count) + entry * index
        tag, kind = struct.unpack_from(order + "HH", data, at)
        if tag in (256, 257):  # width and height
            form = {3: "H", 16: "Q"}.get(kind, "I")
            (side,) = struct.unpack_from(order + form, data, at + (12 if big else 8))
            sides[tag] = max(side, sides.get(tag, 0))
    return [(sides.get(257, 0), sides.get(256, 0))]


def _boxes(data: bytes, name: bytes, form: str) -> list[tuple[int, int]]:
    """(the second number, the first) of every box of a name in the first megabyte."""
    found = []
    for match in re.finditer(re.escape(name), data[: 2**20]):
        first, second = struct.unpack_from(form, data, match.end())
        found.append((second, first))
    return found


def _text(head: bytes) -> list[tuple[int, int]]:
    if head.startswith(b"P7"):
        named = {name: int(side) for name, side in _PAM.findall(head)}
        return [(named.get(b"HEIGHT", 0), named.get(b"WIDTH", 0))]
    if match := _PNM.match(head):
        return [(int(match[2]), int(match[1]))]
    if head.startswith(b"#?") and (match := _RADIANCE.search(head)):
        sides = int(match[2]), int(match[3])
        return [sides if match[1] == b"Y" else sides[::-1]]
    if head.startswith(b"\x76\x2f\x31\x01") and (match := _EXR.search(head)):
        x0, y0, x1, y1 = struct.unpack("<4i", match[1])
        return [(y1 - y0 + 1, x1 - x0 + 1)]
    return []
