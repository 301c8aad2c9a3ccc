"""What GIMP's and Krita's plug-ins ask of `trtseg serve`: the standard library alone.

TRTSEG_URL is the address that the server printed, with its token.
"""

import json
import os
import struct
import urllib.error
import urllib.parse
import urllib.request
import zlib

NAME = "from the editor"


class Failed(Exception):
    """Told to the person as it is."""


def select(width, height, rgb, prompts):
    """The mask of an image for prompts: bytes, 0 and 255, one a pixel, row by row.

    `rgb` is three bytes a pixel; prompts are as in docs/serving.md, in image pixels.
    """
    photo = _ask("POST", "/api/photos?name=editor.png", png(width, height, rgb))
    path = "/api/photos/" + photo["id"] + "/objects"
    made = _ask("POST", path, {"name": NAME})
    try:
        for prompt in prompts:
            answer = _ask("POST", path + "/" + made["id"] + "/prompts", prompt)
        return unpacked(height, answer["rle"]["counts"])
    finally:
        _ask("DELETE", path + "/" + made["id"])


def png(width, height, rgb):
    """An image file of three bytes a pixel."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    stride = 3 * width
    rows = b"".join(b"\0" + rgb[y * stride : (y + 1) * stride] for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 1))
        + chunk(b"IEND", b"")
    )  # fmt: skip


def unpacked(height, counts):
    """COCO's compressed run lengths as bytes, 0 and 255, row by row."""
    lengths, value, shift = [], 0, 0
    for letter in counts:
        group = ord(letter) - 48
        value |= (group & 31) << shift
        shift += 5
        if not group & 32:
            value -= (1 << shift) if group & 16 else 0
            lengths.append(value + lengths[-2] if len(lengths) > 2 else value)
            value = shift = 0
    columns = b"".join((b"\xff" if i % 2 else b"\0") * n for i, n in enumerate(lengths))
    return b"".join(columns[y::height] for y in range(height))


def _ask(method, path, body=None):
    address = urllib.parse.urlsplit(os.environ.get("TRTSEG_URL", ""))
    token = urllib.parse.parse_qs(address.query).get("token", [""])[0]
    if not token:
        raise Failed("Set TRTSEG_URL to the address that `trtseg serve` printed.")
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    request = urllib.request.Request(
        address.scheme + "://" + address.netloc + path, data, method=method,
        headers={"Authorization": "Bearer " + token},
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
            return json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        raise Failed(json.loads(error.read()).get("error", str(error))) from None
    except OSError as error:
        raise Failed("The server does not answer: " + str(error)) from None
