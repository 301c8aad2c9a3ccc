"""EfficientNet-Lite2 as a feature pyramid: taps at strides 2, 4, 8, 16 and 32 (`lite`'s encoder).

MobileNetV2's blocks without squeeze-and-excitation, compound scaled (Tan and Le 2019); the "lite"
variants use ReLU6, so that every layer runs well on processors without special units.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from trtseg.errors import CheckpointError
from trtseg.nn.backbones.mobilenet import InvertedResidualBackbone

# expansion, output channels, repetitions, first stride, kernel side
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 3, 2, 3),
    (6, 48, 3, 2, 5),
    (6, 88, 4, 2, 3),
    (6, 120, 4, 1, 5),
    (6, 208, 5, 2, 5),
    (6, 352, 1, 1, 3),
)
TAP_STAGES = (0, 1, 2, 4, 6)
TAP_CHANNELS = (16, 24, 48, 120, 352)
TAP_STRIDES = (2, 4, 8, 16, 32)
STEM = 32
# RGB in 0..255 to about [-1, 1], as the ImageNet weights were trained
MEAN = (127.0, 127.0, 127.0)
SCALE = (1 / 128, 1 / 128, 1 / 128)
# of batch normalisation in the ImageNet weights
EPSILON = 1e-3


class EfficientNetLite2(InvertedResidualBackbone):
    """The five taps of EfficientNet-Lite2; input normalised by MEAN and SCALE."""

    tap_channels = TAP_CHANNELS
    tap_strides = TAP_STRIDES

    def __init__(self) -> None:
        super().__init__(STEM, STAGES, TAP_STAGES)

    def load_imagenet(self, path: str | Path) -> None:
        """Load ImageNet weights, and fold batch normalisation into them.

        The file is a torch state dict in the names of the reference implementation for PyTorch:
        `_conv_stem`, `_bn0`, `_blocks.N._expand_conv` and so on. It was trained with TensorFlow's
        SAME padding, whose extra pixel lies at the bottom and right of a layer of stride 2, and
        here at the top and left: features of the image shifted by less than a cell, to which
        training adapts.

        Raises:
            CheckpointError: the file is missing or not such a file, or a layer has another shape.
        """
        path = Path(path)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            folded = list(_folded(state))
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, EOFError) as error:
            raise CheckpointError(f"{path}: cannot read ImageNet weights: {error!r}") from error
        layers = self.convolutions()
        if len(folded) != len(layers):
            raise CheckpointError(f"{path}: expected {len(layers)} layers, got {len(folded)}")
        for layer, (name, weight, bias) in zip(layers, folded, strict=True):
            if layer.weight.shape != weight.shape:
                raise CheckpointError(
                    f"{path}: {name}: expected shape {tuple(layer.weight.shape)}, got "
                    f"{tuple(weight.shape)}"
                )
            with torch.no_grad():
                layer.weight.copy_(weight)
                layer.get_parameter("bias").copy_(bias)


def _folded(state: dict[str, Tensor]):
    """(name, weight, bias) of every convolution up to the classifier's, in order."""
    yield _fold(state, "_conv_stem", "_bn0")
    for index in range(sum(stage[2] for stage in STAGES)):
        block = f"_blocks.{index}."
        norms = iter(("_bn0", "_bn1", "_bn2") if index else ("_bn1", "_bn2"))
        names = ("_expand_conv", "_depthwise_conv", "_project_conv")
        for name in names if index else names[1:]:
            yield _fold(state, block + name, block + next(norms))


def _fold(state: dict[str, Tensor], layer: str, norm: str) -> tuple[str, Tensor, Tensor]:
    mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
    gain = state[f"{norm}.weight"] / (variance + EPSILON).sqrt()
    weight = state[f"{layer}.weight"] * gain[:, None, None, None]
    return layer, weight, state[f"{norm}.bias"] - mean * gain
