"""What a person can say about an object, and how a session hears it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np

from trtseg.parse import build
from trtseg.runtime.segmenter import Segmenter
from trtseg.runtime.session import Prediction, Session
from trtseg.serve import runs
from trtseg.types import Box, Click, Lasso, Stroke

Point = tuple[float, float]
Clip = Callable[[float, float], Point]
LASSO_CLICKS = 3
LASSO_GRID_PX = 256  # a lasso's inside is looked for on a raster of this size


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


def apply(segmenter: Segmenter, session: Session, prompt: Prompt) -> Prediction:
    """Tell a session, as one event; returns its answer.

    A model that takes no boxes or loops hears clicks in their place: in the middle of a box and
    on its corners, deep inside a loop.

    Raises:
        ValueError: a point lies outside of the image, there is no such candidate, or the mask has
            another size. The session is left as it was.
        EngineError: as `Session.add_click`.
    """
    if isinstance(prompt, SelectPrompt):
        return session.select(prompt.index)
    size = session.encoded.image_size
    if isinstance(prompt, MaskPrompt):
        if prompt.size != size:
            raise ValueError(f"prompt.size: expected {list(size)}, got {list(prompt.size)}")
        return session.set_mask(runs.decode(prompt.size, prompt.counts))
    clip = _clipper(size)
    if isinstance(prompt, Stroke):
        points = tuple(clip(x, y) for x, y in prompt.points)
        return session.add(replace(prompt, points=points))
    if isinstance(prompt, (Box, Lasso)) and not segmenter.accepts(_NAMES[type(prompt)]):
        return session.add(*(Click(*each) for each in _clicks(prompt, clip)))
    if isinstance(prompt, Box):
        return session.add(Box(*clip(prompt.x0, prompt.y0), *clip(prompt.x1, prompt.y1)))
    if isinstance(prompt, Lasso):
        return session.add(Lasso(tuple(clip(x, y) for x, y in prompt.points)))
    return session.add(prompt)


def _clicks(prompt: Box | Lasso, clip: Clip) -> list[tuple[float, float, bool]]:
    if isinstance(prompt, Lasso):
        return [(*clip(x, y), True) for x, y in _inside(prompt.points)]
    x0, y0 = clip(prompt.x0, prompt.y0)
    x1, y1 = clip(prompt.x1, prompt.y1)
    if x0 == x1 or y0 == y1:
        raise ValueError("prompt: expected a box with an inside")
    corners = [(x, y, False) for y in (y0, y1) for x in (x0, x1)]
    return [((x0 + x1) / 2, (y0 + y1) / 2, True), *corners]


def _clipper(size: tuple[int, int]) -> Clip:
    height, width = size
    return lambda x, y: (min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0))


def _inside(points: tuple[Point, ...]) -> list[Point]:
    """Points deep inside a closed line, each far from those before it."""
    line = np.asarray(points, np.float64)
    low = line.min(axis=0)
    scale = LASSO_GRID_PX / max(float((line.max(axis=0) - low).max()), 1.0)
    outline = np.rint((line - low) * scale).astype(np.int32) + 1
    raster = np.zeros(outline.max(axis=0)[::-1] + 2, np.uint8)
    cv2.fillPoly(raster, [outline], 1)
    found: list[Point] = []
    deepest = 0.0
    for _ in range(LASSO_CLICKS):
        depth = cv2.distanceTransform(raster, cv2.DIST_L2, 5)
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)
        if depth[row, column] < deepest / 2 or depth[row, column] == 0:
            break
        deepest = max(deepest, float(depth[row, column]))
        x, y = (np.array([column, row]) - 1) / scale + low
        found.append((float(x), float(y)))
        cv2.circle(raster, (int(column), int(row)), max(1, int(1.5 * deepest)), 0, -1)
    return found
