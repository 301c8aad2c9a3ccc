"""One training pass: masks synthesised, their mistakes clicked on, and again; the losses of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trtseg.nn.layers.guidance import guidance_maps
from trtseg.nn.losses import (
    balanced_hindsight,
    click_cells,
    cross_entropy_losses,
    hindsight,
    l1_losses,
    mask_losses,
    ranked_diversity,
    selection_loss,
)
from trtseg.nn.network import LatentDiversity, normalisation
from trtseg.nn.precision import autocast
from trtseg.train.config import TrainConfig
from trtseg.train.samples.clicks import correction_click
from trtseg.train.samples.crops import Batch, pad_clicks
from trtseg.train.samples.randomness import StepRandomness

# clicks beyond these share their weight in the penalty
MANY_CLICKS = 20


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
        """Scalars "loss" (to differentiate), "first_iou", "best_iou" and "selected_iou".

        The image is encoded once. Then every round makes masks and losses, and clicks on the
        mistakes of one of the masks for the next round; the loss is the mean over the rounds that
        are differentiated. "first_iou" is that of the selected mask in the first round, the others
        are of all those rounds.
        """
        image = (batch.images.float() - self.mean) * self.scale
        image = image.contiguous(memory_format=torch.channels_last)
        sets = len(batch.clicks) // len(image)
        trains_f = self.stage == "segment"
        with torch.set_grad_enabled(trains_f), self._autocast():
            encoded = [
                # repeating forgets the layout, and every convolution would convert it
                level.repeat_interleave(sets, dim=0).contiguous(memory_format=torch.channels_last)
                for level in self.network.encode(image)
            ]
        grid_image = None
        if "image" in self.config.network.select_inputs:
            grid_image = F.avg_pool2d(image, self.config.network.base_stride)
            grid_image = grid_image.repeat_interleave(sets, dim=0)
        generators = self._generators(batch, randomness)
        rounds = 1 + int(randomness.shared.integers(self.config.clicks.corrections + 1))
        previous, losses, best, selected = batch.masks, [], [], []
        clicks = batch.clicks
        for number in range(rounds):
            trained = self._is_trained(number, rounds)
            with torch.set_grad_enabled(trains_f and trained):
                masks, features, guidance = self._masks(encoded, clicks, previous, batch.regions)
                enlarged = _enlarge(masks, batch.targets.shape[1:])
                jaccard, penalty = self._mask_losses(enlarged, batch.targets, clicks)
            if trained:
                if trains_f:
                    losses.append(
                        self._segment_loss(enlarged, jaccard, penalty, batch.targets, number > 0)
                    )
                    chosen = jaccard[:, 0]
                else:
                    loss, chosen = self._select_loss(
                        masks, features, guidance, grid_image, jaccard, randomness.shared
                    )
                    losses.append(loss)
                best.append(1 - jaccard.detach().amin(1).mean())
                selected.append(1 - chosen.detach().mean())
            if number + 1 < rounds:
                previous, clicks = self._correct(
                    masks.detach(), enlarged.detach(), jaccard.detach(), batch, clicks, generators
                )
        return {
            "loss": torch.stack(losses).mean(),
            "first_iou": selected[0],
            "best_iou": torch.stack(best).mean(),
            "selected_iou": torch.stack(selected).mean(),
        }

    def _autocast(self) -> torch.autocast:
        # only around the networks: the losses are sums over many pixels and stay float32
        return autocast(self.mean.device, self.config.bf16)

    def _is_trained(self, number: int, rounds: int) -> bool:
        """Whether a round of so many is differentiated."""
        most = self.config.clicks.trained_rounds
        return most is None or number == 0 or number > rounds - most

    def _generators(self, batch: Batch, randomness: StepRandomness) -> Any:
        """What draws the corrections."""
        return [randomness.of_prompt(index) for index in range(len(batch.clicks))]

    def _padded(self, clicks: Any) -> Tensor:
        """The clicks as one tensor [B, P, 3] on the device."""
        return pad_clicks(clicks).to(self.mean.device)

    def _masks(
        self,
        encoded: Sequence[Tensor],
        clicks: Any,
        previous: Tensor | None,
        regions: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(masks float32, features, guidance)."""
        height, width = encoded[0].shape[2:]
        guidance = guidance_maps(
            self._padded(clicks), (height, width), self.config.network, previous, regions
        )
        with self._autocast():
            masks, features = self.network.masks(encoded, guidance)
        return masks.float(), features, guidance

    def _correct(
        self,
        masks: Tensor,
        enlarged: Tensor,
        jaccard: Tensor,
        batch: Batch,
        clicks: Any,  # as `Batch.clicks`
        generators: Sequence[np.random.Generator],
    ) -> tuple[Tensor, list[np.ndarray]]:
        """The masks that are corrected [B, H, W], and the clicks with one more each."""
        # at test time g or the user chooses: let f meet its best mask and its first one
        first = torch.tensor([bool(rng.random() < 0.5) for rng in generators])
        chosen = torch.where(first.to(masks.device), 0, jaccard.argmin(1))
        index = torch.arange(len(clicks), device=masks.device)
        predicted = (enlarged[index, chosen] >= 0.5).cpu().numpy()
        targets = batch.targets.cpu().numpy()
        stride = self.config.crop.supervision_stride
        at_edge = self.config.clicks.edge_corrections
        continued = list(clicks)
        for number, rng in enumerate(generators):
            click = correction_click(predicted[number], targets[number], rng, at_edge)
            if click is not None:
                y, x, label = click
                # the middle of the target's pixel, in pixels of the crop
                row = [(y + 0.5) * stride - 0.5, (x + 0.5) * stride - 0.5, label]
                continued[number] = np.vstack([clicks[number], np.asarray([row], np.float32)])
        return masks[index, chosen], continued

    def _mask_losses(
        self, masks: Tensor, targets: Tensor, clicks: Any
    ) -> tuple[Tensor, Tensor]:
        """(Jaccard losses [B, M], click penalties [B, M]).

        Clicks that slipped off the object are not held against the masks, and a stroke of many
        points counts like a few clicks.
        """
        stride = self.config.crop.supervision_stride
        truths = targets.cpu().numpy()
        kept, share = [], []
        for rows, truth in zip(clicks, truths, strict=True):
            cells = click_cells(rows, stride, truth.shape)
            right = truth[cells[:, 0], cells[:, 1]] == rows[:, 2]
            kept.append(rows[right])
            share.append(min(1.0, MANY_CLICKS / max(int(right.sum()), 1)))
        jaccard, penalty = mask_losses(masks, targets, kept, stride)
        return jaccard, penalty * torch.tensor(share, device=penalty.device)[:, None]

    def _segment_loss(
        self,
        masks: Tensor,
        jaccard: Tensor,
        penalty: Tensor,
        targets: Tensor,
        corrected: bool,
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
            per_mask = per_mask + loss.cross_entropy_weight * cross_entropy_losses(
                masks, targets, focus=loss.focus, edge_weight=loss.edge_weight
            )
        assign = balanced_hindsight if loss.assignment == "balanced" else hindsight
        if loss.anchor_weight and per_mask.shape[1] > 1:
            best, _ = assign(per_mask[:, 1:])
            best = best + loss.anchor_weight * per_mask[:, 0]
        else:
            best, _ = assign(per_mask)
        if corrected and loss.consensus_weight:
            best = best + loss.consensus_weight * per_mask.mean(1)
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
