"""What a click gives back."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from trtseg.runtime.engine import Memory
from trtseg.runtime.image import Picture, as_picture
from trtseg.runtime.maps.compose import box_of, changes, compose, compose_probability
from trtseg.runtime.session import outlines
from trtseg.runtime.session.cutout import cutout
from trtseg.runtime.session.snapshot import Snapshot
from trtseg.types import Click, Prompt, Region, Timing, flip_axes


class Prediction:
    """The mask of a session after an event.

    It stays as it is when the session goes on; with a buffer of the caller's for the mask, all but
    `mask`, and what is made of it when asked for: `polygons`, `rle`, `cutout`.

    Attributes:
        mask: uint8 [H, W], 0 and 255, of the image's size. Read-only, unless the caller gave the
            buffer.
        changed: box (x0, y0, x1, y1), half open, around the pixels that differ from the mask
            before; None when none does.
        selected: index of the shown candidate; -1 before the first click, 0 after `set_mask`.
        scores: float32 [M], what the model's selector thinks of each candidate, 0 to 1: of `lite`
            the overlap with the object to expect (of a model that selects as the paper does, the
            probability to be the best one). Empty before the first click, [0] after `set_mask`, 0
            without a selector.
        prompts: those that led here, the oldest first.
        obeyed: whether the networks gave every clicked pixel, and every stroke, its label by
            themselves. False where the mask was made to, by the smallest change.
        timing: what it took.
        snapshot: what the session goes on from; not for callers.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        mask: np.ndarray,
        changed: Region | None,
        timing: Timing,
        threshold: float,
        source: Picture | None,
        memory: Memory,
    ) -> None:
        self.mask = mask
        self.changed = None if changed is None else flip_axes(changed)
        self.selected = snapshot.selected
        self.scores = _scores(snapshot.scores)
        self.prompts: tuple[Prompt, ...] = snapshot.prompts
        candidates = snapshot.candidates
        self.obeyed = candidates is None or candidates.obeyed(snapshot.selected)
        self.timing = timing
        self.snapshot, self._threshold, self._source = snapshot, threshold, source
        self._memory = memory
        self._size = mask.shape

    @property
    def clicks(self) -> tuple[Click, ...]:
        """Those of `prompts` that are clicks."""
        return self.snapshot.clicks

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """Box (x0, y0, x1, y1), half open, around the mask; None for an empty one."""
        box = self.snapshot.box
        return None if box is None else flip_axes(box)

    @cached_property
    def probability(self) -> np.ndarray:
        """float32 [H, W] in [0, 1], at the image's size; made when first asked for.

        The mask is where it reaches the model's threshold. Exactly 0 outside a focus crop.
        """
        snapshot = self.snapshot
        if snapshot.given is not None:
            return _read_only(_given_mask(snapshot, self._size).astype(np.float32))
        if snapshot.candidates is None:
            return _read_only(np.zeros(self._size, np.float32))
        return _read_only(self.candidate_probability(snapshot.selected))

    def candidate_probability(self, index: int) -> np.ndarray:
        """float32 [H, W] of any of the model's candidates, as `probability`; made anew each time.

        Raises:
            IndexError: there is no such candidate.
            OutOfMemory: there is no room for the candidates; nothing is lost.
        """
        snapshot = self.snapshot
        if not 0 <= index < len(self.scores):
            raise IndexError(f"index: expected 0 to {len(self.scores) - 1}, got {index}")
        return compose_probability(
            self._memory, snapshot.drawn(index), snapshot.region, self._size, self._threshold
        )

    @cached_property
    def candidates(self) -> np.ndarray:
        """uint8 [M, H, W], 0 and 255: all candidates at the image's size; made when asked for.

        Raises:
            OutOfMemory: there is no room for them; nothing is lost.
        """
        snapshot = self.snapshot
        if snapshot.given is not None:
            return _read_only(_given_mask(snapshot, self._size)[None] * np.uint8(255))
        masks = np.empty((len(self.scores), *self._size), np.uint8)
        for index, mask in enumerate(masks):
            compose(
                self._memory, snapshot.drawn(index), snapshot.region, self._threshold, mask
            )
        return _read_only(masks)

    @cached_property
    def grid_probabilities(self) -> np.ndarray:
        """float32 [M, h, w]: all candidates on the networks' grid, over `grid_region`.

        Raises:
            OutOfMemory: there is no room for them; nothing is lost.
        """
        candidates = self.snapshot.candidates
        if candidates is None:
            return _read_only(np.zeros((0, 1, 1), np.float32))
        return _read_only(np.array([self._memory.host(each) for each in candidates], np.float32))

    @property
    def grid_region(self) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1), half open: the part of the image that the network looked at."""
        return flip_axes(self.snapshot.region)

    def polygons(self, tolerance_px: float = 1.0) -> list[outlines.Polygon]:
        """Outlines of the mask; see `trtseg.runtime.session.outlines.polygons`."""
        return outlines.polygons(self.mask, tolerance_px)

    def rle(self) -> dict[str, object]:
        """The mask as COCO's compressed run lengths, ready for JSON."""
        return outlines.rle(self.mask)

    def cutout(
        self,
        image: np.ndarray | None = None,
        image_format: str | None = None,
        *,
        soft: bool = False,
    ) -> np.ndarray:
        """The object on a transparent ground: [H, W, 4], RGBA; uint16 where the image is, or uint8.

        What is transparent in the image stays so. Where nothing is left the colour is 0, too.

        Args:
            image: where the colours come from; by default the image that was encoded.
            image_format: of that image, see `Segmenter.encode`.
            soft: give the edge partial opacity. With PyMatting (the extra `matting`) alpha is
                estimated in a band around the contour, and the object's colours there without the
                background's; that takes seconds, and minutes at its first use, when PyMatting
                compiles itself. Else alpha is the probability in that band.

        Raises:
            ValueError: no image is known (the encoding was unpickled), or it has another size.
        """
        picture = self._source if image is None else as_picture(image, image_format)
        if picture is None:
            raise ValueError("image: expected an image, since the encoding came without one")
        if picture.size != self._size:
            raise ValueError(f"image: expected size {self._size}, got {picture.size}")
        return cutout(picture, self.mask, self.probability if soft else None)

    def __repr__(self) -> str:
        return (
            f"Prediction(box={self.box}, selected={self.selected}, "
            f"scores={np.round(self.scores, 3).tolist()}, prompts={len(self.prompts)})"
        )


