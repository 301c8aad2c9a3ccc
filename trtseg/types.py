"""The vocabulary that every layer shares: prompts, regions, and how the two lie to each other."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# (y0, x0, y1, x1) in image pixels, half open. Everything inside is (y, x); callers see (x, y).
Region = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Click:
    """A point the user marked as object (`positive`) or as background.

    Attributes:
        x: column in image pixels; 0 is the centre of the leftmost pixel.
        y: row in image pixels; 0 is the centre of the topmost pixel.
        positive: True for "this belongs to the object", False for "this does not".

    Raises:
        TypeError: a coordinate is not a real number, or `positive` is not a bool.
        ValueError: a coordinate is NaN or infinite.
    """

    x: float
    y: float
    positive: bool = True

    def __post_init__(self) -> None:
        for name in ("x", "y"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        object.__setattr__(self, "positive", _flag("positive", self.positive))

    @property
    def pixel(self) -> tuple[int, int]:
        """(y, x) of the pixel that the click lies in: halves belong to the next one."""
        return math.floor(self.y + 0.5), math.floor(self.x + 0.5)


@dataclass(frozen=True, slots=True)
class Stroke:
    """A line that the user drew over the object (`positive`) or over the background.

    Attributes:
        points: (x, y) in image pixels, at least one; straight lines join them.
        positive: True for "this belongs to the object", False for "this does not".
        radius_px: of the brush, in image pixels; at least 0.

    Raises:
        TypeError: a value is not of its kind.
        ValueError: no point, or a value that is not finite or out of range.
    """

    points: tuple[tuple[float, float], ...]
    positive: bool = True
    radius_px: float = 3.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", _points(self.points, 1))
        object.__setattr__(self, "positive", _flag("positive", self.positive))
        radius = _number("radius_px", self.radius_px)
        if radius < 0:
            raise ValueError(f"radius_px: expected at least 0, got {radius}")
        object.__setattr__(self, "radius_px", radius)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle around the object, in image pixels: outside of it is background.

    Attributes:
        x0, y0, x1, y1: two opposite corners, in any order.

    Raises:
        TypeError: a coordinate is not a real number.
        ValueError: a coordinate is NaN or infinite.
    """

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        values = [_number(name, getattr(self, name)) for name in ("x0", "y0", "x1", "y1")]
        for axis, (low, high) in enumerate((("x0", "x1"), ("y0", "y1"))):
            pair = sorted((values[axis], values[axis + 2]))
            object.__setattr__(self, low, pair[0])
            object.__setattr__(self, high, pair[1])

    @property
    def outline(self) -> tuple[tuple[float, float], ...]:
        """The corners (x, y), each joined to the next and the last to the first."""
        return (self.x0, self.y0), (self.x1, self.y0), (self.x1, self.y1), (self.x0, self.y1)


@dataclass(frozen=True, slots=True)
class Lasso:
    """A closed line around the object: outside of it is background.

    Attributes:
        points: (x, y) in image pixels, at least three; the last is joined to the first.

    Raises:
        TypeError: a coordinate is not a real number.
        ValueError: fewer points, or a coordinate that is NaN or infinite.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", _points(self.points, 3))

    @property
    def outline(self) -> tuple[tuple[float, float], ...]:
        """The points (x, y), each joined to the next and the last to the first."""
        return self.points


Prompt = Click | Stroke | Box | Lasso


def moved(prompt: Prompt, x: float, y: float) -> Prompt:
    """A prompt shifted so that it begins at (x, y), in image pixels.

    A click lies there; the first point of a stroke or a lasso does, and a box's top left corner.

    Raises:
        TypeError, ValueError: as the prompt itself.
    """
    if isinstance(prompt, Click):
        return Click(x, y, prompt.positive)
    first = prompt.points[0] if isinstance(prompt, (Stroke, Lasso)) else (prompt.x0, prompt.y0)
    dx, dy = _number("x", x) - first[0], _number("y", y) - first[1]
    if isinstance(prompt, Box):
        return Box(prompt.x0 + dx, prompt.y0 + dy, prompt.x1 + dx, prompt.y1 + dy)
    points = tuple((px + dx, py + dy) for px, py in prompt.points)
    return replace(prompt, points=points)


def _number(name: str, value: object) -> float:
    try:
        if isinstance(value, (str, bytes, bytearray)):
            raise TypeError
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, got {value!r}") from None
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name}: expected a finite number, got {number}")
    return number


def _flag(name: str, value: object) -> bool:
    try:
        good = bool(value in (True, False))
    except ValueError:  # an array has no single truth
        good = False
    if not good:
        raise TypeError(f"{name}: expected a bool, got {value!r}")
    return bool(value)


def _points(points: object, least: int) -> tuple[tuple[float, float], ...]:
    try:
        pairs = [(x, y) for x, y in points]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise TypeError("points: expected a list of pairs (x, y)") from None
    if len(pairs) < least:
        raise ValueError(f"points: expected at least {least}, got {len(pairs)}")
    return tuple((_number("x", x), _number("y", y)) for x, y in pairs)


def flip_axes(box: Region) -> Region:
    """(y0, x0, y1, x1) as a caller's (x0, y0, x1, y1), or the other way round."""
    first0, second0, first1, second1 = box
    return second0, first0, second1, first1


def grid_points(
    points: Iterable[tuple[float, float]], region: Region, grid: tuple[int, int]
) -> np.ndarray:
    """Points of an image on the base grid of a region.

    Pixel centres map to pixel centres: `(x - x0 + 0.5) * grid_width / region_width - 0.5`.

    Args:
        points: (x, y) in image pixels.
        region: over which the grid lies.
        grid: (height, width).

    Returns:
        float32 [N, 2], (y, x) in grid pixels.
    """
    import numpy as np  # here, so that `import trtseg` need not load it

    y0, x0, y1, x1 = region
    scale_y, scale_x = grid[0] / (y1 - y0), grid[1] / (x1 - x0)
    found = [((y - y0 + 0.5) * scale_y - 0.5, (x - x0 + 0.5) * scale_x - 0.5) for x, y in points]
    return np.array(found, np.float32).reshape(-1, 2)


@dataclass(frozen=True, slots=True)
class Timing:
    """What the phases of one answer took, in milliseconds; 0 for a phase that did not run.

    Attributes:
        focus_encode_ms: encoding a crop around the object; happens on few clicks.
        adapt_ms: adapting the weights to the corrections.
        guidance_ms: click and distance maps.
        segment_ms: the synthesis of the candidates.
        select_ms: the selection among them.
        compose_ms: the mask at the image's size.
        total_ms: all of it and what lies between.
    """

    focus_encode_ms: float = 0.0
    adapt_ms: float = 0.0
    guidance_ms: float = 0.0
    segment_ms: float = 0.0
    select_ms: float = 0.0
    compose_ms: float = 0.0
    total_ms: float = 0.0

    def __add__(self, other: Timing) -> Timing:
        """Of one answer after the other."""
        mine, others = asdict(self), asdict(other)
        return Timing(**{name: mine[name] + others[name] for name in mine})

    def to_dict(self) -> dict[str, float]:
        """Plain values for JSON."""
        return asdict(self)
