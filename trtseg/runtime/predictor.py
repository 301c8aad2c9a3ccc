"""Segment Anything's interface over a segmenter, for programs that were written for it."""

from __future__ import annotations

import cv2
import numpy as np

from trtseg.runtime.segmenter import Segmenter
from trtseg.runtime.session import Session
from trtseg.runtime.session.prediction import Prediction

FOREGROUND, BACKGROUND, TOP_LEFT, BOTTOM_RIGHT, PADDING = 1, 0, 2, 3, -1
LOGIT_LIMIT = 16.0


class Predictor:
    """`set_image`, then `predict`, as with Segment Anything's `SamPredictor`.

    Differences: a click's mask builds on the mask before it, so points are answered in their
    order, boxes first; when a call repeats the points of the last one and adds some, only the new
    ones are run. A box becomes a positive point at its centre and negative ones at its corners.
    `multimask_output=True` gives as many masks as the model has hypotheses.

    Not for several threads at once: it holds a current image. Use `Segmenter` there.
    """

    mask_threshold = 0.0

    def __init__(self, segmenter: Segmenter) -> None:
        self.model = segmenter
        self._session: Session | None = None
        self._answered: list[tuple[float, float, bool]] = []
        self._mask_input: tuple[object, bytes] | None = None

    @property
    def is_image_set(self) -> bool:
        """Whether `set_image` was called."""
        return self._session is not None

    @property
    def original_size(self) -> tuple[int, int]:
        """(height, width) of the current image."""
        return self._current().encoded.image_size

    def set_image(self, image: np.ndarray, image_format: str = "RGB") -> None:
        """Encode an image and make it the current one.

        Args:
            image: [H, W, C], see `Segmenter.encode`.
            image_format: "RGB" or "BGR", or another of `Segmenter.encode`.
        """
        encoded = self.model.encode(image, image_format)
        # A focus crop would tie the low-resolution masks to a part of the image.
        self._session = self.model.session(encoded, focus=None)
        self._answered, self._mask_input = [], None

    def reset_image(self) -> None:
        """Forget the current image."""
        self._session = None

    def predict(
        self,
        point_coords: np.ndarray | None = None,
        point_labels: np.ndarray | None = None,
        box: np.ndarray | None = None,
        mask_input: np.ndarray | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Masks for points, a box, and a mask of before.

        Args:
            point_coords: [N, 2] (x, y) in pixels.
            point_labels: [N]: 1 foreground, 0 background, 2 and 3 the corners of a box, -1 ignored.
            box: [4], x0, y0, x1, y1 in pixels.
            mask_input: [1, h, w] logits that an earlier call gave; the points continue from it.
            multimask_output: all hypotheses, or the selected one alone.
            return_logits: logits in place of bool masks.

        Returns:
            masks: bool (or float32 logits) [C, H, W], of the image's size.
            scores: float32 [C], see `Prediction.scores`.
            logits: float32 [C, h, w], of the network's size, fit for `mask_input`.

        Raises:
            TypeError: a prompt is no array of numbers.
            EngineError: a network failed.
            ValueError: no image is set, no prompt is given, shapes do not fit, or a point lies
                outside of the image.
        """
        session = self._current()
        points = _points(point_coords, point_labels, box, session.encoded.image_size)
        if not points and mask_input is None:
            raise ValueError("point_coords: expected a point, a box or a mask_input, got none")
        prediction = self._answer(session, points, mask_input)
        maps = prediction.grid_probabilities
        if not multimask_output:
            maps = maps[prediction.selected, None]
        logits = _logits(maps)
        scores = prediction.scores if multimask_output else prediction.scores.max(keepdims=True)
        if return_logits:
            height, width = session.encoded.image_size
            masks = np.stack([cv2.resize(m, (width, height)) for m in logits])
        elif multimask_output:
            masks = prediction.candidates > 0
        else:
            masks = prediction.mask[None] > 0
        return masks, np.array(scores), logits

    def _answer(
        self,
        session: Session,
        points: list[tuple[float, float, bool]],
        mask_input: np.ndarray | None,
    ) -> Prediction:
        known = None
        if mask_input is not None:
            known = np.shape(mask_input), _numbers(mask_input, "mask_input").tobytes()
        if known != self._mask_input or points[: len(self._answered)] != self._answered:
            session.reset()
            self._answered, self._mask_input = [], None
            if mask_input is not None:
                session.set_mask(_full_mask(mask_input, session.encoded.image_size))
                self._mask_input = known
        for point in points[len(self._answered) :]:
            session.add_click(*point)
            self._answered.append(point)
        return session.prediction

    def _current(self) -> Session:
        if self._session is None:
            raise ValueError("image: none is set, call set_image first")
        return self._session


def _points(
    coords: np.ndarray | None,
    labels: np.ndarray | None,
    box: np.ndarray | None,
    size: tuple[int, int],
) -> list[tuple[float, float, bool]]:
    """(x, y, positive) of a prompt, the box first."""
    if (coords is None) != (labels is None):
        raise ValueError("point_labels: expected with point_coords, and only with them")
    xy = np.zeros((0, 2)) if coords is None else _numbers(coords, "point_coords")
    kinds = np.zeros(0) if labels is None else _numbers(labels, "point_labels")
    if xy.ndim != 2 or xy.shape[1] != 2 or kinds.shape != xy.shape[:1]:
        raise ValueError(
            f"point_coords: expected [N, 2] with labels [N], got {list(xy.shape)} "
            f"and {list(kinds.shape)}"
        )
    if not np.isin(kinds, (FOREGROUND, BACKGROUND, TOP_LEFT, BOTTOM_RIGHT, PADDING)).all():
        raise ValueError(f"point_labels: expected 1, 0, 2, 3 or -1, got {kinds.tolist()}")
    corners = [xy[kinds == TOP_LEFT], xy[kinds == BOTTOM_RIGHT]]
    boxes = []
    if box is not None:
        values = _numbers(box, "box").reshape(-1)
        if values.shape != (4,):
            raise ValueError(f"box: expected [4], got {list(np.shape(box))}")
        boxes.append(values)
    if len(corners[0]) != len(corners[1]):
        raise ValueError("point_labels: expected as many labels 2 as labels 3")
    boxes += [np.concatenate(pair) for pair in zip(*corners, strict=True)]
    found: list[tuple[float, float, bool]] = []
    for x0, y0, x1, y1 in boxes:
        if not (x0 < x1 and y0 < y1):
            raise ValueError(f"box: expected x0 < x1 and y0 < y1, got {[x0, y0, x1, y1]}")
        x0, x1 = np.clip((x0, x1), 0, size[1] - 1)
        y0, y1 = np.clip((y0, y1), 0, size[0] - 1)
        found.append((float((x0 + x1) / 2), float((y0 + y1) / 2), True))
        found += [(float(x), float(y), False) for y in (y0, y1) for x in (x0, x1)]
    for (x, y), kind in zip(xy.tolist(), kinds.tolist(), strict=True):
        if kind in (FOREGROUND, BACKGROUND):
            found.append((x, y, kind == FOREGROUND))
    return found


def _numbers(values: object, name: str) -> np.ndarray:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected an array of numbers, got {values!r}") from None


def _full_mask(mask_input: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    logits = _numbers(mask_input, "mask_input").astype(np.float32)
    if logits.ndim != 3 or logits.shape[0] != 1 or 0 in logits.shape:
        raise ValueError(f"mask_input: expected [1, h, w], got {list(logits.shape)}")
    return cv2.resize(logits[0], (size[1], size[0])) > 0


def _logits(probabilities: np.ndarray) -> np.ndarray:
    """Clamped, since a probability of exactly 0 or 1 has no finite logit."""
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities) - np.log1p(-probabilities)
    return np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT)
