"""Adaptation over a sequence of images (CA section 3.3), alone or together with the image's."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from trtseg.adapt.adapter import ClickAdapter, Learner, replayed, shown_clicks
from trtseg.adapt.config import MODES
from trtseg.adapt.latent import corrections_of
from trtseg.adapt.learn import learn
from trtseg.adapt.rehearsal import Rehearsal
from trtseg.adapt.weights import AdaptedWeights, Report
from trtseg.atomic import check_room, is_empty
from trtseg.errors import CheckpointError
from trtseg.nn.checkpoint import read_checkpoint, save_checkpoint
from trtseg.parse import build, one_of, quoted
from trtseg.runtime.encoded import EncodedImage
from trtseg.runtime.segmenter import Segmenter
from trtseg.runtime.session import Session
from trtseg.runtime.session.observation import Observation, observe

_PARTS = ("values", "first", "second")
_LARGEST_COUNT = 2**53  # of images and steps: what every reader of JSON knows exactly


@dataclass(frozen=True)
class _State:
    """What a sequence's `state.json` says besides what every checkpoint's does.

    Attributes:
        model: fingerprint of the bundle.
        images: how many were learnt from.
        adam_step: the optimiser's step count.
        id: of this state.
        parent: id of the state that it came from; None for the first.
    """

    model: str
    images: int
    adam_step: int
    id: str | None = None
    parent: str | None = None

    def __post_init__(self) -> None:
        for name in ("images", "adam_step"):
            if not 0 <= getattr(self, name) <= _LARGEST_COUNT:
                raise ValueError(f"{name}: expected at least 0, got {quoted(getattr(self, name))}")

    @classmethod
    def of(cls, state: dict[str, Any], path: Path) -> _State:
        known = {key: state[key] for key in cls.__dataclass_fields__ if key in state}
        try:
            return build(cls, known, "state")
        except ValueError as error:
            raise CheckpointError(f"{path}: {error}") from None


class Sequence:
    """Images that are segmented one after the other, by a model that learns from each.

    Args:
        model: a segmenter, or a learner for it.
        adapt: "image" (every object begins with the model's own weights), "sequence" (some steps
            after every image) or "both".
        state: a folder in which the state is kept: read now if it is there and not empty, and
            replaced atomically after every image. One sequence at a time may keep its state in a
            folder: every state says which one it came from, and of two that came from the same,
            one is saved and one is refused. Images are not in it: what goes on from it rehearses
            none from before. "image" has no state.

    Attributes:
        images: how many have been learnt from.
        weights: with which the next image begins.

    Raises:
        ValueError: an unknown mode, or a state for "image".
        BundleError: the model cannot be adapted, or has no importance beside it.
        CheckpointError: `state` is damaged, of another model, or where nothing can be written.
    """

    def __init__(
        self,
        model: Segmenter | Learner,
        adapt: str = "both",
        *,
        state: str | Path | None = None,
    ) -> None:
        one_of("adapt", adapt, MODES)
        self.learner, self.adapt = Learner.of(model), adapt
        self.images = 0
        self.weights = self.learner.initial
        self._rehearsal = Rehearsal(self.learner.config.sequence.rehearsed)
        self._state = None if state is None else Path(state)
        self._id: str | None = None  # of the state that this one came from
        self._own: set[str | None] = {None}  # of all that it loaded or wrote
        if self._state is None:
            return
        if adapt == "image":
            raise ValueError("state: 'image' carries nothing from image to image; expected None")
        self._check_place(self._state)
        if not is_empty(self._state):
            self.load(self._state)

    @property
    def report(self) -> Report:
        """What was learnt from the last image."""
        return self.weights.report

    @contextmanager
    def image(
        self, image: np.ndarray | EncodedImage, image_format: str | None = None, **options: Any
    ) -> Iterator[Session]:
        """A session on the next image; leaving the block normally is what teaches.

        Clicks that were submitted and not answered yet are waited for. An exception inside the
        block, or during the step, leaves the sequence as it was: only that image is lost.

        Args:
            image: as `Segmenter.encode` takes it, or what it gave.
            image_format: as there.
            options: of `Segmenter.session`.

        Raises:
            CheckpointError: at once, where the state cannot be written any more; afterwards, as
                `learn_from`.
        """
        if self._state is not None:
            self._check_place(self._state)
        segmenter = self.learner.segmenter
        encoded = image
        if not isinstance(encoded, EncodedImage):
            encoded = segmenter.encode(encoded, image_format)
        base = self.weights
        adapter = ClickAdapter(self.learner, lambda: base, adapts=self.adapt != "sequence")
        session = segmenter.session(encoded, adapt=adapter, **options)
        yield session
        session.wait()
        self.learn_from(session)

    def learn_from(self, session: Session) -> Report:
        """The steps on what a session ended with; does nothing without a prompt on the object.

        Raises:
            CheckpointError: another sequence has written to the state's folder, or nothing can
                be written there. This one goes on as it was before the image.
        """
        shown_object = any(getattr(prompt, "positive", True) for prompt in session.prompts)
        if self.adapt == "image" or not shown_object:
            return Report()
        learner = self.learner
        observation, mask = _final(learner, session)
        learning, seed = learner.config.sequence, [learner.config.seed, self.images]
        if learning.guidance == "replay":
            moments = session.observations()
            shown = [moments[index] for index in replayed(len(moments), seed)]
        else:
            shown = [shown_clicks(observation, learning.guidance, seed)]
        corrections = corrections_of(observation)
        examples = [
            learner.model.example(each, corrections, mask, learning.candidates)
            for each in shown
        ]
        weights = learn(
            self.weights,
            self._rehearsal.beside(examples, learning.steps, seed),
            learner.initial.values,
            learner.importance,
            learning,
        )
        images = self.images + 1
        if self._state is not None:
            self._write(self._state, weights, images, kept=True)
        self.weights, self.images = weights, images
        if not weights.report.rejected:
            self._rehearsal.keep(examples)
        return weights.report

    def save(self, path: str | Path) -> None:
        """Write the state to a folder; an interruption leaves the old one or the new one whole.

        Raises:
            CheckpointError: it cannot be written.
        """
        self._write(Path(path), self.weights, self.images)

    def load(self, path: str | Path) -> None:
        """Go on from a state that was saved.

        Raises:
            CheckpointError: it is missing, damaged, or of another model or other layers.
        """
        tensors, raw = read_checkpoint(path)
        state = _State.of(raw, Path(path))
        if state.model != self.learner.segmenter.bundle.fingerprint:
            raise CheckpointError(f"{path}: belongs to another model")
        parts = _checked_parts(tensors, self.learner.initial.values, path)
        device = self.learner.model.device
        values, first, second = (
            {name: tensor.to(device) for name, tensor in parts[part].items()} for part in _PARTS
        )
        weights = AdaptedWeights(values, first, second, state.adam_step)
        self.weights, self.images = weights, state.images
        self._rehearsal.clear()
        self._id = state.id
        self._own.add(state.id)

    def _check_place(self, path: Path) -> None:
        """Refuse before an image is worked on, and not after."""
        try:
            if not is_empty(path) and not path.is_dir():
                raise CheckpointError(f"{path}: cannot be written: no folder to write to")
            floats = sum(value.numel() for value in self.learner.initial.values.values())
            check_room(path, 4 * len(_PARTS) * floats)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be written: {error.strerror}") from None

    def _write(
        self, path: Path, weights: AdaptedWeights, images: int, *, kept: bool = False
    ) -> None:
        """Save; where the state is kept, only over one that is this sequence's own."""
        tensors = {
            f"{part}.{name}": tensor
            for part in _PARTS
            for name, tensor in getattr(weights, part).items()
        }
        fresh = secrets.token_hex(16)
        state = {
            "network": dict(self.learner.segmenter.bundle.manifest.raw["network"]),
            "model": self.learner.segmenter.bundle.fingerprint,
            "images": images,
            "adam_step": weights.step,
            "id": fresh,
            "parent": self._id,
        }

        def expect_own(there: dict[str, Any] | None) -> None:
            found = None if there is None else _State.of(there, path)
            if found is not None and found.id not in self._own:
                raise CheckpointError(
                    f"{path}: has learnt from {found.images} images and this sequence from "
                    f"{self.images}: another one keeps its state there"
                )

        # Before: an interruption may come when it is there already.
        self._own.add(fresh)
        if not kept:
            save_checkpoint(path, tensors, state)
            return
        save_checkpoint(path, tensors, state, accept=expect_own)
        self._id, self._own = fresh, {fresh}


