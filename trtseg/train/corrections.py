"""Training of CA's initial model: sampled clicks first, then corrections of its own mistakes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trtseg.errors import CheckpointError
from trtseg.nn.deeplab import (
    MEAN,
    SCALE,
    SMALL,
    DeepLab,
    DeepLabConfig,
    Dilated,
    click_disks,
)
from trtseg.nn.losses import jaccard_losses
from trtseg.nn.precision import autocast
from trtseg.parse import at_least, build, one_of, read_derived
from trtseg.train.config import located
from trtseg.train.initial import backbone_of, is_ours
from trtseg.train.parallel import Parallel
from trtseg.train.samples.clicks import PromptConfig, correction_click
from trtseg.train.samples.crops import Batch, CropConfig, Crops, loader
from trtseg.train.samples.images import DataConfig, LabelledImages
from trtseg.train.samples.randomness import StepRandomness
from trtseg.train.trainer import MOMENTS, Stage

VOID = 255
POWER = 0.9  # of the polynomial decay
OPTIMISERS = tuple(MOMENTS)
SAMPLED, CORRECTED = "sampled", "corrected"
FIRST_LAYER = "encoder.backbone.stem."


@dataclass(frozen=True)
class CorrectionsConfig:
    """A run; the defaults are CA section 4, but for 512 in place of 513 pixels.

    Attributes:
        network: what is trained.
        data: where the images come from.
        sampled_steps: of stage one, with at most 5 + 5 sampled clicks.
        corrected_steps: of stage two: each step adds a click on the network's own mistake.
        reset_every: steps of stage two after which new crops begin with one click again.
        optimiser: "sgd" with momentum 0.9 (the paper) or "adamw".
        learning_rate: at the beginning of each stage.
        encoder_factor: the learning rate of the backbone behind its first layer, which has new
            inputs to learn, relative to that.
        weight_decay: of the optimiser.
        clip_norm: gradients are scaled down to this norm; None leaves them.
        jaccard_weight: of the relaxed Jaccard distance (LD eq. 3) beside cross-entropy; 0 is
            the paper.
        batch: crops per step.
        crop, clicks: how samples are drawn.
        initial_weights: of a small backbone: the path of ImageNet's, or a network of latent
            diversity that has such a one, as in `TrainConfig.initial_weights`; None begins at
            random.
        freeze_norm: keep the statistics of batch normalisation, which a batch of 2 is too small
            for; only of use with weights that were trained before.
        bf16: run the network in bfloat16.
        seed: of everything random.
    """

    data: tuple[DataConfig, ...]
    network: DeepLabConfig = field(default_factory=DeepLabConfig)
    sampled_steps: int = 100_000
    corrected_steps: int = 50_000
    reset_every: int = 8
    optimiser: str = "sgd"
    learning_rate: float = 2e-4
    encoder_factor: float = 1.0
    weight_decay: float = 4e-5
    clip_norm: float | None = None
    jaccard_weight: float = 0.0
    batch: int = 2
    crop: CropConfig = field(
        default_factory=lambda: CropConfig(size=512, objects=1, supervision_stride=4)
    )
    clicks: PromptConfig = field(default_factory=lambda: PromptConfig(single_fraction=0.2))
    initial_weights: str | None = None
    freeze_norm: bool = False
    bf16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("data: expected at least one source of training images")
        at_least(self, 1, "reset_every", "batch")
        at_least(self, 0, "sampled_steps", "corrected_steps", "encoder_factor", "weight_decay",
                 "jaccard_weight")  # fmt: skip
        one_of("optimiser", self.optimiser, OPTIMISERS)
        if self.sampled_steps + self.corrected_steps < 1:
            raise ValueError("sampled_steps: expected a step in one of the two stages, got none")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate: expected above 0, got {self.learning_rate}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: expected 0 to 2^63 - 1, got {self.seed}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm: expected above 0, got {self.clip_norm}")
        if self.crop.objects != 1:
            raise ValueError("crop.objects: expected 1: the clicks are part of the input")
        if self.clicks.max_positive > 5 or self.clicks.max_negative > 5:
            raise ValueError("clicks: expected at most 5 of each kind")


def read_corrections_config(path: str | Path) -> CorrectionsConfig:
    """A configuration from a JSON file; relative paths in it start at its folder.

    Raises:
        ValueError: not JSON, or a value is not allowed; the message says where.
        OSError: it cannot be read.
    """
    config = build(CorrectionsConfig, read_derived(path), "config")
    return located(config, Path(path))


class CorrectionsTask:
    """What `Trainer` asks for, of one configuration: stage one with sampled clicks, stage two with
    steps on one batch in a row, between which the network's mistakes are clicked on."""

    def __init__(self, config: CorrectionsConfig) -> None:
        self.config, self.seed = config, config.seed
        self.images = LabelledImages(config.data)
        torch.manual_seed(config.seed)
        self.network = DeepLab(config.network)
        if config.initial_weights is not None:
            _initialise(self.network, config.initial_weights)

    def stages(self, world: int) -> Sequence[Stage]:
        config = self.config

        def factor(name: str) -> float:
            return config.encoder_factor if _pretrained(name) else 1.0

        stages = (
            (SAMPLED, config.sampled_steps, 1),
            (CORRECTED, config.corrected_steps, config.reset_every),
        )
        return [
            Stage(
                name, steps, config.learning_rate, factor, _polynomial,
                optimiser=config.optimiser, weight_decay=config.weight_decay,
                clip_norm=config.clip_norm, repeats=repeats,
            )
            for name, steps, repeats in stages
            if steps > 0
        ]

    def objective(self, stage: Stage) -> nn.Module:
        return CorrectionsObjective(self.network, self.config, stage.name == CORRECTED)

    def batches(
        self, first: int, count: int, parallel: Parallel, workers: int
    ) -> Iterable[Batch]:
        config = self.config
        # stage two begins every batch with one click
        single = first >= config.sampled_steps
        clicks = PromptConfig(single_fraction=1.0) if single else config.clicks
        crops = Crops(
            self.images, config.crop, clicks, config.crop.supervision_stride, config.seed
        )
        return loader(crops, first, count, config.batch, parallel, workers)

    def validate(self, stage: Stage, state: Mapping[str, Tensor]) -> dict[str, float] | None:
        """None: CA's model is judged as a method of the evaluation, with adaptation and without."""
        return None

    def record(self) -> dict[str, Any]:
        return {"network": self.config.network.to_dict(), "train": asdict(self.config)}


