"""A session as a JSON file: its events by value, its image and its model by hash."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtseg.atomic import write_atomically
from trtseg.parse import build, read_json
from trtseg.runtime.encoded import EncodedImage
from trtseg.runtime.session.events import Added, Event, Selected
from trtseg.runtime.session.outlines import from_rle, rle
from trtseg.types import Box, Click, Lasso, Prompt, Stroke

if TYPE_CHECKING:
    from trtseg.runtime.session.session import Session

FORMAT, VERSION = "trtseg session", 1
_KINDS = {Click: "click", Stroke: "stroke", Box: "box", Lasso: "lasso"}


@dataclass(frozen=True)
class Options:
    """How a session was opened; see `Segmenter.session`."""

    focus: bool
    local: bool
    adapted: bool
    drop_islands_px: float | None
    fill_holes_px: float | None
    edges: bool = False  # of files that do not say, which are older than edges


@dataclass(frozen=True)
class _Image:
    height: int
    width: int
    digest: str


@dataclass(frozen=True)
class _Prompt:
    """Exactly one of them."""

    click: Click | None = None
    stroke: Stroke | None = None
    box: Box | None = None
    lasso: Lasso | None = None

    def __post_init__(self) -> None:
        _check_single(vars(self))


@dataclass(frozen=True)
class _Mask:
    size: tuple[int, int]
    counts: str


@dataclass(frozen=True)
class _Event:
    """Exactly one of them."""

    add: tuple[_Prompt, ...] | None = None
    select: int | None = None
    set_mask: _Mask | None = None

    def __post_init__(self) -> None:
        _check_single(vars(self))


def _check_single(values: dict[str, Any]) -> None:
    given = [name for name, value in values.items() if value is not None]
    if len(given) != 1:
        raise ValueError(f"{', '.join(values)}: expected one of them, got {len(given)}")


@dataclass(frozen=True)
class Saved:
    """What a file says.

    Attributes:
        format, version: `FORMAT`, `VERSION`.
        model: fingerprint of the bundle.
        image: size and `Picture.digest` of the image.
        region: that was encoded.
        options: of the session.
        events: the oldest first.
    """

    format: str
    version: int
    model: str
    image: _Image
    region: tuple[int, int, int, int]
    options: Options
    events: tuple[_Event, ...]

    def replay(self, session: Session) -> None:
        """Let all events happen to a session.

        Raises:
            ValueError: a mask is not of the image's size or damaged, or the session refuses one.
            EngineError: a network failed.
        """
        size = self.image.height, self.image.width
        for index, event in enumerate(self.events):
            try:
                if event.add is not None:
                    session.add(*map(_only, event.add))
                elif event.select is not None:
                    session.select(event.select)
                elif event.set_mask is not None:
                    if event.set_mask.size != size:
                        raise ValueError(
                            f"size: expected {list(size)}, got {list(event.set_mask.size)}"
                        )
                    session.set_mask(from_rle(size, event.set_mask.counts))
            except (TypeError, ValueError) as error:
                raise ValueError(f"events[{index}]: {error}") from None


def _only(prompt: _Prompt) -> Prompt:
    (found,) = (each for each in vars(prompt).values() if each is not None)
    return found


def write(
    path: Path, encoded: EncodedImage, options: Options, events: Sequence[Event]
) -> None:
    """Write a session.

    Raises:
        ValueError: the encoding is without its image.
        OSError: it cannot be written; what was there is left.
    """
    if encoded.source is None:
        raise ValueError("image: expected an encoding with its image, which `with_image` attaches")
    document = {
        "format": FORMAT,
        "version": VERSION,
        "model": encoded.model,
        "image": asdict(_Image(*encoded.image_size, encoded.source.digest())),
        "region": encoded.region,
        "options": asdict(options),
        "events": [_plain(event, encoded.image_size) for event in events],
    }
    write_atomically(path, json.dumps(document).encode() + b"\n", mode=0o666)


def _plain(event: Event, size: tuple[int, int]) -> dict[str, Any]:
    if isinstance(event, Added):
        return {"add": [{_KINDS[type(prompt)]: asdict(prompt)} for prompt in event.prompts]}
    if isinstance(event, Selected):
        return {"select": event.index}
    mask = np.unpackbits(event.packed, count=size[0] * size[1]).reshape(size)
    return {"set_mask": rle(mask)}


def read(path: Path) -> Saved:
    """What a file says, every value of the right type.

    Raises:
        ValueError: it is none of ours; the message begins with the path.
        OSError: it cannot be read.
    """
    document = read_json(path)
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise ValueError(f"{path}: expected a {FORMAT}, got another file")
    if document.get("version") != VERSION:
        raise ValueError(f"{path}: expected version {VERSION}, got {document.get('version')!r:.80}")
    return build(Saved, document, str(path))


def check_image(saved: Saved, size: tuple[int, int], digest: str) -> None:
    """Refuse another image than the one the session was on.

    Raises:
        ValueError: it is.
    """
    expected = saved.image.height, saved.image.width
    if size != expected:
        raise ValueError(f"image: expected size {expected}, got {size}")
    if digest != saved.image.digest:
        raise ValueError("image: expected the one that the session was saved on, got another")
