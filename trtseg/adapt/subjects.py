"""The models that experiments run: a bundle in the runtime, or an early-fusion checkpoint."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np

from trtseg.adapt.adapter import Learner
from trtseg.adapt.config import AdaptConfig
from trtseg.adapt.early_fusion import EarlyFusionModel, EarlyFusionSequence, EarlyFusionSession
from trtseg.adapt.experiment import FixedSequence, ImageSequence, MakeSequence
from trtseg.adapt.importance import checkpoint_importance_path, read_importance
from trtseg.adapt.sequence import Sequence
from trtseg.errors import BundleError
from trtseg.nn.checkpoint import read_checkpoint
from trtseg.nn.deeplab import load_deeplab
from trtseg.runtime.segmenter import Segmenter
from trtseg.runtime.session import Session


class _FocusedSequence:
    """`Sequence.image` with one choice of focus."""

    def __init__(self, sequence: Sequence, focus: str | None) -> None:
        self._sequence, self._focus = sequence, focus

    @property
    def images(self) -> int:
        return self._sequence.images

    def image(self, image: np.ndarray) -> AbstractContextManager[Session]:
        """See `ImageSequence`."""
        return self._sequence.image(image, focus=self._focus)


def at_working_size(segmenter: Segmenter, long_side_px: int) -> Segmenter:
    """The same networks on working images of another longer side; 0 for the model's own."""
    if long_side_px == 0:
        return segmenter
    manifest = replace(segmenter.bundle.manifest, long_side_px=long_side_px)
    return Segmenter(replace(segmenter.bundle, manifest=manifest), segmenter.engines)


def bundle_subject(segmenter: Segmenter, *, focus: bool = True) -> MakeSequence:
    """Sequences of a segmenter's own sessions.

    Raises:
        BundleError: as `Learner`, when the first adapting sequence is made.
    """
    closer = "auto" if focus else None
    learners: dict[AdaptConfig, Learner] = {}

    def make(mode: str, config: AdaptConfig, state: Path) -> ImageSequence:
        if mode == "fixed":
            return FixedSequence(
                lambda image: segmenter.session(segmenter.encode(image), focus=closer)
            )
        if config not in learners:
            learners[config] = Learner(segmenter, config)
        # image adaptation carries nothing on that would have to be kept
        kept = None if mode == "image" else state
        return _FocusedSequence(Sequence(learners[config], mode, state=kept), closer)

    return make


def early_fusion_subject(path: Path) -> MakeSequence:
    """Sequences of an early-fusion checkpoint (they keep no state: not resumable within one).

    Raises:
        CheckpointError: no such checkpoint.
        BundleError: there is no importance beside it, or it does not fit.
    """
    network = load_deeplab(path)
    _, state = read_checkpoint(path)
    file = checkpoint_importance_path(path)
    importance, _ = read_importance(file, state["tensors_sha256"])
    for name, value in network.named_parameters():
        if name not in importance or importance[name].shape != value.shape:
            raise BundleError(f"{file}: {name}: expected {list(value.shape)}, got another or none")

    def make(mode: str, config: AdaptConfig, state: Path) -> ImageSequence:
        del state
        model = EarlyFusionModel(network, config, importance)
        if mode == "fixed":
            return FixedSequence(
                lambda image: EarlyFusionSession(model, image, model.initial, adapts=False)
            )
        return EarlyFusionSequence(model, mode)

    return make

