"""The U-Net that LD table 4 puts in the place of the context aggregation network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trtseg.nn.layers.context import SLOPE
from trtseg.nn.layers.convolution import Convolution

DEPTH = 4
MAX_GROWTH = 4


def _double_convolution(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        Convolution(channels_in, channels_out),
        nn.LeakyReLU(SLOPE),
        Convolution(channels_out, channels_out),
        nn.LeakyReLU(SLOPE),
    )


class UNet(nn.Module):
    """Encoder-decoder with skip connections over the grid.

    Same contract as `ContextNetwork`. Channels double per level up to four times the width;
    four halvings; sizes that do not divide are handled by ceiling, and by resizing to the
    skip connection's size on the way up.
    """

    def __init__(self, width: int, candidates: int) -> None:
        super().__init__()
        widths = [min(width * 2**level, width * MAX_GROWTH) for level in range(DEPTH + 1)]
        self.down = nn.ModuleList(
            _double_convolution(widths[max(level - 1, 0)], widths[level])
            for level in range(DEPTH + 1)
        )
        self.up = nn.ModuleList(
            _double_convolution(widths[level + 1] + widths[level], widths[level])
            for level in reversed(range(DEPTH))
        )
        self.head = nn.Conv2d(width, candidates, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self._features(x)
        return torch.sigmoid(self.head(features).float()), features

    def prefix(self, x: Tensor, *, layers: int) -> tuple[Tensor, ...]:
        """x itself: with its skip connections the network has no part that comes first."""
        del layers
        return (x,)

    def logits(self, features: Sequence[Tensor], layers: int) -> Tensor:
        """Logits [B, M, H, W] of what `prefix` gave."""
        del layers
        return self.head(self._features(features[0]))

    def in_tail(self, name: str, layers: int) -> bool:
        """Whether `logits` uses the parameter of this name: it uses all."""
        del name, layers
        return True

    @property
    def depth(self) -> int:
        """The network adapts as one layer."""
        return 1

    def _features(self, x: Tensor) -> Tensor:
        skips = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool2d(x, 2, ceil_mode=True))
            skips.append(x)
        skips.pop()
        for block in self.up:
            skip = skips.pop()
            x = F.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([x, skip], dim=1))
        return x
