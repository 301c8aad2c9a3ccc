"""What the tools' protocols have in common: images in JSON, corners as origin, clicks unordered."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from trtseg.serve.prompts import Prompt
from trtseg.serve.records import PhotoRecord
from trtseg.serve.refusals import NotAnImage
from trtseg.serve.workspace import Workspace
from trtseg.types import Box, Click


def photo_of(workspace: Workspace, image: Any, name: str) -> PhotoRecord:
    """The photo of base64 text, with or without "data:...;base64," before it.

    Raises:
        NotAnImage, TooLarge, NotStored.
    """
    if not isinstance(image, str):
        raise NotAnImage("image: expected base64 text")
    return workspace.add_photo(decoded(image), name)


def decoded(text: str) -> bytes:
    """The bytes of base64 text, with or without "data:...;base64," before it.

    Raises:
        NotAnImage: it is no such text.
    """
    try:
        return base64.b64decode(text.rpartition(",")[2], validate=True)
    except (binascii.Error, ValueError):
        raise NotAnImage("image: expected base64 text") from None


def click(photo: PhotoRecord, x: Any, y: Any, positive: bool) -> Click:
    """A click of a tool whose origin is the photo's corner; ours is the first pixel's centre."""
    return Click(_at(x, photo.width), _at(y, photo.height), positive)


def box(photo: PhotoRecord, x0: Any, y0: Any, x1: Any, y1: Any) -> Box:
    """A box of such a tool, whichever corner comes first."""
    width, height = photo.width, photo.height
    return Box(_at(x0, width), _at(y0, height), _at(x1, width), _at(y1, height))


def _at(value: Any, side: int) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise ValueError(f"point: expected a number, got {value!r}")
    return min(max(float(value) - 0.5, 0.0), side - 1.0)


def object_of(value: Any, name: str) -> dict[str, Any]:
    """A JSON object; empty where there is none.

    Raises:
        ValueError: it is something else.
    """
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name}: expected an object, got {value!r}")
    return value or {}


def objects(value: Any, name: str) -> list[dict[str, Any]]:
    """A list of JSON objects; empty where there is none.

    Raises:
        ValueError: it is something else.
    """
    if value is not None and not isinstance(value, list):
        raise ValueError(f"{name}: expected a list, got {value!r}")
    return [object_of(one, f"{name}[{index}]") for index, one in enumerate(value or ())]


def in_order(before: Sequence[Prompt], now: Sequence[Prompt]) -> list[Prompt]:
    """`now` in the order of `before` as far as that goes; what is new follows.

    A tool that sends positive and negative clicks apart has lost their order; the request before
    it still tells it.
    """
    left = list(now)
    found = []
    for prompt in before:
        if prompt not in left:
            break
        left.remove(prompt)
        found.append(prompt)
    return found + left
