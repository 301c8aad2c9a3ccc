"""g: the network that selects one of the synthesised masks (LD section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trtseg.nn.layers.context import ContextLayers

# of a cell on which all masks agree, where a cell on which they differ wholly weighs 1
AGREEMENT_WEIGHT = 0.02
# of the union of two empty masks, as `expected_overlap` sums it
EMPTY = 1e-4


def expected_overlap(masks: Tensor, probability: Tensor) -> Tensor:
    """sum_k p_k J(B_m, B_k) of every mask m: its overlap with the object, as far as is known.

    J = sum min(A, B) / sum max(A, B) is the relaxed Jaccard index (LD eq. 3), and the object is
    taken to be mask k with probability p_k. Choosing by it prefers a mask that is nearly right
    whatever was meant to one that is exactly right a little more often.

    Args:
        masks: [B, M, H, W] in [0, 1].
        probability: [B, M], sums to 1 over M.

    Returns:
        [B, M] in [0, 1].
    """
    one, other = masks[:, :, None], masks[:, None]
    intersection = torch.minimum(one, other).mean(-1).sum(-1)
    union = torch.maximum(one, other).mean(-1).sum(-1)
    return (intersection / union.clamp_min(EMPTY) * probability[:, None]).sum(2)


class SelectionNetwork(nn.Module):
    """Context layers, 1x1 to M maps, pooling over the cells to M logits, and scores of these.

    Input: what it reads, a list of [B, C_i, H_i, W_i], each reduced by average pooling to one
    grid and then concatenated. Output: scores [B, M] in [0, 1]; the largest wins.

    Args:
        channels_in: of all that it reads together.
        strides: how many cells of each input are pooled into one, along each axis.
        masks: where the M masks are among the input's channels.
        pooling: how maps become logits, see `NetworkConfig.select_pooling`. Pooled where the masks
            disagree: what no candidate contests says nothing about which is best, and a small
            object would drown in it.
        by: what the scores are, see `NetworkConfig.select_by`.
        calibration: of these, see `NetworkConfig.score_calibration`.
    """

    def __init__(
        self,
        channels_in: int,
        width: int,
        dilations: tuple[int, ...],
        strides: Sequence[int],
        residual: bool,
        candidates: int,
        masks: slice,
        pooling: str,
        by: str,
        calibration: tuple[float, float],
    ) -> None:
        super().__init__()
        self.strides, self.masks, self.pooling, self.by = list(strides), masks, pooling, by
        self.ceiling, self.exponent = calibration
        self.context = ContextLayers(channels_in, width, dilations, residual)
        self.head = nn.Conv2d(width, candidates, 1)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        return self.judge(inputs)[1]

    def judge(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(logits [B, M], which are trained (LD eq. 6), scores [B, M])."""
        pooled = [
            # ceil_mode keeps the last row and column of a size that does not divide
            F.avg_pool2d(value, stride, ceil_mode=True) if stride > 1 else value
            for value, stride in zip(inputs, self.strides, strict=True)
        ]
        x = torch.cat(pooled, dim=1)
        logits = self._pooled(x)
        scores = logits.softmax(1)
        if self.by == "overlap":
            overlap = expected_overlap(x[:, self.masks].float(), scores)
            scores = self.ceiling * overlap**self.exponent
        return logits, scores.to(x.dtype)

    def _pooled(self, x: Tensor) -> Tensor:
        # a mean over the cells of a large image is beyond FP16, whatever the layers compute in
        maps = self.head(self.context(x)).float()
        if self.pooling == "mean":
            return maps.mean(dim=(2, 3))
        masks = x[:, self.masks].float()
        disagreement = masks.amax(1, keepdim=True) - masks.amin(1, keepdim=True)
        weight = disagreement + AGREEMENT_WEIGHT
        return (maps * weight).mean(dim=(2, 3)) / weight.mean(dim=(2, 3))
