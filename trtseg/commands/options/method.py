"""The method that an evaluation measures: those that learn need torch, and are made here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trtseg.errors import BundleError
from trtseg.parse import read_json

if TYPE_CHECKING:
    from trtseg.evaluate.configuration import EvaluationConfig
    from trtseg.evaluate.methods import Method


def load_method(config: EvaluationConfig, threads: int | None = None) -> Method:
    """The method of an evaluation's configuration; see `trtseg.evaluate.runner.Load`.

    Raises:
        BundleError, CheckpointError: no such model, or one that cannot be adapted.
        BackendUnavailable: a package is missing.
        ValueError: what is asked for does not go together, or a hyperparameter is not allowed.
    """
    from trtseg.evaluate import methods

    state = Path(config.model) / "state.json"
    early = state.is_file()
    if early and "backbone" not in read_json(state).get("network", {}):
        raise BundleError(
            f"{config.model}: a checkpoint of `trtseg train`; `trtseg export` makes a bundle of it"
        )
    if not early and (config.adapt == "none" or config.model in methods.BASELINES):
        return methods.load_method(config, threads)
    import torch

    from trtseg.adapt.config import AdaptConfig
    from trtseg.adapt.subjects import AdaptedBundle, EarlyFusion
    from trtseg.parse import build

    if threads:
        torch.set_num_threads(threads)
    learning = config.learning
    chosen = None if learning is None else build(AdaptConfig, learning, "learning")
    if early:
        if config.refine or config.long_side_px is not None:
            raise ValueError(
                f"{config.model}: an early-fusion model can neither be refined nor be given a "
                "working size"
            )
        return EarlyFusion(Path(config.model), config.adapt, chosen)
    segmenter = methods.load_segmenter(config, threads)
    method = AdaptedBundle(segmenter, config.adapt, chosen, config.focus)
    return methods.RefinedMethod(method) if config.refine else method
