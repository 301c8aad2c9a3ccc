"""The vocabulary that every layer shares: clicks, regions, and how the two lie to each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
            value = getattr(self, name)
            try:
                if isinstance(value, (str, bytes, bytearray)):
                    raise TypeError
                number = float(value)
            except (TypeError, ValueError):
                raise TypeError(f"{name}: expected a number, got {value!r}") from None
            except OverflowError:
                number = math.inf
            if not math.isfinite(number):
                raise ValueError(f"{name}: expected a finite number, got {number}")
            object.__setattr__(self, name, number)
        try:
            good = bool(self.positive in (True, False))
        except ValueError:  # an array has no single truth
            good = False
        if not good:
            raise TypeError(f"positive: expected a bool, got {self.positive!r}")
        object.__setattr__(self, "positive", bool(self.positive))

    @property
    def pixel(self) -> tuple[int, int]:
        """(y, x) of the pixel that the click lies in: halves belong to the next one."""
        return math.floor(self.y + 0.5), math.floor(self.x + 0.5)


def flip_axes(box: Region) -> Region:
    """(y0, x0, y1, x1) as a caller's (x0, y0, x1, y1), or the other way round."""
    first0, second0, first1, second1 = box
    return second0, first0, second1, first1


def grid_points(
    clicks: Sequence[Click], region: Region, grid: tuple[int, int], *, positive: bool
) -> np.ndarray:
    """The clicks of one kind on the base grid of a region.

    Pixel centres map to pixel centres: `(x - x0 + 0.5) * grid_width / region_width - 0.5`.

    Returns:
        float32 [N, 2], (y, x) in grid pixels.
    """
    import numpy as np  # here, so that `import trtseg` need not load it

    y0, x0, y1, x1 = region
    scale_y, scale_x = grid[0] / (y1 - y0), grid[1] / (x1 - x0)
    points = [
        ((c.y - y0 + 0.5) * scale_y - 0.5, (c.x - x0 + 0.5) * scale_x - 0.5)
        for c in clicks
        if c.positive == positive
    ]
    return np.array(points, np.float32).reshape(-1, 2)


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

    def to_dict(self) -> dict[str, float]:
        """Plain values for JSON."""
        return asdict(self)
