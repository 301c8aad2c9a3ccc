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

from trtseg.errors import CheckpointError
from trtseg.nn.checkpoint import read_checkpoint, save_checkpoint
from trtseg.nn.deeplab import MEAN, SCALE, DeepLab, DeepLabConfig, DilatedMobileNetV2, click_disks
from trtseg.train.clicks import ClickConfig, correction_click
from trtseg.train.data import Batch, CropConfig, Crops, collate
from trtseg.train.images import DataConfig, LabelledImages
from trtseg.train.parse import build, read_json

VOID = 255
MOMENTUM = 0.9
POWER = 0.9  # of the polynomial decay


@dataclass(frozen=True)
class CorrectionsConfig:
    """A run; the defaults are CA section 4, but for 512 in place of 513 pixels.

    Attributes:
        network: what is trained.
        data: where the images come from.
        sampled_steps: of stage one, with at most 5 + 5 sampled clicks.
        corrected_steps: of stage two: each step adds a click on the network's own mistake.
        reset_every: steps of stage two after which new crops begin with one click again.
        learning_rate: at the beginning of each stage.
        weight_decay: of SGD.
        batch: crops per step.
        crop, clicks: how samples are drawn.
        initial_weights: ImageNet weights of the MobileNetV2 backbone, or None.
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
    learning_rate: float = 2e-4
    weight_decay: float = 4e-5
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
        for name in ("reset_every", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
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
            if not isinstance(self.network.encoder, DilatedMobileNetV2):
                raise ValueError("initial_weights: there are only some for mobilenet_v2")
            self.network.encoder.load_imagenet(config.initial_weights)
        layout = torch.channels_last
        self.network.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.network.train()
        self.optimiser = torch.optim.SGD(
            self.network.parameters(),
            lr=config.learning_rate,
            momentum=MOMENTUM,
            weight_decay=config.weight_decay,
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
        """Train to the end, or until the time is up; True when done.

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
        return self.step >= self.steps

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
            group["lr"] = self.learning_rate(self.step)
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
        if not torch.isfinite(loss):
            raise FloatingPointError(f"step {self.step}: the loss is {float(loss.detach())}")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
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
        """Write the checkpoint `last` into the run's folder."""
        tensors = {f"model.{k}": v for k, v in self.network.state_dict().items()}
        momenta = self.optimiser.state_dict()["state"]
        for index, (name, _) in enumerate(self.network.named_parameters()):
            buffer = momenta.get(index, {}).get("momentum_buffer")
            if buffer is not None:
                tensors[f"momentum.{name}"] = buffer
        state: dict[str, Any] = {
            "network": self.config.network.to_dict(),
            "train": asdict(self.config),
            "step": self.step,
            "recent_loss": float(np.mean(self.losses[-100:])) if self.losses else None,
        }
        save_checkpoint(self.folder / "last", tensors, state)

    def resume(self) -> None:
        """Continue from the folder's checkpoint.

        Raises:
            CheckpointError: it is missing, damaged, or of another network.
        """
        tensors, state = read_checkpoint(self.folder / "last")
        try:
            self.network.load_state_dict(
                {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
            )
        except RuntimeError as error:
            raise CheckpointError(f"{self.folder / 'last'}: {error}") from error
        saved = self.optimiser.state_dict()
        for index, (name, _) in enumerate(self.network.named_parameters()):
            if f"momentum.{name}" in tensors:
                saved["state"][index] = {"momentum_buffer": tensors[f"momentum.{name}"]}
        self.optimiser.load_state_dict(saved)
        self.step = state["step"]
