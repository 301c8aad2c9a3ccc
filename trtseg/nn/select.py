"""g: the network that selects one of the synthesised masks (LD section 3.3)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from trtseg.nn.context import ContextLayers

# of a cell on which all masks agree, where a cell on which they differ wholly weighs 1
AGREEMENT_WEIGHT = 0.02


class SelectionNetwork(nn.Module):
    """Context layers, 1x1 to M maps, pooling over the cells: M logits [B, M].

    Input: what it reads, concatenated along channels, [B, C, H, W] on f's grid; reduced
    `stride` times by average pooling first.

    Args:
        masks: where the M masks are among the input's channels, to pool the maps where the
            masks disagree: what no hypothesis contests says nothing about which is best, and a
            small object would drown in it. None is global average pooling (the paper).
    """

    def __init__(
        self,
        channels_in: int,
        width: int,
        dilations: tuple[int, ...],
        stride: int,
        residual: bool,
        candidates: int,
        masks: slice | None = None,
    ) -> None:
        super().__init__()
        self.stride, self.masks = stride, masks
        self.context = ContextLayers(channels_in, width, dilations, residual)
        self.head = nn.Conv2d(width, candidates, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            # ceil_mode keeps the last row and column of a size that does not divide
            x = F.avg_pool2d(x, self.stride, ceil_mode=True)
        maps = self.head(self.context(x))
        if self.masks is None:
            return maps.mean(dim=(2, 3))
        masks = x[:, self.masks]
        disagreement = masks.amax(1, keepdim=True) - masks.amin(1, keepdim=True)
        weight = disagreement.to(maps.dtype) + AGREEMENT_WEIGHT
        # means, not sums: in FP16 a sum over the cells of a large image would overflow
        return (maps * weight).mean(dim=(2, 3)) / weight.mean(dim=(2, 3))
