"""What `trtseg evaluate` measures of models that learn: the methods that it is handed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from trtseg.adapt.adapter import Learner
from trtseg.adapt.config import AdaptConfig
from trtseg.adapt.early_fusion import EarlyFusionModel, EarlyFusionSequence, EarlyFusionSession
from trtseg.adapt.importance import (
    checkpoint_importance_path,
    importance_path,
    noted_config,
    read_importance,
)
from trtseg.adapt.sequence import Sequence
from trtseg.atomic import file_sha256
from trtseg.errors import BundleError
from trtseg.nn.checkpoint import read_checkpoint
from trtseg.nn.deeplab import load_deeplab
from trtseg.runtime.encoded import EncodedImage
from trtseg.runtime.segmenter import Segmenter
from trtseg.runtime.session import Session


def identity(mode: str, config: AdaptConfig, importance: Path) -> dict[str, Any]:
    """All that an adaptation's results depend on beside the model: they are never mixed."""
    return {
        "adapt": mode,
        "learning": asdict(config),
        "importance": file_sha256(importance),
    }


class AdaptedBundle:
    """A segmenter's own sessions over a sequence of images, adapting.

    Args:
        segmenter: the model.
        mode: "image", "sequence" or "both".
        config: how it learns; None takes what was chosen for the model.
        focus: look closer at small objects.

    Raises:
        BundleError: as `Learner`.
    """

    def __init__(
        self, segmenter: Segmenter, mode: str, config: AdaptConfig | None = None, focus: bool = True
    ) -> None:
        self._learner = Learner(segmenter, config)
        self._sequence = Sequence(self._learner, mode)
        self._focus = "auto" if focus else None

    def describe(self) -> dict[str, Any]:
        """See `trtseg.evaluate.methods.Method`."""
        bundle = self._learner.segmenter.bundle
        adaptation = identity(
            self._sequence.adapt, self._learner.config, importance_path(bundle)
        )
        return {"kind": "model", "name": bundle.name, "fingerprint": bundle.fingerprint,
                **adaptation}  # fmt: skip

    def encode(self, image: np.ndarray) -> EncodedImage:
        """See `trtseg.evaluate.methods.Method`. No weight that adapts changes an encoding."""
        return self._learner.segmenter.encode(image, "RGB")

    def session(self, encoded: EncodedImage) -> AbstractContextManager[Session]:
        """See `trtseg.evaluate.methods.Method`."""
        return self._sequence.image(encoded, focus=self._focus)


class EarlyFusion:
    """A checkpoint of `trtseg train-corrections` over a sequence of images.

    Args:
        checkpoint: its folder, with the importance beside it if it learns.
        mode: "none", "image", "sequence" or "both".
        config: how it learns; None takes what was chosen for the model, or the paper's.

    Raises:
        CheckpointError: no such checkpoint.
        BundleError: it learns, and there is no importance beside it, or it does not fit.
    """

    def __init__(self, checkpoint: Path, mode: str, config: AdaptConfig | None = None) -> None:
        network = load_deeplab(checkpoint)
        self._name = checkpoint.name
        self._hash = read_checkpoint(checkpoint)[1]["tensors_sha256"]
        self._mode, self._importance = mode, checkpoint_importance_path(checkpoint)
        importance: Mapping[str, Tensor] | None = None
        self._config = config or AdaptConfig()
        if mode != "none":
            importance, notes = read_importance(self._importance, self._hash)
            for name, value in network.named_parameters():
                if name not in importance or importance[name].shape != value.shape:
                    raise BundleError(
                        f"{self._importance}: {name}: expected {list(value.shape)}, got another or "
                        "none"
                    )
            self._config = config or noted_config(self._importance, notes)
        model = EarlyFusionModel(network, self._config, importance)
        self._sequence = EarlyFusionSequence(model, None if mode == "none" else mode)

    def describe(self) -> dict[str, Any]:
        """See `trtseg.evaluate.methods.Method`."""
        found = {"kind": "early-fusion", "name": self._name, "fingerprint": self._hash}
        if self._mode == "none":
            return {**found, "adapt": "none"}
        return {**found, **identity(self._mode, self._config, self._importance)}

    def encode(self, image: np.ndarray) -> np.ndarray:
        """See `trtseg.evaluate.methods.Method`. The network sees image and clicks together."""
        return image

    def session(self, encoded: np.ndarray) -> AbstractContextManager[EarlyFusionSession]:
        """See `trtseg.evaluate.methods.Method`."""
        return self._sequence.image(encoded)