def compose_snapshot(
    memory: Memory,
    snapshot: Snapshot,
    threshold: float,
    out: np.ndarray,
    previous: np.ndarray | None,
    previous_box: Region | None,
) -> tuple[Region | None, Region | None]:
    """Write a snapshot's mask.

    Args:
        memory, threshold, out: see `compose`.
        snapshot: whose mask is written.
        previous: the mask before, another array; None for an empty one.
        previous_box: `box_of(previous)`.

    Returns:
        (box of the object, box of the pixels that changed).
    """
    if snapshot.given is not None:
        np.multiply(_given_mask(snapshot, out.shape), np.uint8(255), out=out)
        box = box_of(out)
    elif snapshot.candidates is not None:
        shown = snapshot.drawn(snapshot.selected)
        box = compose(memory, shown, snapshot.region, threshold, out, snapshot.composed)
    else:
        out.fill(0)
        box = None
    return box, box if previous is None else changes(out, previous, box, previous_box)


def _given_mask(snapshot: Snapshot, size: tuple[int, ...]) -> np.ndarray:
    assert snapshot.given is not None
    return np.unpackbits(snapshot.given, count=size[0] * size[1]).reshape(size)


def _scores(scores: np.ndarray | None) -> np.ndarray:
    return _read_only(np.zeros(0, np.float32) if scores is None else scores.astype(np.float32))


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array