def _checked_parts(
    tensors: dict[str, Tensor], initial: Any, path: str | Path
) -> dict[str, dict[str, Tensor]]:
    """A state's tensors by part and name.

    Raises:
        CheckpointError: they are not those of these layers, or no state that learning can leave.
    """
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
    for key, tensor in tensors.items():
        part, _, name = key.partition(".")
        if part not in parts:
            raise CheckpointError(f"{path}: unknown tensor {quoted(key)}")
        parts[part][name] = tensor
    for part, found in parts.items():
        if not found and part != "values" and not (parts["first"] or parts["second"]):
            continue  # before the first step
        if found.keys() != initial.keys():
            raise CheckpointError(f"{path}: other layers are adapted there")
        for name, tensor in found.items():
            if tensor.shape != initial[name].shape:
                raise CheckpointError(f"{path}: the weights have other shapes")
            if tensor.dtype != torch.float32 or not bool(torch.isfinite(tensor).all()):
                raise CheckpointError(f"{path}: {part}.{name}: expected finite float32")
            if part == "second" and bool((tensor < 0).any()):
                raise CheckpointError(f"{path}: {part}.{name}: expected no negative values")
    return parts


def _final(learner: Learner, session: Session) -> tuple[Observation, np.ndarray]:
    """The end of a session over all that was encoded, whatever crop it looked at last."""
    encoded, prediction = session.encoded, session.prediction
    grid = encoded.grid
    y0, x0, y1, x1 = encoded.region
    inside = prediction.mask[y0:y1, x0:x1]
    # a cell belongs to the object as far as the mask fills it
    shrinks = inside.size > grid[0] * grid[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    mask = cv2.resize(inside, (grid[1], grid[0]), interpolation=method).astype(np.float32) / 255
    return observe(encoded, session.prompts, None, prediction.selected), mask
