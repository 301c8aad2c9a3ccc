"""Continuous adaptation (CA): corrections are training examples, learnt from while one clicks.

The only part of the product that needs torch, and only once adaptation is switched on:
`Segmenter.session(encoded, adapt="image")` and `Segmenter.sequence(adapt="both")` import it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from trtseg.adapt.adapter import ClickAdapter, Learner
from trtseg.adapt.config import AdaptConfig, Learning
from trtseg.adapt.sequence import Sequence
from trtseg.adapt.weights import AdaptedWeights, Report
from trtseg.runtime.segmenter import Segmenter

__all__ = [
    "AdaptConfig",
    "AdaptedWeights",
    "ClickAdapter",
    "Learner",
    "Learning",
    "Report",
    "Sequence",
    "adapter",
    "sequence",
]


def adapter(
    segmenter: Segmenter, mode: str, config: AdaptConfig | None = None, **options: Any
) -> ClickAdapter:
    """The adapter behind `Segmenter.session(adapt=mode)`.

    Args:
        segmenter: whose sessions are to adapt.
        mode: "image"; what goes on over several images needs a `Sequence`.
        config: the hyperparameters.
        options: of `Learner`.

    Raises:
        ValueError: an unknown mode.
        BundleError: the model cannot be adapted, or has no importance weights beside it.
    """
    if mode != "image":
        raise ValueError(
            f"adapt: expected 'image', got {mode!r} ('sequence' and 'both' need "
            "Segmenter.sequence)"
        )
    learner = _learner(segmenter, config, options)
    return ClickAdapter(learner, lambda: learner.initial)


def sequence(
    segmenter: Segmenter,
    mode: str = "both",
    config: AdaptConfig | None = None,
    state: str | Path | None = None,
    **options: Any,
) -> Sequence:
    """The sequence behind `Segmenter.sequence(adapt=mode)`; arguments as above."""
    return Sequence(_learner(segmenter, config, options), mode, state=state)


_learners: WeakKeyDictionary[Segmenter, Learner] = WeakKeyDictionary()


def _learner(
    segmenter: Segmenter, config: AdaptConfig | None, options: dict[str, Any]
) -> Learner:
    # one model in torch per segmenter serves all its sessions
    if config is not None or options:
        return Learner(segmenter, config, **options)
    if segmenter not in _learners:
        _learners[segmenter] = Learner(segmenter)
    return _learners[segmenter]
