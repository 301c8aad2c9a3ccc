"""Latent diversity as a task of the trainer: f with its encoder, then g on the frozen f."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trtseg.nn.network import LatentDiversity
from trtseg.train.config import TrainConfig
from trtseg.train.device.data import DeviceImages, device_batches
from trtseg.train.device.objective import DeviceObjective
from trtseg.train.initial import balance_levels, initialise, is_ours
from trtseg.train.objective import Objective
from trtseg.train.parallel import Parallel
from trtseg.train.samples.crops import Batch, Crops, loader
from trtseg.train.samples.images import LabelledImages
from trtseg.train.trainer import Stage
from trtseg.train.validate import validate


class LatentDiversityTask:
    """What `Trainer` asks for, of one configuration."""

    def __init__(self, config: TrainConfig) -> None:
        self.config, self.seed = config, config.seed
        self.images = LabelledImages(config.data)
        self._on_device: DeviceImages | None = None
        torch.manual_seed(config.seed)
        self.network = LatentDiversity(config.network)
        if config.initial_weights is not None:
            initialise(self.network, config.initial_weights, config.initial_part)
            if not is_ours(config.initial_weights) or config.initial_part == "backbone":
                image, _, _ = self._crops()[0]
                balance_levels(self.network, torch.from_numpy(np.ascontiguousarray(image)))

    def stages(self, world: int) -> Sequence[Stage]:
        config = self.config
        return [
            stage.stage(
                # the paper's two stages are called by what they train
                stage.trains if not number else f"{stage.trains}-{number + 1}"
                if any(other.trains == stage.trains for other in config.stages[:number])
                else stage.trains,
                len(self.images), config.batch * world, config.clip_norm, config.ema,
            )
            for number, stage in enumerate(config.stages)
            if stage.trains == "segment" or self.network.select is not None
        ]

    def objective(self, stage: Stage) -> nn.Module:
        kind = DeviceObjective if self.config.device_data else Objective
        return kind(self.network, self.config, _trained(stage))

    def batches(
        self, first: int, count: int, parallel: Parallel, workers: int
    ) -> Iterable[Batch]:
        config = self.config
        if config.device_data:
            if self._on_device is None:
                self._on_device = DeviceImages(
                    self.images, config.crop, parallel.device, max(1, workers)
                )
            return device_batches(
                self._on_device, config, range(first, first + count), parallel.rank
            )
        return loader(self._crops(), first, count, config.batch, parallel, workers)

    def _crops(self) -> Crops:
        config = self.config
        return Crops(
            self.images, config.crop, config.clicks, config.network.base_stride, config.seed
        )

    def validate(self, stage: Stage, state: Mapping[str, Tensor]) -> dict[str, float] | None:
        config = self.config
        if not config.validation.paths:
            return None
        network = LatentDiversity(config.network)
        network.load_state_dict(dict(state))
        if _trained(stage) == "segment":
            network.select = None  # g is not trained yet
        device = str(next(iter(state.values())).device)
        return validate(network, config.validation, device=device)

    def record(self) -> dict[str, Any]:
        return {"network": self.config.network.to_dict(), "train": self.config.to_dict()}


def _trained(stage: Stage) -> str:
    return stage.name.split("-")[0]
