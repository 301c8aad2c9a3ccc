"""From clicks to the strokes and seeds of classical methods, and the session around them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from trtseg.types import Click

BACKGROUND, OBJECT, UNKNOWN = 0, 1, 2


@dataclass(frozen=True)
class BaselinePrediction:
    """What a baseline answers to a click.

    Attributes:
        mask: uint8 [H, W], 0 and 255.
        probability: float32 [H, W] where the method has one.
    """

    mask: np.ndarray
    probability: np.ndarray | None = None


class Baseline(ABC):
    """A method with its parameters; subclasses are frozen dataclasses.

    Attributes:
        name: as evaluations call it; a subclass that sets one is found by it.
        source: where the method is published, and which library computes it.
    """

    name: ClassVar[str]
    source: ClassVar[str]

    def describe(self) -> dict[str, Any]:
        """See `trtseg.evaluate.methods.Method`: all parameters, and the source."""
        values = {**asdict(self), "source": self.source}  # type: ignore[call-overload]
        return {"kind": "baseline", "name": self.name, "parameters": values}

    @abstractmethod
    def encode(self, image: np.ndarray) -> Any:
        """What no click changes; `image` is uint8 RGB [H, W, 3]."""

    @abstractmethod
    def segment(
        self, encoded: Any, clicks: Sequence[Click], previous: np.ndarray | None
    ) -> BaselinePrediction:
        """The mask for all clicks so far; at least one is positive or the mask is empty.

        Args:
            encoded: what `encode` gave.
            clicks: the oldest first; not empty.
            previous: bool [H, W], the mask before the last click; None at the first.
        """

    @abstractmethod
    def size(self, encoded: Any) -> tuple[int, int]:
        """(height, width) of the encoded image."""

    def session(self, encoded: Any) -> AbstractContextManager[BaselineSession]:
        """Begin to select one object."""
        return nullcontext(BaselineSession(self, encoded))


class BaselineSession:
    """Keeps the clicks of one object and asks the method anew after each."""

    def __init__(self, baseline: Baseline, encoded: Any) -> None:
        self._baseline = baseline
        self._encoded = encoded
        self._clicks: list[Click] = []
        self._previous: np.ndarray | None = None

    def add_click(self, x: float, y: float, positive: bool = True) -> BaselinePrediction:
        """Add a click in image pixels and segment.

        Raises:
            ValueError: the click lies outside the image.
        """
        click = Click(x, y, positive)
        height, width = self._baseline.size(self._encoded)
        if not (-0.5 <= click.x <= width - 0.5 and -0.5 <= click.y <= height - 0.5):
            raise ValueError(
                f"click: expected inside {width}x{height}, got {click.x:g}, {click.y:g}"
            )
        clicks = [*self._clicks, click]
        if not any(click.positive for click in clicks):
            prediction = BaselinePrediction(np.zeros((height, width), np.uint8))
        else:
            prediction = self._baseline.segment(self._encoded, clicks, self._previous)
        self._clicks = clicks
        self._previous = prediction.mask > 0
        return prediction


def stroke_labels(
    clicks: Sequence[Click], size: tuple[int, int], radius_px: float, scale: float = 1.0
) -> np.ndarray:
    """uint8 [H, W] of OBJECT, BACKGROUND and UNKNOWN: each click is a disk.

    Args:
        clicks: in image pixels.
        size: (height, width) of the result.
        radius_px: of the disks, in pixels of the result; the click's own pixel is always set.
        scale: pixels of the result per image pixel.
    """
    height, width = size
    labels = np.full(size, UNKNOWN, np.uint8)
    nearest = np.full(size, np.inf)
    reach = int(np.ceil(radius_px))
    for click in clicks:
        y, x = click_pixel(click, size, scale)
        rows = slice(max(0, y - reach), min(height, y + reach + 1))
        columns = slice(max(0, x - reach), min(width, x + reach + 1))
        dy = np.arange(rows.start, rows.stop)[:, None] - y
        dx = np.arange(columns.start, columns.stop)[None, :] - x
        squared = (dy * dy + dx * dx).astype(float)
        closer = (squared <= max(radius_px, 0.5) ** 2) & (squared <= nearest[rows, columns])
        nearest[rows, columns][closer] = squared[closer]
        labels[rows, columns][closer] = OBJECT if click.positive else BACKGROUND
    return labels


def click_pixel(click: Click, size: tuple[int, int], scale: float = 1.0) -> tuple[int, int]:
    """The pixel (y, x) of a map with `scale` pixels per image pixel that holds the click."""
    y = int(np.clip(np.floor((click.y + 0.5) * scale), 0, size[0] - 1))
    x = int(np.clip(np.floor((click.x + 0.5) * scale), 0, size[1] - 1))
    return y, x


def with_border_background(labels: np.ndarray, always: bool = False) -> np.ndarray:
    """The labels; while none is BACKGROUND (or always), the unknown pixels of the border are."""
    if not always and (labels == BACKGROUND).any():
        return labels
    border = np.ones(labels.shape, bool)
    border[1:-1, 1:-1] = False
    return np.where(border & (labels == UNKNOWN), BACKGROUND, labels).astype(np.uint8)
