"""Adaptation over a sequence of images (CA section 3.3), alone or together with the image's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from trtseg.adapt.adapter import ClickAdapter, Learner, replayed, shown_clicks
from trtseg.adapt.config import MODES
from trtseg.adapt.latent import corrections_of
from trtseg.adapt.learn import learn
from trtseg.adapt.weights import AdaptedWeights, Report
from trtseg.errors import CheckpointError
from trtseg.nn.checkpoint import read_checkpoint, save_checkpoint
from trtseg.runtime.encoded import EncodedImage
from trtseg.runtime.segmenter import Segmenter
from trtseg.runtime.session import Session
from trtseg.runtime.session.observation import Observation, observe

_PARTS = ("values", "first", "second")


class Sequence:
    """Images that are segmented one after the other, by a model that learns from each.

    Args:
        model: a segmenter, or a learner for it.
        adapt: "image" (every object begins with the model's own weights), "sequence" (one step
            after every image) or "both".
        state: a folder in which the state is kept: read now if it is there and not empty, and
            replaced atomically after every image. One sequence at a time may keep its state in a
            folder: what another one has written meanwhile is not overwritten. "image" has no state.

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
        if adapt not in MODES:
            raise ValueError(f"adapt: expected one of {', '.join(MODES)}, got {adapt!r}")
        self.learner, self.adapt = Learner.of(model), adapt
        self.images = 0
        self.weights = self.learner.initial
        self._state = None if state is None else Path(state)
        if self._state is None:
            return
        if adapt == "image":
            raise ValueError("state: 'image' carries nothing from image to image; expected None")
        _check_writable(self._state)
        if _is_there(self._state):
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
        """
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
        """One step on what a session ended with; does nothing without a prompt on the object.

        Raises:
            CheckpointError: another sequence has written to the state's folder. This one goes on
                as it was before the image.
        """
        shown_object = any(getattr(prompt, "positive", True) for prompt in session.prompts)
        if self.adapt == "image" or not shown_object:
            return Report()
        learner = self.learner
        observation, mask = _final(learner, session)
        guidance, seed = learner.config.sequence.guidance, [learner.config.seed, self.images]
        if guidance == "replay":
            moments = session.observations()
            shown = [moments[index] for index in replayed(len(moments), seed)]
        else:
            shown = [shown_clicks(observation, guidance, seed)]
        corrections = corrections_of(observation)
        weights = learn(
            self.weights,
            [learner.model.example(each, corrections, mask) for each in shown],
            learner.initial.values,
            learner.importance,
            learner.config.sequence,
        )
        images = self.images + 1
        if self._state is not None:
            self._expect_own(self._state)
            self._write(self._state, weights, images)
        self.weights, self.images = weights, images
        return weights.report

    def save(self, path: str | Path) -> None:
        """Write the state to a folder; an interruption leaves the old one or the new one whole."""
        self._write(Path(path), self.weights, self.images)

    def _expect_own(self, path: Path) -> None:
        if not _is_there(path):
            return
        kept = read_checkpoint(path)[1].get("images")
        if kept != self.images:
            raise CheckpointError(
                f"{path}: has learnt from {kept} images and this sequence from {self.images}: "
                "another one keeps its state there"
            )

    def _write(self, path: Path, weights: AdaptedWeights, images: int) -> None:
        tensors = {
            f"{part}.{name}": tensor
            for part in _PARTS
            for name, tensor in getattr(weights, part).items()
        }
        state = {
            "network": dict(self.learner.segmenter.bundle.manifest.raw["network"]),
            "model": self.learner.segmenter.bundle.fingerprint,
            "images": images,
            "adam_step": weights.step,
        }
        save_checkpoint(path, tensors, state)

    def load(self, path: str | Path) -> None:
        """Go on from a state that was saved.

        Raises:
            CheckpointError: it is missing, damaged, or of another model or other layers.
        """
        tensors, state = read_checkpoint(path)
        if state.get("model") != self.learner.segmenter.bundle.fingerprint:
            raise CheckpointError(f"{path}: belongs to another model")
        parts: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
        for key, tensor in tensors.items():
            part, _, name = key.partition(".")
            parts.setdefault(part, {})[name] = tensor.to(self.learner.model.device)
        initial = self.learner.initial.values
        if parts["values"].keys() != initial.keys():
            raise CheckpointError(f"{path}: other layers are adapted there")
        if any(parts["values"][name].shape != initial[name].shape for name in initial):
            raise CheckpointError(f"{path}: the weights have other shapes")
        try:
            step, images = int(state["adam_step"]), int(state["images"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: {error!r} in a sequence's state") from None
        self.weights = AdaptedWeights(parts["values"], parts["first"], parts["second"], step)
        self.images = images


def _is_there(path: Path) -> bool:
    """Whether a state is kept there: an empty folder is one to begin in."""
    return path.exists() and not (path.is_dir() and not any(path.iterdir()))


def _check_writable(path: Path) -> None:
    # now, and not when a first image has been worked on
    place = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise CheckpointError(f"{path}: cannot be written: {place} is no folder to write to")


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
