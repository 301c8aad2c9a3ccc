"""Xception-65 as DeepLab changed it: deeper middle flow, strided instead of pooled, dilatable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_MOMENTUM = 3e-4  # 1 - 0.9997


@dataclass(frozen=True)
class Block:
    """A row of the layer table.

    Attributes:
        name: of the row.
        channels: of the unit's three separable convolutions.
        skip: "conv" (1x1), "sum" (identity) or "none".
        units: how many alike.
        stride: of the last convolution of the last unit, and of its 1x1 shortcut.
        relu_inside: ReLU after each depthwise and pointwise convolution, instead of one before
            each separable convolution.
    """

    name: str
    channels: tuple[int, int, int]
    skip: str
    units: int
    stride: int
    relu_inside: bool = False


XCEPTION_65 = (
    Block("entry_1", (128, 128, 128), "conv", 1, 2),
    Block("entry_2", (256, 256, 256), "conv", 1, 2),
    Block("entry_3", (728, 728, 728), "conv", 1, 2),
    Block("middle", (728, 728, 728), "sum", 16, 1),
    Block("exit_1", (728, 1024, 1024), "conv", 1, 2),
    Block("exit_2", (1536, 1536, 2048), "none", 1, 1, relu_inside=True),
)
ROOT = (32, 64)  # channels of the two 3x3 convolutions in front, the first with stride 2
LOW_LEVEL_BLOCK = "entry_2"  # its second convolution, at stride 4, is what the decoder reads
LOW_LEVEL_CHANNELS = 256
CHANNELS = 2048


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM)


class SeparableConv(nn.Module):
    """3x3 depthwise and 1x1 pointwise convolution, batch normalisation after each."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stride: int = 1,
        dilation: int = 1,
        relu_inside: bool = False,
    ) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels_in, channels_in, 3, stride, padding=dilation, dilation=dilation,
            groups=channels_in, bias=False,
        )
        self.depthwise_norm = _norm(channels_in)
        self.pointwise = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.pointwise_norm = _norm(channels_out)
        self.relu_inside = relu_inside

    def forward(self, x: Tensor) -> Tensor:
        if not self.relu_inside:
            x = self.depthwise_norm(self.depthwise(F.relu(x)))
            return self.pointwise_norm(self.pointwise(x))
        x = F.relu(self.depthwise_norm(self.depthwise(x)))
        return F.relu(self.pointwise_norm(self.pointwise(x)))


class Unit(nn.Module):
    """Three separable convolutions beside a shortcut; also gives the second one's output."""

    def __init__(self, channels_in: int, block: Block, stride: int, dilation: int) -> None:
        super().__init__()
        layers = []
        previous = channels_in
        for index, channels in enumerate(block.channels):
            layers.append(
                SeparableConv(
                    previous, channels, stride if index == 2 else 1, dilation, block.relu_inside
                )
            )
            previous = channels
        self.layers = nn.ModuleList(layers)
        self.skip = block.skip
        self.shortcut: nn.Module | None = None
        if block.skip == "conv":
            convolution = nn.Conv2d(channels_in, previous, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, _norm(previous))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = x
        second = x
        for index, layer in enumerate(self.layers):
            y = layer(y)
            if index == 1:
                second = y
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        elif self.skip == "sum":
            y = y + x
        return y, second


class Xception65(nn.Module):
    """Features at a bounded stride, and low-level features at stride 4.

    Where the stride is reached, further strides become dilations.

    Args:
        channels_in: of the input; 5 for RGB and two click maps.
        output_stride: of the features: 8, 16 or 32.
        blocks: the layer table.
    """

    low_level_channels = LOW_LEVEL_CHANNELS
    channels = CHANNELS

    def __init__(
        self,
        channels_in: int = 5,
        output_stride: int = 8,
        blocks: Sequence[Block] = XCEPTION_65,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride: expected 8, 16 or 32, got {output_stride}")
        self.root = nn.Sequential(
            nn.Conv2d(channels_in, ROOT[0], 3, 2, padding=1, bias=False), _norm(ROOT[0]), nn.ReLU(),
            nn.Conv2d(ROOT[0], ROOT[1], 3, padding=1, bias=False), _norm(ROOT[1]), nn.ReLU(),
        )  # fmt: skip
        units, self.names = [], []
        channels, stride, dilation = ROOT[1], 2, 1
        for block in blocks:
            for index in range(block.units):
                own = block.stride if index == block.units - 1 else 1
                reached = stride >= output_stride
                units.append(Unit(channels, block, 1 if reached else own, dilation))
                self.names.append(block.name)
                channels = block.channels[-1]
                if reached:
                    dilation *= own
                else:
                    stride *= own
        self.units = nn.ModuleList(units)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(low-level features at stride 4, features at the output stride)."""
        x = self.root(x)
        low = x
        for name, unit in zip(self.names, self.units, strict=True):
            x, second = unit(x)
            if name == LOW_LEVEL_BLOCK:
                low = second
        return low, x


def widened(state: Mapping[str, Tensor], name: str, channels: int) -> dict[str, Tensor]:
    """A state dict in which the weight `name` reads `channels` inputs, the further ones by 0."""
    weight = state[name]
    further = weight.new_zeros(weight.shape[0], channels - weight.shape[1], *weight.shape[2:])
    return {**state, name: torch.cat([weight, further], dim=1)}
