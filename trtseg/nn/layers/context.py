"""The context aggregation network of LD table 1, used by f and by g."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trtseg.nn.layers.convolution import Convolution

SLOPE = 0.2


class ContextLayers(nn.Module):
    """3x3 convolutions with growing dilation, each followed by leaky ReLU 0.2.

    Args:
        channels_in: channels of the input; the residual form needs them equal to `width`
            from the second layer on.
        width: channels of every layer.
        dilations: one layer each.
        residual: add each layer's output to its input where the channels allow it.
    """

    def __init__(
        self, channels_in: int, width: int, dilations: Sequence[int], residual: bool
    ) -> None:
        super().__init__()
        self.residual = residual
        layers = []
        for index, dilation in enumerate(dilations):
            layer = Convolution(channels_in if index == 0 else width, width, dilation)
            nn.init.kaiming_normal_(layer.weight, a=SLOPE, nonlinearity="leaky_relu")
            if residual and layer.in_channels == width:
                # a sum of n branches: keep the variance of the sum near that of the input
                with torch.no_grad():
                    layer.weight.mul_(len(dilations) ** -0.5)
            nn.init.zeros_(layer.get_parameter("bias"))
            layers.append(layer)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.span(x, 0, len(self.layers))

    def span(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Layers start to stop - 1 only: adaptation keeps what the layers before gave."""
        for layer in self.layers[start:stop]:
            y = F.leaky_relu(layer(x), SLOPE)
            x = x + y if self.residual and x.shape[1] == y.shape[1] else y
        return x


class ContextNetwork(nn.Module):
    """f after its first layer: context layers, then 1x1 to M masks and a sigmoid.

    Input x [B, C, H, W] (the first layer's output, LD table 1 layer 1), outputs masks
    [B, M, H, W] in (0, 1) and the last hidden features [B, C, H, W].
    """

    def __init__(
        self, width: int, dilations: Sequence[int], residual: bool, candidates: int
    ) -> None:
        super().__init__()
        self.context = ContextLayers(width, width, dilations, residual)
        self.head = nn.Conv2d(width, candidates, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.context(x)
        # in bfloat16 the sigmoid of 7 is 1, and a wrong pixel there would get no gradient
        return torch.sigmoid(self.head(features).float()), features

    def prefix(self, x: Tensor, *, layers: int) -> tuple[Tensor, ...]:
        """What all but the last `layers` context layers make of x."""
        return (self.context.span(x, 0, self.depth - layers),)

    def logits(self, features: Sequence[Tensor], layers: int) -> Tensor:
        """Logits [B, M, H, W] of what `prefix` gave."""
        (x,) = features
        return self.head(self.context.span(x, self.depth - layers, self.depth))

    def in_tail(self, name: str, layers: int) -> bool:
        """Whether `logits` uses the parameter of this name."""
        if ".layers." not in name:
            return True
        return int(name.split(".layers.")[1].split(".")[0]) >= self.depth - layers

    @property
    def depth(self) -> int:
        """The number of context layers."""
        return len(self.context.layers)
