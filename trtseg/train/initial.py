"""The weights that a training begins with."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from trtseg import bundle as bundles
from trtseg.nn.backbones.efficientnet_lite import EfficientNetLite2
from trtseg.nn.backbones.mobilenet import MobileNetV2
from trtseg.nn.bundle_weights import bundle_weights
from trtseg.nn.checkpoint import assign
from trtseg.nn.checkpoint import weights as checkpoint_weights
from trtseg.nn.network import Encoder, LatentDiversity, normalisation
from trtseg.train.config import BUNDLE_PREFIX

BACKBONE = "encoder.backbone."


def initialise(network: LatentDiversity, source: str, part: str = "network") -> None:
    """Load a backbone's weights (a file, or torchvision's URL), or a network of ours.

    A network of ours may have more candidates than `network`: their order is a ranking (LD
    eq. 7), so that the first of them are taken, and g begins anew.

    Args:
        network: receives the weights.
        source: see `TrainConfig.initial_weights`.
        part: see `TrainConfig.initial_part`.

    Raises:
        BundleError, CheckpointError: the source is missing, damaged or of another network.
        BackendUnavailable: h5py is missing.
        ValueError: the network has no encoder that could take them.
    """
    if is_ours(source) and part == "network":
        assign(network, _first_candidates(network, weights_of(source)), source)
        return
    if network.encoder is None:
        raise ValueError("initial_weights: encoder 'none' has no backbone to take them")
    backbone = network.encoder.backbone
    if is_ours(source):
        assign(backbone, backbone_of(source), source)
    elif isinstance(backbone, MobileNetV2 | EfficientNetLite2):
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


def weights_of(source: str) -> dict[str, Tensor]:
    """The weights of a network of ours, see `is_ours`.

    Raises:
        BundleError, CheckpointError: it is missing or damaged.
    """
    if source.startswith(BUNDLE_PREFIX):
        _, state = bundle_weights(bundles.read(source.removeprefix(BUNDLE_PREFIX)))
    else:
        _, state = checkpoint_weights(source)
    return state


def backbone_of(source: str) -> dict[str, Tensor]:
    """The weights of the backbone of a network of ours, as `weights_of`."""
    return {
        name.removeprefix(BACKBONE): value
        for name, value in weights_of(source).items()
        if name.startswith(BACKBONE)
    }


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