class CorrectionsObjective(nn.Module):
    """Cross-entropy of one mask, and with `correct` a click on its mistake for the next step."""

    mean: Tensor
    scale: Tensor

    def __init__(self, network: DeepLab, config: CorrectionsConfig, correct: bool) -> None:
        super().__init__()
        self.network, self.config, self.correct = network, config, correct
        device = next(network.parameters()).device
        for name, values in (("mean", MEAN), ("scale", SCALE)):
            constant = torch.tensor(values, device=device).view(1, 3, 1, 1)
            self.register_buffer(name, constant, persistent=False)
        self.train()

    def train(self, mode: bool = True) -> CorrectionsObjective:
        super().train(mode)
        if self.config.freeze_norm:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, batch: Batch, randomness: StepRandomness) -> dict[str, Tensor]:
        """Scalars "loss" (to differentiate) and "selected_iou"; adds to the batch's clicks."""
        targets = batch.targets
        with autocast(self.mean.device, self.config.bf16):
            logits = self.network(self._input(batch)).float()
        logits = F.interpolate(
            logits, size=targets.shape[1:], mode="bilinear", align_corners=False
        )[:, 0]
        valid = targets != VOID
        loss = F.binary_cross_entropy_with_logits(
            logits[valid], (targets[valid] == 1).to(logits.dtype)
        )
        jaccard = jaccard_losses(torch.sigmoid(logits)[:, None], targets).mean()
        if self.config.jaccard_weight:
            loss = loss + self.config.jaccard_weight * jaccard
        if self.correct:
            self._add_clicks(batch, logits.detach() >= 0, randomness)
        return {"loss": loss, "selected_iou": 1 - jaccard.detach()}

    def _input(self, batch: Batch) -> Tensor:
        image = (batch.images.float() - self.mean) * self.scale
        size = image.shape[2], image.shape[3]
        radius = self.config.network.disk_radius_px
        disks = np.stack([click_disks(clicks, size, radius) for clicks in batch.clicks])
        x = torch.cat([image, torch.from_numpy(disks).to(image.device)], 1)
        return x.contiguous(memory_format=torch.channels_last)

    def _add_clicks(self, batch: Batch, predicted: Tensor, randomness: StepRandomness) -> None:
        stride = self.config.crop.supervision_stride
        masks, targets = predicted.cpu().numpy(), batch.targets.cpu().numpy()
        assert isinstance(batch.clicks, list)  # there is no such training on a device
        for index, (mask, target) in enumerate(zip(masks, targets, strict=True)):
            click = correction_click(mask, target, randomness.of_prompt(index))
            if click is not None:
                y, x, label = click
                row = [[(y + 0.5) * stride - 0.5, (x + 0.5) * stride - 0.5, label]]
                batch.clicks[index] = np.vstack([batch.clicks[index], row]).astype(np.float32)


def _polynomial(step: int, steps: int) -> float:
    """(1 - t)^0.9, where t goes from 0 to 1 within the stage."""
    return (1 - step / steps) ** POWER


def _pretrained(name: str) -> bool:
    return name.startswith("encoder.") and not name.startswith(FIRST_LAYER)


def _initialise(network: DeepLab, source: str) -> None:
    """Load the backbone; see `CorrectionsConfig.initial_weights`.

    Raises:
        BundleError, CheckpointError: the source is missing, damaged or of another network.
        ValueError: there are no weights for this backbone.
    """
    encoder = network.encoder
    if not isinstance(encoder, Dilated):
        raise ValueError(f"initial_weights: there are only some for {' and '.join(SMALL)}")
    if not is_ours(source):
        plain = SMALL[network.config.backbone]()
        plain.load_imagenet(source)
        encoder.load_backbone(plain.state_dict())
        return
    try:
        encoder.load_backbone(backbone_of(source))
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{source}: its backbone is not {network.config.backbone}"
        ) from error
