"""Photos that somebody made to harm, or that were damaged: 60 of them."""

from __future__ import annotations

import itertools
import os
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from runtime.test_image_size import FILES
from test_hostile_files import changed

from hostile.bundles import Make, raw

COUNT = 60
GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, COLOUR: 3, PALETTE: 1, GREY_ALPHA: 2, COLOUR_ALPHA: 4}
TURNED = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # EXIF: by 90 degrees


def png(
    width: int, height: int, bits: int, kind: int, *, rows: int | None = None, exif: bytes = b""
) -> Make:
    """A black image; of fewer `rows` than it says where they are given."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    def make(path: Path) -> None:
        row = bytes((width * CHANNELS[kind] * bits + 7) // 8 + 1)
        packer, parts = zlib.compressobj(1), []
        for _ in range(height if rows is None else rows):
            parts.append(packer.compress(row))
        header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
        if kind == PALETTE:
            data += chunk(b"PLTE", bytes(6))
        if exif:
            data += chunk(b"eXIf", exif)
        data += chunk(b"IDAT", b"".join(parts) + packer.flush()) + chunk(b"IEND", b"")
        path.write_bytes(data)

    return make


def made() -> Iterator[tuple[str, Make]]:
    # The largest that are allowed, in the formats that take most memory.
    side = 13_416
    yield "180 Mpx, 16 bits, alpha", png(side, side, 16, COLOUR_ALPHA)
    yield "180 Mpx, 16 bits, alpha, turned", png(side, side, 16, COLOUR_ALPHA, exif=TURNED)
    yield "180 Mpx, 16 bits, turned", png(side, side, 16, COLOUR, exif=TURNED)
    yield "180 Mpx, 8 bits, turned", png(side, side, 8, COLOUR, exif=TURNED)
    yield "180 Mpx, 1 bit", png(side, side, 1, GREY)
    yield "180 Mpx, of which nothing is there", png(side, side, 16, COLOUR_ALPHA, rows=0)
    yield "32,766 x 5,493", png(32_766, 5_493, 8, COLOUR)
    # And those beyond.
    yield "1 Gpx, 1 bit", png(32_766, 32_766, 1, GREY)
    yield "1 Gpx, 1 bit, palette", png(32_766, 32_766, 1, PALETTE)
    yield "2.5 Gpx", png(50_000, 50_000, 1, GREY)
    yield "400 Mpx, 16 bits", png(20_000, 20_000, 16, COLOUR_ALPHA, rows=0)
    yield "4,294,967,295 x 1", png(2**32 - 1, 1, 8, GREY, rows=0)
    yield "0 x 0", png(0, 0, 8, GREY)
    for width, height in ((1, 32_766), (32_766, 1), (1, 40_000), (40_000, 1), (1, 1)):
        yield f"{width} x {height}", png(width, height, 8, COLOUR)
    yield "16 bits, grey and alpha", png(50, 40, 16, GREY_ALPHA)
    huge = 100_000
    yield "PPM", raw(f"P6\n{huge} {huge}\n255\n".encode())
    yield "PFM", raw(f"PF\n{huge} {huge}\n-1\n".encode())
    yield "PGM", raw(b"P5\n1000000000 1\n255\n")
    size = struct.pack("<IiiHHIIiiII", 40, -5, -(2**31), 1, 24, 0, 0, 0, 0, 0, 0)
    yield "BMP of negative size", raw(b"BM" + bytes(12) + size)
    yield "OpenEXR", raw(b"\x76\x2f\x31\x01" + bytes(100))
    yield "nothing", raw(b"")
    yield "zeros", raw(bytes(1000))
    yield "text", raw(b"hello" * 100)
    yield "a device", lambda path: path.symlink_to("/dev/zero")
    yield "a folder", lambda path: path.mkdir()
    yield "no file", lambda path: path.symlink_to("nothing")

    def sparse(path: Path) -> None:
        with path.open("wb") as stream:
            stream.truncate(2**40)

    yield "a terabyte of nothing", sparse
    yield "a header with a terabyte of nothing", lambda path: (
        png(side, side, 8, COLOUR, rows=0)(path), os.truncate(path, 2**40)
    )  # fmt: skip


def damaged() -> Iterator[tuple[str, Make]]:
    generator = random.Random(0)
    for number, kind in enumerate(itertools.cycle(FILES)):
        data = FILES[kind]()
        mutations = [
            (generator.randrange(len(data)), generator.choice("sdi"), generator.randrange(256))
            for _ in range(generator.choice([1, 4, 16]))
        ]
        yield f"damage {number} of {kind}", raw(changed(data, mutations))


def cases() -> Iterator[tuple[str, Make]]:
    """(what it is, a function that writes it to a path)"""
    return itertools.islice(itertools.chain(made(), damaged()), COUNT)
