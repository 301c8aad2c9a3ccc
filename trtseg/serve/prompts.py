"""What a person can say about an object, and how a session hears it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from trtseg.parse import build
from trtseg.runtime.session import Prediction, Session
from trtseg.runtime.session.outlines import from_rle
from trtseg.types import Box, Click, Lasso, Stroke


@dataclass(frozen=True)
class MaskPrompt:
    """A mask to continue from: COCO's compressed run lengths, of the image's size."""

    size: tuple[int, int]
    counts: str


@dataclass(frozen=True)
class SelectPrompt:
    """Show another candidate."""

    index: int


Prompt = Click | Box | Stroke | Lasso | MaskPrompt | SelectPrompt
KINDS: dict[str, type] = {
    "click": Click,
    "box": Box,
    "stroke": Stroke,
    "lasso": Lasso,
    "mask": MaskPrompt,
    "select": SelectPrompt,
}
_NAMES = {kind: name for name, kind in KINDS.items()}


def from_json(value: Any, name: str = "prompt") -> Prompt:
    """A prompt of {"type": ..., and its fields}.

    Raises:
        TypeError, ValueError: it is none; the message says where.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected an object, got {value!r}")
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"{name}.type: expected {', '.join(KINDS)}, got {kind!r}")
    return build(KINDS[kind], {k: v for k, v in value.items() if k != "type"}, name)


def to_json(prompt: Prompt) -> dict[str, Any]:
    """What `from_json` reads."""
    return {"type": _NAMES[type(prompt)], **asdict(prompt)}


def points_of(prompt: Prompt) -> int:
    """How many points a prompt has, for the limit."""
    return len(prompt.points) if isinstance(prompt, (Stroke, Lasso)) else 1


def apply(session: Session, prompt: Prompt) -> Prediction:
    """Tell a session, as one event; returns its answer.

    Raises:
        ValueError: the prompt lies outside of the image, the model takes none of its kind, there
            is no such candidate, or the mask has another size. The session is left as it was.
        EngineError: as `Session.add_click`.
    """
    if isinstance(prompt, SelectPrompt):
        return session.select(prompt.index)
    if isinstance(prompt, MaskPrompt):
        size = session.encoded.image_size
        if prompt.size != size:
            raise ValueError(f"prompt.size: expected {list(size)}, got {list(prompt.size)}")
        return session.set_mask(from_rle(prompt.size, prompt.counts))
    return session.add(prompt)
