"""The operations of `trtseg.ops` as compositions of torch's own functions.

They say in torch's words what the native kernels compute, run on any device and dtype (float64
included), and take their gradients from autograd: the reference for the kernels' gradients, and the
competitor in the benchmark. Signatures are those of `trtseg.ops` without `out` and `stream`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F

IGNORE = 255


def click_maps(
    points: torch.Tensor, size: tuple[int, int], *, limit_px: float, sigma_px: float
) -> torch.Tensor:
    rows, columns = (torch.arange(side, dtype=points.dtype) for side in size)
    maps = []
    for kind in points:
        best = torch.full(size, float(limit_px), dtype=points.dtype)
        for y, x in kind:
            squared = (rows - y).square()[:, None] + (columns - x).square()[None, :]
            best = torch.minimum(best, squared.sqrt())
        maps.append(best)
    bumps = [(best.square() / (-2 * sigma_px**2)).exp() for best in maps]
    return torch.stack([*bumps, *(best / limit_px for best in maps)])


def hypercolumn(
    levels: Sequence[torch.Tensor],
    size: tuple[int, int],
    *,
    image: torch.Tensor | None = None,
    image_weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    wide = [
        F.interpolate(level[None], size, mode="bilinear", align_corners=False)[0]
        for level in levels
    ]
    total = functools.reduce(torch.add, wide)
    if image is not None and image_weight is not None:
        total = total + torch.einsum("ci,ihw->chw", image_weight, image)
    if bias is not None:
        total = total + bias[:, None, None]
    return total


def add_guidance(
    base: torch.Tensor,
    guidance: torch.Tensor,
    weight: torch.Tensor,
    *,
    slope: float = 0.2,
) -> torch.Tensor:
    return F.leaky_relu(base + torch.einsum("cg,ghw->chw", weight, guidance), slope)


def jaccard(
    masks: torch.Tensor,
    target: torch.Tensor,
    positive: torch.Tensor,
    negative: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    valid = (target != IGNORE).to(masks.dtype)
    truth = ((target != 0) & (target != IGNORE)).to(masks.dtype)
    counted = masks * valid
    intersection = (counted * truth).sum((1, 2))
    union = (counted + truth - counted * truth).sum((1, 2))
    empty = union == 0
    loss = torch.where(empty, 0.0, 1 - intersection / torch.where(empty, 1.0, union))
    p, n = positive.long(), negative.long()
    penalty = (1 - masks[:, p[:, 0], p[:, 1]]).sum(1) + masks[:, n[:, 0], n[:, 1]].sum(1)
    return loss, penalty
