"""`SamPredictor`: one image, then masks for points, boxes and masks of before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trtseg.errors import BackendUnavailable
from trtseg.runtime.encoded import EncodedImage
from trtseg.runtime.engine import on_host
from trtseg.runtime.session import Session
from trtseg.runtime.session.prediction import Prediction
from trtseg.sam.transforms import ResizeLongestSide, from_low_resolution, to_low_resolution

if TYPE_CHECKING:
    from trtseg.sam.model import Sam

FOREGROUND, BACKGROUND, TOP_LEFT, BOTTOM_RIGHT, PADDING = 1, 0, 2, 3, -1
MULTIMASKS = 3
LOGIT_LIMIT = 16.0

Prompt = tuple[float, ...]  # (x, y, label) of a point, (x0, y0, x1, y1) of a box; image pixels


def torch_module() -> Any:
    """torch, for a caller who asked for tensors.

    Raises:
        BackendUnavailable: torch is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise BackendUnavailable("tensors need torch; pip install 'trtseg[train]'") from None
    return torch


class SamPredictor:
    """Segment Anything's predictor over a segmenter.

    A click's mask builds on the mask before it, so points are answered in their order, boxes
    first; when a call repeats the prompts of the last one and adds some, only the new ones are
    run. Of the model's candidates three come out, the one with the best score first.

    Not for several threads at once: it holds a current image. Use `Segmenter` there.

    Attributes:
        model: the `Sam` it runs.
        transform: points and boxes into the frame of `predict_torch`.
    """

    _input_size: tuple[int, int] | None

    def __init__(self, sam_model: Sam) -> None:
        self.model = sam_model
        self.transform = ResizeLongestSide(sam_model.image_encoder.img_size)
        self.reset_image()

    @property
    def is_image_set(self) -> bool:
        """Whether there is a current image."""
        return self._session is not None

    @property
    def original_size(self) -> tuple[int, int]:
        """(height, width) of the current image.

        Raises:
            RuntimeError: no image is set.
        """
        return self._current().encoded.image_size

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the current image in the frame whose longer side is 1024.

        Raises:
            RuntimeError: no image is set.
        """
        size = self.transform.get_preprocess_shape(
            *self.original_size, self.transform.target_length
        )
        return self._input_size or size

    @property
    def features(self) -> Any:
        """`get_image_embedding`; None without an image."""
        return self.get_image_embedding() if self.is_image_set else None

    @property
    def device(self) -> Any:
        """The torch.device on which tensors are given out."""
        return self.model.device

    def set_image(self, image: np.ndarray, image_format: str = "RGB") -> None:
        """Encode an image and make it the current one.

        Args:
            image: [H, W, C], see `Segmenter.encode`.
            image_format: "RGB" or "BGR", or another of `Segmenter.encode`.

        Raises:
            TypeError, ValueError, EngineError: as `Segmenter.encode`.
        """
        self._begin(self.model.segmenter.encode(image, image_format))

    def set_torch_image(
        self, transformed_image: Any, original_image_size: tuple[int, ...]
    ) -> None:
        """Encode an image that is in the model's frame already.

        Args:
            transformed_image: tensor [1, 3, h, w], RGB, 0 to 255, of any dtype, as
                `transform` gives it: the longer side is 1024.
            original_image_size: (height, width) of the image before; masks are of this size.

        Raises:
            ValueError: of another shape or size.
            EngineError: the encoder failed.
        """
        shape = tuple(transformed_image.shape)
        longest = self.transform.target_length
        if len(shape) != 4 or shape[:2] != (1, 3) or max(shape[2:]) != longest:
            raise ValueError(
                f"transformed_image: expected [1, 3, h, w] with a longer side of {longest}, "
                f"got {list(shape)}"
            )
        height, width = (int(side) for side in original_image_size)
        if height < 1 or width < 1:
            raise ValueError(f"original_image_size: expected >= 1, got {(height, width)}")
        pixels = transformed_image[0].round().clamp(0, 255).byte().permute(1, 2, 0)
        encoded = self.model.segmenter.encode(pixels.contiguous().numpy(force=True), "RGB")
        # the same encoding, read in the pixels of the image that it was made from
        self._begin(
            replace(
                encoded, image_size=(height, width), region=(0, 0, height, width), source=None
            )
        )
        self._input_size = shape[2], shape[3]

    def reset_image(self) -> None:
        """Forget the current image."""
        self._session: Session | None = None
        self._input_size = None
        self._answered: list[Prompt] = []
        self._mask_input: tuple[object, bytes] | None = None

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
            mask_input: [1, 256, 256] logits that an earlier call gave; the points continue
                from it.
            multimask_output: three masks, or the selected one alone.
            return_logits: logits in place of bool masks.

        Returns:
            masks: bool (or float32 logits) [C, H, W], of the image's size, C 3 or 1 (fewer where
                the model has fewer candidates); the best score first.
            scores: float32 [C], see `Prediction.scores`.
            logits: float32 [C, 256, 256] in the padded square frame, fit for `mask_input`.

        Raises:
            RuntimeError: no image is set.
            TypeError: a prompt is no array of numbers.
            EngineError: a network failed.
            ValueError: no prompt is given, shapes do not fit, or a point lies outside of the image.
        """
        session = self._current()
        prompts = _prompts(point_coords, point_labels, box)
        if not prompts and mask_input is None:
            raise ValueError("point_coords: expected a point, a box or a mask_input, got none")
        prediction = self._answer(session, prompts, mask_input)
        count = MULTIMASKS if multimask_output else 1
        order = [prediction.selected]
        order += [int(m) for m in np.argsort(-prediction.scores, kind="stable") if m not in order]
        return self._masks(prediction, order[:count], return_logits)

    def predict_torch(
        self,
        point_coords: Any,
        point_labels: Any,
        boxes: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[Any, Any, Any]:
        """`predict` for a batch of prompts on the current image, as tensors.

        Args:
            point_coords: [B, N, 2] (x, y) in the frame of `transform`, or None.
            point_labels: [B, N], as for `predict`.
            boxes: [B, 4] in the frame of `transform`, or None.
            mask_input: [B, 1, 256, 256], or None.
            multimask_output, return_logits: as for `predict`.

        Returns:
            masks [B, C, H, W], scores [B, C], logits [B, C, 256, 256]: tensors on `device`.

        Raises:
            As `predict`; ValueError also where the batches differ in size.
            BackendUnavailable: torch is not installed.
        """
        torch = torch_module()
        size = self.original_size
        given = {
            "point_coords": point_coords,
            "point_labels": point_labels,
            "box": boxes,
            "mask_input": mask_input,
        }
        arrays = {
            name: np.asarray(value.numpy(force=True) if hasattr(value, "numpy") else value)
            for name, value in given.items()
            if value is not None
        }
        sizes = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"batch: expected the same size for all, got {sizes}")
        # the transform's inverse: what it makes of one pixel says its scale
        scale = self.transform.apply_coords(np.ones(2), size)
        for name, factors in (("point_coords", scale), ("box", np.tile(scale, 2))):
            if name in arrays:
                arrays[name] = arrays[name] / factors
        answers = [
            self.predict(
                **{name: array[index] for name, array in arrays.items()},
                multimask_output=multimask_output,
                return_logits=return_logits,
            )
            for index in range(next(iter(sizes.values()), 1))
        ]
        stacked = [np.stack(arrays) for arrays in zip(*answers, strict=True)]
        masks, scores, logits = (torch.as_tensor(each, device=self.device) for each in stacked)
        return masks, scores, logits

    def candidates(
        self, x: float, y: float, above: float = 0.0
    ) -> Iterator[tuple[float, np.ndarray]]:
        """All that the model makes of one click, not three alone (beyond the original).

        Args:
            x, y: of the click, in pixels.
            above: leave out candidates whose score is not above this; 0 for all.

        Yields:
            (score, float32 [H, W] logits) of each, in the model's order. Raises as `predict`.
        """
        prediction = self._answer(self._current(), [(x, y, float(FOREGROUND))], None)
        for index, score in enumerate(prediction.scores.tolist()):
            if above <= 0 or score > above:
                masks, _, _ = self._masks(prediction, [index], return_logits=True)
                yield score, masks[0]

    def get_image_embedding(self) -> Any:
        """What a click needs of the image: a tensor [1, C, h, w] on `device`.

        Raises:
            RuntimeError: no image is set.
            BackendUnavailable: torch is not installed.
        """
        base = np.array(on_host(self._current().encoded.base), np.float32)
        return torch_module().as_tensor(base[None], device=self.device)

    def _begin(self, encoded: EncodedImage) -> None:
        self.reset_image()
        # A focus crop would tie the low-resolution masks to a part of the image.
        self._session = self.model.segmenter.session(encoded, focus=None)

    def _answer(
        self, session: Session, prompts: list[Prompt], mask_input: np.ndarray | None
    ) -> Prediction:
        known = None
        if mask_input is not None:
            known = np.shape(mask_input), _numbers(mask_input, "mask_input").tobytes()
        if known != self._mask_input or prompts[: len(self._answered)] != self._answered:
            session.reset()
            self._answered, self._mask_input = [], None
            if mask_input is not None:
                session.set_mask(_full_mask(mask_input, session.encoded.image_size))
                self._mask_input = known
        for prompt in prompts[len(self._answered) :]:
            _add(session, prompt)
            self._answered.append(prompt)
        return session.prediction

    def _masks(
        self, prediction: Prediction, which: list[int], return_logits: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Masks, scores and low-resolution logits of some of the candidates."""
        size = self.original_size
        threshold = self.model.segmenter.bundle.manifest.threshold
        grid = prediction.grid_probabilities[which]
        masks = np.empty((len(which), *size), np.float32 if return_logits else bool)
        for index, mask in zip(which, masks, strict=True):
            values = prediction.candidate_probability(index)
            mask[:] = _logits(values, threshold) if return_logits else values >= threshold
        low = to_low_resolution(_logits(grid, threshold), size)
        return masks, prediction.scores[which], low

    def _current(self) -> Session:
        if self._session is None:
            raise RuntimeError("image: none is set, call set_image first")
        return self._session


def _add(session: Session, prompt: Prompt) -> None:
    """Give a session a point or a box."""
    if len(prompt) == 3:
        x, y, label = prompt
        session.add_click(x, y, label == FOREGROUND)
    else:
        session.add_box(*prompt)


def _prompts(
    coords: np.ndarray | None, labels: np.ndarray | None, box: np.ndarray | None
) -> list[Prompt]:
    """The boxes, then the points that count."""
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
    for x0, y0, x1, y1 in boxes:
        if not (x0 < x1 and y0 < y1):
            raise ValueError(f"box: expected x0 < x1 and y0 < y1, got {[x0, y0, x1, y1]}")
    points = [
        (x, y, kind)
        for (x, y), kind in zip(xy.tolist(), kinds.tolist(), strict=True)
        if kind in (FOREGROUND, BACKGROUND)
    ]
    return [tuple(values.tolist()) for values in boxes] + points


def _numbers(values: object, name: str) -> np.ndarray:
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected an array of numbers, got {values!r}") from None


def _full_mask(mask_input: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    logits = _numbers(mask_input, "mask_input").astype(np.float32)
    if logits.ndim != 3 or logits.shape[0] != 1 or 0 in logits.shape:
        raise ValueError(f"mask_input: expected [1, h, w], got {list(logits.shape)}")
    return from_low_resolution(logits[0], size) > 0


def _logits(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Above 0 where the probability is above the threshold; clamped, since 0 and 1 have none."""
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities) - np.log1p(-probabilities)
    offset = np.log(threshold) - np.log1p(-threshold)
    return np.clip(logits - np.float32(offset), -LOGIT_LIMIT, LOGIT_LIMIT)
