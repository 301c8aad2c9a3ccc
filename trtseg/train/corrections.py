"""Training of CA's initial model: sampled clicks first, then corrections of its own mistakes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trtseg import bundle as bundles
from trtseg.errors import CheckpointError, TrtsegError
from trtseg.nn.bundle_weights import bundle_weights
from trtseg.nn.checkpoint import read_checkpoint, save_checkpoint
from trtseg.nn.deeplab import MEAN, SCALE, DeepLab, DeepLabConfig, DilatedMobileNetV2, click_disks
from trtseg.nn.losses import jaccard_losses
from trtseg.parse import build, read_json
from trtseg.train.clicks import ClickConfig, correction_click
from trtseg.train.config import BUNDLE_PREFIX
from trtseg.train.data import Batch, CropConfig, Crops, collate
from trtseg.train.images import DataConfig, LabelledImages
from trtseg.train.moments import ADAM, SGD, load_moments, moment_tensors

VOID = 255
MOMENTUM = 0.9
POWER = 0.9  # of the polynomial decay
_MOMENTS = {"sgd": SGD, "adamw": ADAM}
OPTIMISERS = tuple(_MOMENTS)
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
        weight_decay: of either.
        clip_norm: gradients are scaled down to this norm; None leaves them.
        jaccard_weight: of the relaxed Jaccard distance (LD eq. 3) beside cross-entropy; 0 is
            the paper.
        batch: crops per step.
        crop, clicks: how samples are drawn.
        initial_weights: of the MobileNetV2 backbone: ImageNet's (a path), or "bundle:" and the
            name or path of a bundle with that encoder; None begins at random.
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
    clicks: ClickConfig = field(default_factory=lambda: ClickConfig(single_fraction=0.2))
    initial_weights: str | None = None
    freeze_norm: bool = False
    bf16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("data: expected at least one source of training images")
        for name in ("reset_every", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("sampled_steps", "corrected_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")
        if self.sampled_steps + self.corrected_steps < 1:
            raise ValueError("sampled_steps: expected a step in one of the two stages, got none")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate: expected above 0, got {self.learning_rate}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: expected 0 to 2^63 - 1, got {self.seed}")
        if self.optimiser not in OPTIMISERS:
            raise ValueError(
                f"optimiser: expected one of {', '.join(OPTIMISERS)}, got {self.optimiser!r}"
            )
        for name in ("encoder_factor", "weight_decay", "jaccard_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected at least 0, got {getattr(self, name)}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm: expected above 0, got {self.clip_norm}")
        if self.crop.objects != 1:
            raise ValueError("crop.objects: expected 1: the clicks are part of the input")
        if self.clicks.max_positive > 5 or self.clicks.max_negative > 5:
            raise ValueError("clicks: expected at most 5 of each kind")


def read_corrections_config(path: str | Path) -> CorrectionsConfig:
    """A configuration from a JSON file.

    Raises:
        ValueError: not JSON, or a value is not allowed; the message says where.
        OSError: it cannot be read.
    """
    return build(CorrectionsConfig, read_json(path), "config")


class CorrectionsTrainer:
    """State of a run. A checkpoint holds it whole: a resumed run goes on exactly, unless it was
    interrupted by hand in the middle of a batch of stage two."""

    def __init__(
        self, config: CorrectionsConfig, folder: str | Path, device: str = "cpu"
    ) -> None:
        self.config, self.folder = config, Path(folder)
        self.device = torch.device(device)
        torch.manual_seed(config.seed)
        self.network = DeepLab(config.network)
        if config.initial_weights is not None:
            _initialise(self.network, config.initial_weights)
        layout = torch.channels_last
        self.network.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.network.train()
        named = list(self.network.named_parameters())
        pretrained = [(name, value) for name, value in named if _pretrained(name)]
        others = [(name, value) for name, value in named if not _pretrained(name)]
        self.trained = [name for name, _ in pretrained + others]
        groups = [
            {"params": [value for _, value in members], "factor": factor}
            for members, factor in ((pretrained, config.encoder_factor), (others, 1.0))
        ]
        decay = config.weight_decay
        self.optimiser: torch.optim.Optimizer
        if config.optimiser == "sgd":
            self.optimiser = torch.optim.SGD(
                groups, lr=config.learning_rate, momentum=MOMENTUM, weight_decay=decay
            )
        else:
            self.optimiser = torch.optim.AdamW(
                groups, lr=config.learning_rate, weight_decay=decay
            )
        self.images = LabelledImages(config.data)
        self.step = 0
        self.losses: list[float] = []
        self._mean, self._scale = (
            torch.tensor(values, device=self.device).view(1, 3, 1, 1) for values in (MEAN, SCALE)
        )

    @property
    def steps(self) -> int:
        """Of both stages."""
        return self.config.sampled_steps + self.config.corrected_steps

    def learning_rate(self, step: int) -> float:
        """lr * (1 - t)^0.9, where t goes from 0 to 1 within each stage."""
        first = self.config.sampled_steps
        done = step / first if step < first else (step - first) / self.config.corrected_steps
        return self.config.learning_rate * (1 - done) ** POWER

    def run(
        self,
        *,
        max_minutes: float | None = None,
        save_every: int = 500,
        progress: Callable[[int, float], None] = lambda step, loss: None,
    ) -> bool:
        """Train to the end, or until the time is up; True when done, and `release`d.

        An interruption saves the run first.
        """
        begin = time.monotonic()
        saved = self.step
        try:
            while self.step < self.steps:
                # a round is a step of stage one, or all the steps on one batch of stage two
                for loss in self._round():
                    progress(self.step, loss)
                if self.step - saved >= save_every:
                    self.save()
                    saved = self.step
                if max_minutes is not None and time.monotonic() - begin > max_minutes * 60:
                    break
        except KeyboardInterrupt:
            # the round is begun again, with what it has learnt: its batch depends on its number
            self.step = self._round_start()
            self.save()
            raise
        self.save()
        if self.step < self.steps:
            return False
        self.release()
        return True

    def _round_start(self) -> int:
        first, length = self.config.sampled_steps, self.config.reset_every
        if self.step < first:
            return self.step
        return first + (self.step - first) // length * length

    def _round(self) -> list[float]:
        config = self.config
        # of nothing but the step, so that a resumed run goes on exactly
        rng = np.random.default_rng([config.seed, self.step])
        torch.manual_seed(int(rng.integers(2**31)))
        clicks = config.clicks
        corrected = self.step >= config.sampled_steps
        if corrected:
            clicks = ClickConfig(single_fraction=1.0)
        crops = Crops(self.images, config.crop, clicks, config.seed)
        first = self.step * config.batch
        batch = collate([crops[first + index] for index in range(config.batch)])
        count = min(config.reset_every, self.steps - self.step) if corrected else 1
        losses = []
        for _ in range(count):
            losses.append(self._advance(batch, rng, correct=corrected))
            self.step += 1
        self.losses += losses
        return losses

    def _advance(self, batch: Batch, rng: np.random.Generator, *, correct: bool) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate(self.step) * group["factor"]
        if self.config.freeze_norm:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        targets = batch.targets.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
            logits = self.network(self._input(batch)).float()
        logits = F.interpolate(
            logits, size=targets.shape[1:], mode="bilinear", align_corners=False
        )[:, 0]
        valid = targets != VOID
        loss = F.binary_cross_entropy_with_logits(
            logits[valid], (targets[valid] == 1).to(logits.dtype)
        )
        if self.config.jaccard_weight:
            jaccard = jaccard_losses(torch.sigmoid(logits)[:, None], targets).mean()
            loss = loss + self.config.jaccard_weight * jaccard
        if not torch.isfinite(loss):
            raise TrtsegError(
                f"step {self.step}: the loss is {float(loss.detach())}: the training diverged; "
                "the last checkpoint is kept"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self.optimiser.step()
        if correct:
            self._correct(batch, logits.detach() >= 0, rng)
        return float(loss.detach())

    def _input(self, batch: Batch) -> Tensor:
        image = (batch.images.to(self.device).float() - self._mean) * self._scale
        size = image.shape[2], image.shape[3]
        radius = self.config.network.disk_radius_px
        disks = np.stack([click_disks(clicks, size, radius) for clicks in batch.clicks])
        x = torch.cat([image, torch.from_numpy(disks).to(self.device)], 1)
        return x.contiguous(memory_format=torch.channels_last)

    def _correct(self, batch: Batch, predicted: Tensor, rng: np.random.Generator) -> None:
        stride = self.config.crop.supervision_stride
        masks, targets = predicted.cpu().numpy(), batch.targets.numpy()
        for index, (mask, target) in enumerate(zip(masks, targets, strict=True)):
            click = correction_click(mask, target, rng)
            if click is not None:
                y, x, label = click
                row = [[(y + 0.5) * stride - 0.5, (x + 0.5) * stride - 0.5, label]]
                batch.clicks[index] = np.vstack([batch.clicks[index], row]).astype(np.float32)

    def save(self) -> None:
        """Write the checkpoint `last` into the run's folder.

        Raises:
            TrtsegError: a weight is not finite; the checkpoint before is kept.
        """
        tensors = {f"model.{k}": v for k, v in self.network.state_dict().items()}
        self._check_finite(tensors)
        tensors |= moment_tensors(self.optimiser, self.trained)
        save_checkpoint(self.folder / "last", tensors, self._state())

    def release(self) -> None:
        """Write the checkpoint `model`: the weights alone, in half precision.

        Raises:
            TrtsegError: a weight does not fit half precision.
        """
        tensors = {
            f"model.{name}": value.half() if value.is_floating_point() else value
            for name, value in self.network.state_dict().items()
        }
        self._check_finite(tensors)
        save_checkpoint(self.folder / "model", tensors, self._state())

    def _check_finite(self, tensors: dict[str, Tensor]) -> None:
        for name, value in tensors.items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                kind = str(value.dtype).removeprefix("torch.")
                raise TrtsegError(
                    f"step {self.step}: {name} is not finite in {kind}: the training diverged"
                )

    def _state(self) -> dict[str, Any]:
        return {
            "network": self.config.network.to_dict(),
            "train": asdict(self.config),
            "step": self.step,
            "recent_loss": float(np.mean(self.losses[-100:])) if self.losses else None,
        }

    def resume(self) -> None:
        """Continue from the folder's checkpoint.

        Raises:
            CheckpointError: it is missing, damaged, or of another network, optimiser or format.
        """
        path = self.folder / "last"
        tensors, state = read_checkpoint(path)
        step = state.get("step")
        if type(step) is not int or not 0 <= step <= self.steps:
            raise CheckpointError(
                f"{path}: step: expected 0 to {self.steps}, where this configuration ends, "
                f"got {step!r}"
            )
        try:
            self.network.load_state_dict(
                {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
            )
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{path}: weights do not fit the network: {reason}") from None
        named = dict(self.network.named_parameters())
        parameters = {name: named[name] for name in self.trained}
        kinds = _MOMENTS[self.config.optimiser]
        missing = load_moments(self.optimiser, parameters, kinds, tensors, path)
        if missing and step > 0:
            raise CheckpointError(
                f"{path}: expected the {kinds[-1]} of {missing[0]} that {self.config.optimiser} "
                "keeps, got none"
            )
        self.step = step


def _pretrained(name: str) -> bool:
    return name.startswith("encoder.") and not name.startswith(FIRST_LAYER)


def _initialise(network: DeepLab, source: str) -> None:
    """Load the backbone; see `CorrectionsConfig.initial_weights`.

    Raises:
        BundleError, CheckpointError: the source is missing, damaged or of another network.
        ValueError: there are no weights for this backbone.
    """
    if not isinstance(network.encoder, DilatedMobileNetV2):
        raise ValueError("initial_weights: there are only some for mobilenet_v2")
    if not source.startswith(BUNDLE_PREFIX):
        network.encoder.load_imagenet(source)
        return
    _, state = bundle_weights(bundles.read(source.removeprefix(BUNDLE_PREFIX)))
    prefix = "encoder.backbone."
    backbone = {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix)
    }
    network.encoder.load_backbone(backbone, source)
