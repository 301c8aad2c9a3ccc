"""Features of a size that FP16 holds."""

from __future__ import annotations

from importlib import resources

import cv2
import numpy as np
import torch

from trtseg.nn.backbones.vgg import VGG
from trtseg.nn.network import Encoder, LatentDiversity, normalisation

FACTOR = 1 / 255
# FP16 ends at 65,504: room for images with larger features than the one that is tried
_LARGEST = 1000.0
_SIZE = (256, 320)


def fit_features_to_half(network: LatentDiversity) -> float:
    """Divide VGG's features by 255, in place, where they are too large for FP16.

    Its features grow to tens of thousands on pixels of 0 to 255, as its published weights take
    them. Training scales them down as it begins; weights from elsewhere may not be. The
    projections behind the features are multiplied instead, so that the network's answers stay.

    Returns:
        The factor that the features now have to what they were: 1 where nothing was done.
    """
    encoder = network.encoder
    if not isinstance(encoder, Encoder) or not isinstance(encoder.backbone, VGG):
        return 1.0
    with torch.no_grad():
        largest = max(float(tap.abs().max()) for tap in encoder.backbone(_photo(network)))
        if not largest > _LARGEST:
            return 1.0
        encoder.backbone.scale_features(FACTOR)
        for projection in encoder.projections:
            projection.get_parameter("weight").div_(FACTOR)
    return FACTOR


def _photo(network: LatentDiversity) -> torch.Tensor:
    """The demo's photo as the encoder reads it, [1, 3, h, w]."""
    with resources.as_file(resources.files("trtseg") / "data" / "coffee.jpg") as path:
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert pixels is not None  # it ships
    pixels = pixels[..., ::-1]
    small = cv2.resize(pixels, _SIZE[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
    mean, scale = (np.array(values, np.float32) for values in normalisation(network.config))
    return torch.from_numpy(np.ascontiguousarray(((small - mean) * scale).transpose(2, 0, 1)))[None]
