"""What is known about a photo: its objects, and of each what was said about it, in order."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from trtseg.parse import build
from trtseg.serve import prompts
from trtseg.serve.prompts import Prompt
from trtseg.serve.refusals import NotFound

FORMAT = 1
NAME_LETTERS = 120
# Okabe and Ito's colours, which people tell apart who see few; lightened to show on a photo.
COLOURS = ("#3ea6ff", "#ffb000", "#19c999", "#ff7a45", "#e88fd0", "#f5e663", "#8f9bff", "#ff5c7a")


class DamagedRecord(ValueError):
    """A photo's record that is none, or one of another format."""


@dataclass(frozen=True)
class ObjectRecord:
    """One object.

    Attributes:
        id: letters and digits, unique in its photo.
        name: for people.
        colour: "#rrggbb".
        prompts: all that was said, the undone ones too.
        at: how many of them count; `redo` brings the next.
    """

    id: str
    name: str
    colour: str
    prompts: tuple[Prompt, ...] = ()
    at: int = 0

    @property
    def said(self) -> tuple[Prompt, ...]:
        """The prompts that count."""
        return self.prompts[: self.at]

    def with_prompt(self, prompt: Prompt) -> ObjectRecord:
        """One prompt more; what was undone is gone."""
        return replace(self, prompts=(*self.said, prompt), at=self.at + 1)

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        said = [prompts.to_json(prompt) for prompt in self.prompts]
        return {
            "id": self.id, "name": self.name, "colour": self.colour,
            "prompts": said, "at": self.at,
        }  # fmt: skip


@dataclass(frozen=True)
class PhotoRecord:
    """One photo.

    Attributes:
        id: the digest of its file: the same file is the same photo.
        name: of the file, for people.
        height, width: upright, in pixels.
        objects: in the order in which they were begun.
    """

    id: str
    name: str
    height: int
    width: int
    objects: tuple[ObjectRecord, ...] = ()

    def object(self, key: str) -> ObjectRecord:
        """The object of an id.

        Raises:
            NotFound: there is none.
        """
        for found in self.objects:
            if found.id == key:
                return found
        raise NotFound("there is no such object in this photo (any more)")

    def with_object(self, changed: ObjectRecord) -> PhotoRecord:
        """With one object added, or put in place of that with its id."""
        if all(one.id != changed.id for one in self.objects):
            return replace(self, objects=(*self.objects, changed))
        objects = tuple(changed if one.id == changed.id else one for one in self.objects)
        return replace(self, objects=objects)

    def without_object(self, key: str) -> PhotoRecord:
        """With one object less.

        Raises:
            NotFound: there is none such.
        """
        gone = self.object(key)
        return replace(self, objects=tuple(one for one in self.objects if one is not gone))

    def summary(self) -> dict[str, Any]:
        """What a list of photos shows."""
        return {
            "id": self.id, "name": self.name, "height": self.height, "width": self.width,
            "objects": len(self.objects),
        }  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        objects = [one.to_json() for one in self.objects]
        return {**self.summary(), "format": FORMAT, "objects": objects}


def read(text: bytes, name: str) -> PhotoRecord:
    """What `PhotoRecord.to_json` wrote.

    Raises:
        ValueError: it is no such text; the message begins with `name`.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: not JSON: {error}") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ValueError(f"{name}: expected a photo's record of format {FORMAT}")
    value = {key: entry for key, entry in value.items() if key != "format"}
    listed = value.pop("objects", None)
    if not isinstance(listed, list):
        raise ValueError(f"{name}.objects: expected a list, got {listed!r}")
    objects = tuple(_object(entry, f"{name}.objects[{i}]") for i, entry in enumerate(listed))
    return replace(build(PhotoRecord, value, name), objects=objects)


def _object(value: Any, name: str) -> ObjectRecord:
    if not isinstance(value, dict) or not isinstance(value.get("prompts"), list):
        raise ValueError(f"{name}: expected an object with prompts, got {value!r}")
    said = tuple(
        prompts.from_json(entry, f"{name}.prompts[{index}]")
        for index, entry in enumerate(value["prompts"])
    )
    rest = {key: entry for key, entry in value.items() if key != "prompts"}
    found = replace(build(ObjectRecord, rest, name), prompts=said)
    if not 0 <= found.at <= len(said):
        raise ValueError(f"{name}.at: expected 0 to {len(said)}, got {found.at}")
    return found


def line(text: str, otherwise: str) -> str:
    """A name in one line, of printable letters, that is not too long."""
    kept = "".join(letter for letter in text if letter.isprintable()).strip()[:NAME_LETTERS]
    return kept or otherwise
