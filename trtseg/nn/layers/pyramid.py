"""`lite`'s networks: a neck that reads the image once, and a small f over maps of every stride.

LD table 4 finds a U-Net as good an f as the context aggregation network. Here all that depends on
the image alone lies behind the encoder: a click pays for a few layers at every stride, sees the
whole image at the coarsest, and ends on the finest grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trtseg.nn.layers.context import SLOPE, ContextLayers
from trtseg.nn.layers.convolution import Convolution

# places of the image that the global context looks at together
GAZES = 4
# doublings between the grid and the level whose features g and the coarse head read
READ = 2
# taps come out of no nonlinearity and deviate by 2 to 9; what is summed here should by about 1
TAP_SCALE = 0.15


def _convolution(
    channels_in: int, channels_out: int, kernel: int, stride: int = 1, scale: float = 1.0
) -> nn.Conv2d:
    if (kernel, stride) == (3, 1):
        layer: nn.Conv2d = Convolution(channels_in, channels_out)
    else:
        layer = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2)
    nn.init.normal_(layer.weight, std=scale * (channels_in * kernel**2) ** -0.5)
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class Neck(nn.Module):
    """Backbone taps to maps of the strides that f works at; from coarse to fine.

    Args:
        tap_channels: of the backbone's taps, finest first; each has half the size of the one
            before.
        widths: channels of the neck at each tap.
        outputs: channels of the maps that f reads, finest first; at most as many as taps.
    """

    def __init__(
        self, tap_channels: Sequence[int], widths: Sequence[int], outputs: Sequence[int]
    ) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            _convolution(channels, width, 1, scale=TAP_SCALE)
            for channels, width in zip(tap_channels, widths, strict=True)
        )
        self.descend = nn.ModuleList(
            _convolution(coarse, fine, 1)
            for fine, coarse in pairwise(widths)
        )
        self.layers = nn.ModuleList(
            # coarse layers cost little and see far
            ContextLayers(width, width, (1, 2) if level >= 2 else (1,), residual=True)
            for level, width in enumerate(widths)
        )
        self.project = nn.ModuleList(
            _convolution(width, channels, 1)
            for width, channels in zip(widths, outputs, strict=False)
        )

    def forward(self, taps: Sequence[Tensor]) -> list[Tensor]:
        """[B, C_l, h_l, w_l] taps to one map [B, outputs[l], h_l, w_l] each."""
        maps: list[Tensor] = []
        x: Tensor | None = None
        for level in reversed(range(len(taps))):
            y = self.lateral[level](taps[level])
            if x is not None:
                y = y + _doubled(self.descend[level](x))
            x = self.layers[level](F.leaky_relu(y, SLOPE))
            if level < len(self.project):
                maps.append(self.project[level](x))
        return maps[::-1]


class GlobalContext(nn.Module):
    """Every cell learns what the cells that matter look like: the clicked object, the background.

    Softmax attention over all cells pools a few vectors; a small network of them scales and
    shifts the channels of every cell.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.Conv2d(width, GAZES, 1)
        self.hidden = nn.Linear(GAZES * width, width)
        self.modulation = nn.Linear(width, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.attention(x).flatten(2).softmax(2)  # [B, gazes, cells]
        pooled = torch.matmul(weight, x.flatten(2).transpose(1, 2)).flatten(1)
        change = self.modulation(F.leaky_relu(self.hidden(pooled), SLOPE))[:, :, None, None]
        gain, offset = change.chunk(2, dim=1)
        return x * (1 + gain) + offset


class PyramidNetwork(nn.Module):
    """f behind its first layer: a U over strides 1, 2, 4, ... of the grid.

    What the six candidates disagree about (a part or the whole, one thing or two) is decided where
    cells are large and channels many, and drawn where they are fine: logits are the sum of a head
    at stride 4 and one at stride 1.

    Args:
        widths: channels at each stride, finest first: those of x, then those of the maps.
        dilations: of the layers at the coarsest stride.
        candidates: M.
    """

    def __init__(self, widths: Sequence[int], dilations: Sequence[int], candidates: int) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(_convolution(fine, coarse, 3, 2) for fine, coarse in pairs)
        self.descent = nn.ModuleList(
            ContextLayers(width, width, (1,), residual=True) for width in widths[1:-1]
        )
        self.bottom = ContextLayers(widths[-1], widths[-1], dilations, residual=True)
        self.context = GlobalContext(widths[-1])
        self.up = nn.ModuleList(_convolution(coarse, fine, 1) for fine, coarse in pairs)
        self.ascent = nn.ModuleList(
            ContextLayers(width, width, (1,), residual=True) for width in widths[:-1]
        )
        self.coarse_head = _convolution(widths[READ], candidates, 1, scale=0.3)
        self.head = _convolution(widths[0], candidates, 1, scale=0.1)

    def forward(self, x: Tensor, *maps: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, C, H, W] and maps [B, C_l, H / 2^l, W / 2^l], l from 1, to masks and features.

        Returns:
            masks [B, M, H, W] in (0, 1), and what g reads, [B, widths[READ], H / 4, W / 4].
        """
        logits, features = self._ascend(self._descend(x, *maps))
        return torch.sigmoid(logits.float()), features

    def prefix(self, x: Tensor, *maps: Tensor, layers: int) -> tuple[Tensor, ...]:
        """What the last `layers` read: x and the maps, or of one layer what the way down gives."""
        return (x, *maps) if layers > 1 else tuple(self._descend(x, *maps))

    def logits(self, features: Sequence[Tensor], layers: int) -> Tensor:
        """Logits [B, M, H, W] of what `prefix` gave."""
        return self._ascend(self._descend(*features) if layers > 1 else features)[0]

    def in_tail(self, name: str, layers: int) -> bool:
        """Whether `logits` uses the parameter of this name."""
        return layers > 1 or name.startswith(("up.", "ascent.", "coarse_head.", "head."))

    @property
    def depth(self) -> int:
        """The way up adapts as one layer, the way down as another."""
        return 2

    def _descend(self, x: Tensor, *maps: Tensor) -> list[Tensor]:
        levels = [x]
        for level, image in enumerate(maps):
            x = F.leaky_relu(self.down[level](x) + image, SLOPE)
            if level < len(self.descent):
                x = self.descent[level](x)
            levels.append(x)
        last = len(self.bottom.layers) - 1
        x = self.context(self.bottom.span(x, 0, last))
        levels[-1] = self.bottom.span(x, last, last + 1)
        return levels

    def _ascend(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        x = features = levels[-1]
        for level in reversed(range(len(levels) - 1)):
            x = F.leaky_relu(levels[level] + _doubled(self.up[level](x)), SLOPE)
            x = self.ascent[level](x)
            if level == READ:
                features = x
        coarse = self.coarse_head(features)
        for _ in range(READ):
            coarse = _doubled(coarse)
        return self.head(x) + coarse, features
