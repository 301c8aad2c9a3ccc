"""A training run as one frozen value, read from JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from trtseg.nn.config import NetworkConfig
from trtseg.parse import at_least, build, one_of, read_derived
from trtseg.train.samples.clicks import PromptConfig
from trtseg.train.samples.crops import CropConfig
from trtseg.train.samples.images import DataConfig
from trtseg.train.trainer import Stage

BUNDLE_PREFIX = "bundle:"
TRAINED = ("segment", "select")
DATA_TERMS = ("jaccard", "cross_entropy", "l1")
INITIAL_PARTS = ("network", "backbone")
ASSIGNMENTS = ("best", "balanced")


@dataclass(frozen=True)
class LossConfig:
    """The loss of f (LD eq. 2 to 5, 7) and of g (LD eq. 6).

    Attributes:
        kind: "jaccard" (the paper), "cross_entropy" or "l1" (ablations): the data term.
        cross_entropy_weight: of mean cross-entropy added to the data term.
        focus, edge_weight: of that cross-entropy, see `cross_entropy_losses`.
        penalty_weight: of the clicks' soft constraints; 0 is the ablation without them.
        assignment: "best" (the paper): a sample trains the mask that is best on it; "balanced":
            every mask gets its share of the samples, see `balanced_hindsight`.
        anchor_weight: above 0, the first mask is trained on every sample, with this weight, as the
            only one of a network that has but one; the assignment is among the others.
        consensus_weight: from the first correction on, the mean loss of all masks is added so
            much: what was meant is clear by then, and every mask should have it.
        diversity_weight: lambda's factor in LD eq. 7.
        select_temperature: of g's loss, see `selection_loss`; 0 is the paper.
        shuffle_masks: g sees the masks in random order (the paper).
    """

    kind: str = "jaccard"
    cross_entropy_weight: float = 0.0
    focus: float = 0.0
    edge_weight: float = 0.0
    penalty_weight: float = 1.0
    assignment: str = "best"
    anchor_weight: float = 0.0
    consensus_weight: float = 0.0
    diversity_weight: float = 0.01
    select_temperature: float = 0.0
    shuffle_masks: bool = True

    def __post_init__(self) -> None:
        one_of("kind", self.kind, DATA_TERMS)
        one_of("assignment", self.assignment, ASSIGNMENTS)
        at_least(self, 0, "cross_entropy_weight", "focus", "edge_weight", "penalty_weight",
                 "anchor_weight", "consensus_weight", "diversity_weight",
                 "select_temperature")  # fmt: skip


@dataclass(frozen=True)
class StageConfig:
    """One stage of training. Either `steps` or `epochs` is given.

    Attributes:
        trains: "segment" (f, with what lies before it) or "select" (g, on the frozen f).
        steps: optimiser steps.
        epochs: the same as passes over as many samples as there are images.
        learning_rate: of what is trained, after the warm-up.
        encoder_factor: the backbone's learning rate relative to that; 0 freezes it.
        warmup: steps of linear warm-up.
        cooldown: fraction of the steps, at the end, in which the rate falls linearly to 0.
        weight_decay: of AdamW; 0 is Adam.
    """

    trains: str
    steps: int | None = None
    epochs: float | None = None
    learning_rate: float = 1e-4
    encoder_factor: float = 0.0
    warmup: int = 0
    cooldown: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        one_of("trains", self.trains, TRAINED)
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("steps: expected either steps or epochs")
        at_least(self, 0, "steps", "epochs", "encoder_factor", "warmup", "cooldown", "weight_decay")
        if self.cooldown > 1:
            raise ValueError(f"cooldown: expected a fraction, at most 1, got {self.cooldown}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate: expected above 0, got {self.learning_rate}")

    def stage(self, name: str, images: int, samples: int, clip_norm: float, ema: float) -> Stage:
        """The stage for the trainer.

        Args:
            name: of the stage.
            images: number of images in the data.
            samples: crops in a step of all processes.
            clip_norm, ema: of the run.
        """
        steps = self.steps
        if steps is None:
            assert self.epochs is not None  # __post_init__ saw to it
            steps = math.ceil(self.epochs * images / samples)

        def factor(parameter: str) -> float:
            if parameter.startswith("select.") != (self.trains == "select"):
                return 0.0
            return self.encoder_factor if parameter.startswith("encoder.backbone.") else 1.0

        def rate(step: int, steps: int) -> float:
            share = min(1.0, (step + 1) / max(self.warmup, 1))
            cooling = self.cooldown * steps
            return min(share, (steps - step) / cooling) if cooling > 0 else share

        return Stage(
            name, steps, self.learning_rate, factor, rate,
            weight_decay=self.weight_decay, clip_norm=clip_norm, ema=ema,
        )


@dataclass(frozen=True)
class ValidationConfig:
    """NoC by the standard protocol on held-out sets.

    Attributes:
        paths: data sets, in any layout that `trtseg.evaluate.datasets` reads; none: no validation.
        every: steps between two validations.
        objects: how many, spread over the data sets and their images.
        clicks: at most so many per object.
        min_area_fraction: objects that fill less of their image are left out.
    """

    paths: tuple[str, ...] = ()
    every: int = 1000
    objects: int = 100
    clicks: int = 10
    min_area_fraction: float = 0.01

    def __post_init__(self) -> None:
        at_least(self, 1, "every", "objects", "clicks")
        if not 0 <= self.min_area_fraction < 1:
            raise ValueError(
                f"min_area_fraction: expected in [0, 1), got {self.min_area_fraction}"
            )


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run depends on; two runs with equal configurations are equal on one machine.

    Attributes:
        network: what is trained.
        data: where the images come from; in JSON one source may stand for a list of one.
        stages: in order; the paper's are "segment", then "select".
        initial_weights: weights of the encoder (a path, of which ".h5" is read by
            `VGG.load_hed`, or the URL of torchvision's VGG), or a network of ours to start from:
            a checkpoint folder, or "bundle:" and the name or path of a bundle; None begins at
            random.
        initial_part: what of a network of ours is taken: "network" or "backbone", behind which
            everything begins at random.
        batch: crops per step and process.
        bf16: run the networks in bfloat16 where the device has units for it; the losses stay
            float32.
        clip_norm: gradients are scaled down to this norm.
        ema: decay of the averaged weights that validation and export use; 0 uses the last.
        device_data: keep all images in the memory of the device that trains, and cut crops and
            simulate clicks there, whole batches at a time (`trtseg.train.device.data`): for a GPU,
            which the processor could not keep busy.
        seed: of everything random.
    """

    network: NetworkConfig
    data: tuple[DataConfig, ...]
    stages: tuple[StageConfig, ...]
    loss: LossConfig = field(default_factory=LossConfig)
    crop: CropConfig = field(default_factory=CropConfig)
    clicks: PromptConfig = field(default_factory=PromptConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    initial_weights: str | None = None
    initial_part: str = "network"
    batch: int = 1
    bf16: bool = False
    clip_norm: float = 1.0
    ema: float = 0.0
    device_data: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("data: expected at least one source of training images")
        if not self.stages:
            raise ValueError("stages: expected at least one")
        one_of("initial_part", self.initial_part, INITIAL_PARTS)
        self._check_prompts()
        at_least(self, 1, "batch")
        at_least(self, 0, "seed")
        if not self.clip_norm > 0:
            raise ValueError(f"clip_norm: expected above 0, got {self.clip_norm}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema: expected in [0, 1), got {self.ema}")

    def _check_prompts(self) -> None:
        for share, part in (("region_fraction", "region"), ("repair_fraction", "previous_mask")):
            if getattr(self.clicks, share) and not getattr(self.network, part):
                raise ValueError(f"clicks.{share}: needs a network with {part}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `parse_config` reads them back."""
        return asdict(self)


def parse_config(values: dict[str, Any]) -> TrainConfig:
    """A configuration from JSON values.

    Raises:
        ValueError: a name is unknown, missing, or a value is not allowed; the message says where.
    """
    return build(TrainConfig, values, "config")


def read_config(path: str | Path) -> TrainConfig:
    """`parse_config` of a file, which may have a base (`trtseg.parse.derived`); relative paths in
    it start at its folder.

    Raises:
        ValueError: the file is not JSON, or as in `parse_config`.
        OSError: it cannot be read.
    """
    path = Path(path)
    values = read_derived(path)
    try:
        config = located(parse_config(values), path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    paths = tuple(absolute(name, path) for name in config.validation.paths)
    return replace(config, validation=replace(config.validation, paths=paths))


Config = TypeVar("Config", bound=Any)


def located(config: Config, path: Path) -> Config:
    """A configuration that stood in the file `path`, with the places of its data and initial
    weights as they are from anywhere."""
    initial = config.initial_weights
    return replace(
        config,
        data=tuple(replace(source, path=absolute(source.path, path)) for source in config.data),
        initial_weights=None if initial is None else absolute(initial, path),
    )


def absolute(name: str, path: Path) -> str:
    """A place that the file `path` names: a URL, a file, or a bundle by `BUNDLE_PREFIX`."""
    if name.startswith(BUNDLE_PREFIX):
        bundle = name.removeprefix(BUNDLE_PREFIX)
        # a bare name is that of a model inside the package
        bare = Path(bundle).name == bundle
        return name if bare else BUNDLE_PREFIX + absolute(bundle, path)
    return name if "://" in name else str(path.resolve().parent / name)
