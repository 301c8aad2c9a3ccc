"""g: the network that selects one of the synthesised masks (LD section 3.3)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from trtseg.nn.context import ContextLayers


class SelectionNetwork(nn.Module):
    """Context layers, 1x1 to M maps, global average pooling: M logits [B, M].

    Input: what it reads, concatenated along channels, [B, C, H, W] on f's grid; reduced
    `stride` times by average pooling first.
    """

    def __init__(
        self,
        channels_in: int,
        width: int,
        dilations: tuple[int, ...],
        stride: int,
        residual: bool,
        candidates: int,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.context = ContextLayers(channels_in, width, dilations, residual)
        self.head = nn.Conv2d(width, candidates, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            # ceil_mode keeps the last row and column of a size that does not divide
            x = F.avg_pool2d(x, self.stride, ceil_mode=True)
        return self.head(self.context(x)).mean(dim=(2, 3))
