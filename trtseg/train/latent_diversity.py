"""Latent diversity as a task of the trainer: f with its encoder, then g on the frozen f."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trtseg import bundle as bundles
from trtseg.nn.backbones.efficientnet_lite import EfficientNetLite2
from trtseg.nn.backbones.mobilenet import MobileNetV2
from trtseg.nn.bundle_weights import bundle_weights
from trtseg.nn.checkpoint import assign
from trtseg.nn.checkpoint import weights as checkpoint_weights
from trtseg.nn.network import Encoder, LatentDiversity, normalisation
from trtseg.train.config import BUNDLE_PREFIX, TrainConfig
from trtseg.train.device.data import DeviceImages, device_batches
from trtseg.train.device.objective import DeviceObjective
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
            initialise(self.network, config.initial_weights)
            if not is_ours(config.initial_weights):
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


def initialise(network: LatentDiversity, source: str) -> None:
    """Load a backbone's weights (a file, or torchvision's URL), or a network of ours.

    A network of ours may have more candidates than `network`: their order is a ranking (LD
    eq. 7), so that the first of them are taken, and g begins anew.

    Args:
        network: receives the weights.
        source: see `TrainConfig.initial_weights`.

    Raises:
        BundleError, CheckpointError: the source is missing, damaged or of another network.
        BackendUnavailable: h5py is missing.
        ValueError: the network has no encoder that could take them.
    """
    if is_ours(source):
        if source.startswith(BUNDLE_PREFIX):
            _, state = bundle_weights(bundles.read(source.removeprefix(BUNDLE_PREFIX)))
        else:
            _, state = checkpoint_weights(source)
        assign(network, _first_candidates(network, state), source)
        return
    if network.encoder is None:
        raise ValueError("initial_weights: encoder 'none' has no backbone to take them")
    backbone = network.encoder.backbone
    if isinstance(backbone, MobileNetV2 | EfficientNetLite2):
        backbone.load_imagenet(source)
    elif source.endswith(".h5"):
        backbone.load_hed(source)
    elif "://" in source:
        backbone.load_torchvision_url(source)
    else:
        backbone.load_torchvision_file(source)


def is_ours(source: str) -> bool:
    """Whether initial weights are those of a network of ours, not of a backbone."""
    return source.startswith(BUNDLE_PREFIX) or Path(source).is_dir()


def balance_levels(network: LatentDiversity, image: Tensor) -> None:
    """Scale the projections until every level that is summed varies alike on an image.

    Backbones differ in the size of their features: where these are small, f would see little but
    the image for its first thousand steps. (LSUV, Mishkin and Matas 2016, of this one layer.)

    Args:
        network: with a new `Encoder`; others are left alone.
        image: uint8 [3, h, w], any photograph.
    """
    encoder = network.encoder
    if not isinstance(encoder, Encoder):
        return
    mean, scale = (torch.tensor(v).view(1, 3, 1, 1) for v in normalisation(network.config))
    with torch.no_grad():
        levels = encoder((image[None].float() - mean) * scale)
        for projection, level in zip(encoder.projections, levels, strict=True):
            spread = level.std().clamp_min(1e-6)
            projection.get_parameter("weight").mul_(len(levels) ** -0.5 / spread)


def _first_candidates(network: LatentDiversity, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` as it is, or cut to the candidates of `network`, with that network's own g."""
    heads = ("segment.head.", "segment.coarse_head.")
    wanted = network.config.candidates
    if not 0 < wanted < len(state.get(f"{heads[0]}bias", ())):
        return state
    own = {key: value for key, value in network.state_dict().items() if key.startswith("select.")}
    kept = {key: value for key, value in state.items() if not key.startswith("select.")}
    return own | {
        key: value[:wanted] if key.startswith(heads) else value for key, value in kept.items()
    }
