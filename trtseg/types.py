"""The vocabulary that every layer shares."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass


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
