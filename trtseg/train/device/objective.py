"""`trtseg.train.objective` for batches whose clicks are one tensor on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trtseg.nn.losses import click_penalties, jaccard_losses
from trtseg.train.device.clicks import NONE, correction_clicks
from trtseg.train.objective import MANY_CLICKS, Objective
from trtseg.train.samples.crops import Batch
from trtseg.train.samples.randomness import StepRandomness


class DeviceObjective(Objective):
    """The same losses and corrections, without reading anything back from the device."""

    def _generators(self, batch: Batch, randomness: StepRandomness) -> torch.Generator:
        generator = torch.Generator(batch.targets.device)
        return generator.manual_seed(randomness.torch_seed)

    def _padded(self, clicks: Any) -> Tensor:
        return clicks

    def _correct(
        self,
        masks: Tensor,
        enlarged: Tensor,
        jaccard: Tensor,
        batch: Batch,
        clicks: Any,
        generators: Any,
    ) -> tuple[Tensor, Any]:
        # at test time g or the user chooses: let f meet its best mask and its first one
        first = torch.rand(len(masks), device=masks.device, generator=generators) < 0.5
        chosen = torch.where(first, 0, jaccard.argmin(1))
        index = torch.arange(len(masks), device=masks.device)
        rows = correction_clicks(
            enlarged[index, chosen] >= 0.5, batch.targets, generators,
            self.config.clicks.edge_corrections,
        )  # fmt: skip
        stride = self.config.crop.supervision_stride
        # the middle of the target's pixel, in pixels of the crop
        places = (rows[:, :2] + 0.5) * stride - 0.5
        rows = torch.cat([places, rows[:, 2:]], 1).masked_fill(rows[:, 2:] == NONE, NONE)
        return masks[index, chosen], torch.cat([clicks, rows[:, None]], 1)

    def _mask_losses(
        self, masks: Tensor, targets: Tensor, clicks: Any
    ) -> tuple[Tensor, Tensor]:
        stride = self.config.crop.supervision_stride
        height, width = targets.shape[1:]
        cells = torch.floor((clicks[..., :2] + 0.5) / stride).long()
        index = cells[..., 0].clamp(0, height - 1) * width + cells[..., 1].clamp(0, width - 1)
        right = targets.flatten(1).gather(1, index) == clicks[..., 2]
        kept = clicks.masked_fill(~right[..., None], NONE)
        share = (MANY_CLICKS / right.sum(1).clamp(min=1)).clamp(max=1)
        penalty = click_penalties(masks, kept, stride)
        return jaccard_losses(masks, targets), penalty * share[:, None]
