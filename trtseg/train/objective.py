"""One training forward pass: clicks corrected, masks synthesised, losses of the stage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trtseg.nn.guidance import guidance_maps
from trtseg.nn.losses import (
    click_penalties,
    cross_entropy_losses,
    hindsight,
    jaccard_losses,
    l1_losses,
    mask_losses,
    ranked_diversity,
    selection_loss,
)
from trtseg.nn.network import LatentDiversity, normalisation
from trtseg.nn.precision import autocast
from trtseg.train.clicks import correction_click
from trtseg.train.config import TrainConfig
from trtseg.train.data import Batch, pad_clicks

STAGES = ("segment", "select")


class StepRandomness:
    """The randomness of one step, the same however many processes share the step's samples.

    Args:
        seed, stage, step: of the run.
        first: number of the first of this process's click sets among all of the step.
    """

    def __init__(self, seed: int, stage: str, step: int, first: int = 0) -> None:
        self._key = [seed, STAGES.index(stage), step]
        self._first = first
        self.shared = np.random.default_rng(self._key)

    def of_click_set(self, index: int) -> np.random.Generator:
        """A generator that only this click set uses."""
        return np.random.default_rng([*self._key, 1 + self._first + index])


class Objective(nn.Module):
    """The loss of f or of g as a module, which DistributedDataParallel can wrap.

    Only f's stage computes gradients of the encoder and of f, only g's stage those of g.

    Attributes:
        stage: "segment" or "select".
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, network: LatentDiversity, config: TrainConfig, stage: str) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.stage = stage
        for name, values in zip(("mean", "scale"), normalisation(config.network), strict=True):
            constant = torch.tensor(values, device=network.bias.device).view(1, 3, 1, 1)
            self.register_buffer(name, constant, persistent=False)

    def forward(self, batch: Batch, randomness: StepRandomness) -> dict[str, Tensor]:
        """Scalars "loss" (to differentiate), "best_iou" and "selected_iou"."""
        image = (batch.images.float() - self.mean) * self.scale
        image = image.contiguous(memory_format=torch.channels_last)
        sets = len(batch.clicks) // len(image)
        trains_f = self.stage == "segment"
        with torch.set_grad_enabled(trains_f), self._autocast():
            base = self.network.encode(image).repeat_interleave(sets, dim=0)
            # repeating forgets the layout, and the convolutions would convert it at every layer
            base = base.contiguous(memory_format=torch.channels_last)
        clicks, previous = self._correct(base.detach(), batch, randomness)
        with torch.set_grad_enabled(trains_f):
            masks, features, guidance = self._masks(base, clicks, previous)
            enlarged = _enlarge(masks, batch.targets.shape[1:])
            jaccard, penalty = self._mask_losses(enlarged, batch.targets, clicks)
        if trains_f:
            total = self._segment_loss(enlarged, jaccard, penalty, batch.targets)
            chosen = jaccard[:, 0]
        else:
            grid_image = None
            if "image" in self.config.network.select_inputs:
                grid_image = F.avg_pool2d(image, self.config.network.base_stride)
                grid_image = grid_image.repeat_interleave(sets, dim=0)
            total, chosen = self._select_loss(
                masks, features, guidance, grid_image, jaccard, randomness.shared
            )
        return {
            "loss": total,
            "best_iou": 1 - jaccard.detach().amin(1).mean(),
            "selected_iou": 1 - chosen.detach().mean(),
        }

    def _autocast(self) -> torch.autocast:
        # only around the networks: the losses are sums over many pixels and stay float32
        return autocast(self.mean.device, self.config.bf16)

    def _masks(
        self, base: Tensor, clicks: Sequence[np.ndarray], previous: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(masks float32, features, guidance)."""
        height, width = base.shape[2:]
        guidance = guidance_maps(
            pad_clicks(clicks).to(base.device), (height, width), self.config.network, previous
        )
        with self._autocast():
            masks, features = self.network.masks(base, guidance)
        return masks.float(), features, guidance

    @torch.no_grad()
    def _correct(
        self, base: Tensor, batch: Batch, randomness: StepRandomness
    ) -> tuple[list[np.ndarray], Tensor | None]:
        """Clicks continued on the network's own mistakes, and the mask before the last of them."""
        clicks = list(batch.clicks)
        rounds = int(randomness.shared.integers(self.config.clicks.corrections + 1))
        if rounds == 0:
            return clicks, None
        generators = [randomness.of_click_set(index) for index in range(len(clicks))]
        targets = batch.targets.cpu().numpy()
        index = torch.arange(len(clicks), device=base.device)
        stride = self.config.crop.supervision_stride
        previous = None
        for _ in range(rounds):
            masks, _, _ = self._masks(base, clicks, previous)
            enlarged = _enlarge(masks, batch.targets.shape[1:])
            best = self._mask_losses(enlarged, batch.targets, clicks)[0].argmin(1)
            # at test time g or the user chooses: let f meet its best mask and its first one
            first = torch.tensor([bool(rng.random() < 0.5) for rng in generators])
            chosen = torch.where(first.to(best.device), 0, best)
            previous = masks[index, chosen]
            predicted = (enlarged[index, chosen] >= 0.5).cpu().numpy()
            for number, rng in enumerate(generators):
                click = correction_click(predicted[number], targets[number], rng)
                if click is not None:
                    y, x, label = click
                    # the middle of the target's pixel, in pixels of the crop
                    row = [(y + 0.5) * stride - 0.5, (x + 0.5) * stride - 0.5, label]
                    clicks[number] = np.vstack([clicks[number], np.asarray([row], np.float32)])
        return clicks, previous

    def _mask_losses(
        self, masks: Tensor, targets: Tensor, clicks: Sequence[np.ndarray]
    ) -> tuple[Tensor, Tensor]:
        """(Jaccard losses [B, M], click penalties [B, M])."""
        stride = self.config.crop.supervision_stride
        if self.config.loss.native:
            return mask_losses(masks, targets, clicks, stride)
        padded = pad_clicks(clicks).to(masks.device)
        return jaccard_losses(masks, targets), click_penalties(masks, padded, stride)

    def _segment_loss(
        self, masks: Tensor, jaccard: Tensor, penalty: Tensor, targets: Tensor
    ) -> Tensor:
        loss = self.config.loss
        per_mask = loss.penalty_weight * penalty
        if loss.kind == "jaccard":
            per_mask = per_mask + jaccard
        elif loss.kind == "cross_entropy":
            per_mask = per_mask + cross_entropy_losses(masks, targets)
        else:
            per_mask = per_mask + l1_losses(masks, targets)
        if loss.cross_entropy_weight:
            per_mask = per_mask + loss.cross_entropy_weight * cross_entropy_losses(masks, targets)
        best, _ = hindsight(per_mask)
        return (best + ranked_diversity(jaccard, loss.diversity_weight)).mean()

    def _select_loss(
        self,
        masks: Tensor,
        features: Tensor,
        guidance: Tensor,
        grid_image: Tensor | None,
        jaccard: Tensor,
        rng: np.random.Generator,
    ) -> tuple[Tensor, Tensor]:
        """(loss of g, the Jaccard losses [B] of the masks it selects)."""
        loss = self.config.loss
        if loss.shuffle_masks:
            # the target follows: logit m belongs to the mask that g sees in channel m
            order = torch.from_numpy(rng.permutation(masks.shape[1])).to(masks.device)
            masks, jaccard = masks[:, order], jaccard[:, order]
        with self._autocast():
            logits, scores = self.network.judge(masks, guidance, features, grid_image)
        total = selection_loss(logits.float(), jaccard, loss.select_temperature).mean()
        return total, jaccard.gather(1, scores.argmax(1, keepdim=True))[:, 0]


def _enlarge(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Masks at the losses' resolution: bilinear, as the runtime composes its mask."""
    if tuple(masks.shape[2:]) == tuple(size):
        return masks
    return F.interpolate(masks, size=tuple(size), mode="bilinear", align_corners=False)
