"""MobileNetV2 as a feature pyramid: taps at strides 2, 4, 8, 16 and 32 (the lite encoder)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trtseg.atomic import read_file
from trtseg.errors import CheckpointError
from trtseg.parse import read_json

# expansion, output channels, repetitions, first stride, kernel (Sandler et al. 2018, table 2)
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 32, 3, 2, 3),
    (6, 64, 4, 2, 3),
    (6, 96, 3, 1, 3),
    (6, 160, 3, 2, 3),
    (6, 320, 1, 1, 3),
)
TAP_STAGES = (0, 1, 2, 4, 6)
TAP_CHANNELS = (16, 24, 32, 96, 320)
TAP_STRIDES = (2, 4, 8, 16, 32)
# RGB in 0..255 to [-1, 1], as the ImageNet weights were trained
MEAN = (127.5, 127.5, 127.5)
SCALE = (1 / 127.5, 1 / 127.5, 1 / 127.5)


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise, project 1x1; batch normalisation is folded into the weights."""

    def __init__(
        self, channels_in: int, channels_out: int, expansion: int, stride: int, kernel: int = 3
    ) -> None:
        super().__init__()
        hidden = channels_in * expansion
        self.expand = nn.Conv2d(channels_in, hidden, 1) if expansion != 1 else None
        self.depthwise = nn.Conv2d(
            hidden, hidden, kernel, stride, padding=kernel // 2, groups=hidden
        )
        self.project = nn.Conv2d(hidden, channels_out, 1)
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self._filter(y)))
        return x + y if self.residual else y

    def _filter(self, x: Tensor) -> Tensor:
        """The depthwise layer; in training on a CPU the same values by faster gradients."""
        layer = self.depthwise
        learns = x.requires_grad or layer.weight.requires_grad
        if not (torch.is_grad_enabled() and learns and x.is_cpu):
            return layer(x)
        if layer.stride != (1, 1):
            return _at_every_pixel(layer, x)
        if layer.dilation != (1, 1):
            return _by_phases(layer, x)
        return layer(x)


def _at_every_pixel(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A strided depthwise layer, of whose dense values all but the strided ones are dropped."""
    down, across = layer.stride
    dense = F.conv2d(x, layer.weight, layer.bias, 1, layer.padding, layer.dilation, layer.groups)
    return dense[:, :, ::down, ::across].contiguous(memory_format=torch.channels_last)


def _by_phases(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A depthwise layer of dilation d as an undilated one on the d x d phases of the grid,
    which are images of their own to it."""
    batch, channels, height, width = x.shape
    d = layer.dilation[0]
    x = F.pad(x, (0, -width % d, 0, -height % d))
    rows, columns = x.shape[2] // d, x.shape[3] // d
    # channels last: every permutation moves whole pixels
    phases = x.permute(0, 2, 3, 1).reshape(batch, rows, d, columns, d, channels)
    phases = phases.permute(0, 2, 4, 5, 1, 3).reshape(-1, channels, rows, columns)
    border = layer.kernel_size[0] // 2
    y = F.conv2d(phases, layer.weight, layer.bias, padding=border, groups=layer.groups)
    y = y.permute(0, 2, 3, 1).reshape(batch, d, d, rows, columns, channels)
    y = y.permute(0, 5, 3, 1, 4, 2).reshape(batch, channels, rows * d, columns * d)
    return y[:, :, :height, :width].contiguous(memory_format=torch.channels_last)


class InvertedResidualBackbone(nn.Module):
    """A stem of stride 2 and stages of inverted residuals; five of the stages are tapped.

    Args:
        stem: its channels.
        stages: (expansion, output channels, repetitions, first stride, kernel) each.
        taps: indices of the stages that are given out.

    Input [B, 3, h, w], normalised; output a list of maps [B, c, h_t, w_t].
    """

    def __init__(
        self, stem: int, stages: Sequence[tuple[int, int, int, int, int]], taps: Sequence[int]
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, 2, padding=1)
        self.stages = nn.ModuleList()
        self._taps = tuple(taps)
        channels = stem
        for expansion, width, repetitions, stride, kernel in stages:
            blocks = []
            for step in (stride, *[1] * (repetitions - 1)):
                blocks.append(InvertedResidual(channels, width, expansion, step, kernel))
                channels = width
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, image: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem(image))
        taps = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self._taps:
                taps.append(x)
        return taps

    def convolutions(self) -> list[nn.Conv2d]:
        """All convolutions in the order of the computation."""
        return [module for module in self.modules() if isinstance(module, nn.Conv2d)]


class MobileNetV2(InvertedResidualBackbone):
    """The five taps of MobileNetV2 1.0; input in [-1, 1]."""

    tap_channels = TAP_CHANNELS
    tap_strides = TAP_STRIDES

    def __init__(self) -> None:
        super().__init__(32, STAGES, TAP_STAGES)

    def load_imagenet(self, path: str | Path) -> None:
        """Load folded ImageNet weights: an npz of `NN_conv|NN_dw.weight|bias`, and beside it
        `NAME.layers.json` that lists the layers in order.

        TensorFlow's SAME padding puts the extra pixel of a stride-2 layer at the bottom and
        right; here it is at the top and left. That only moves the sampling phase: the features
        are those of the image shifted by less than a cell, and training adapts to it.

        Raises:
            CheckpointError: a file is missing, or a layer has another shape.
        """
        path = Path(path)
        try:
            arrays = dict(np.load(io.BytesIO(read_file(path, 2**30)), allow_pickle=False))
            layers = read_json(path.with_name(f"{path.stem}.layers.json"))
            names = [layer["name"] for layer in layers]
        except (
            OSError, EOFError, ValueError, TypeError, AttributeError, KeyError, BadZipFile,
        ) as error:  # fmt: skip
            raise CheckpointError(f"{path}: cannot read ImageNet weights: {error}") from error
        # the files go on with the classifier, which is not used
        convolutions = self.convolutions()
        if len(names) < len(convolutions):
            raise CheckpointError(
                f"{path}: expected {len(convolutions)} layers or more, got {len(names)}"
            )
        for convolution, name in zip(convolutions, names, strict=False):
            for kind, parameter in convolution.named_parameters():
                value = arrays.get(f"{name}.{kind}")
                if value is None:
                    raise CheckpointError(f"{path}: {name}.{kind} is missing")
                if value.shape != tuple(parameter.shape):
                    raise CheckpointError(
                        f"{path}: {name}.{kind}: expected shape "
                        f"{tuple(parameter.shape)}, got {value.shape}"
                    )
                with torch.no_grad():
                    parameter.copy_(torch.from_numpy(value.astype(np.float32)))
