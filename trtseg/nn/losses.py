"""The losses of latent diversity, LD equations 2 to 7, and those of its ablations.

`mask_losses` runs on the native kernels; `jaccard_losses` and `click_penalties` compose the same
from torch's own functions, for devices without kernels, for float64 and as their reference.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from trtseg.nn.jaccard import jaccard

VOID = 255
# below this a probability's logarithm is cut, as torch's binary_cross_entropy does at -100
_EPSILON = 1e-6
# side of the square within which a pixel near the boundary meets both sides of it
EDGE_PX = 5


def mask_losses(
    masks: Tensor, target: Tensor, clicks: Sequence[np.ndarray], stride: float
) -> tuple[Tensor, Tensor]:
    """Jaccard loss (LD eq. 3) and click penalty (LD eq. 4) of every mask, one kernel per image.

    Args:
        masks: float32 [B, M, H, W] in [0, 1], on the CPU or a CUDA device.
        target: uint8 [B, H, W]: 1 object, 0 background, 255 void.
        clicks: B of float32 [P, 3], rows (y, x, label) in working-image pixels; P may be 0.
        stride: working-image pixels per cell of `masks`.

    Returns:
        ([B, M], [B, M]), as `jaccard_losses` and `click_penalties` give them.
    """
    results = []
    # unbinding costs one copy of the gradient, indexing would cost one per image
    for one, truth, rows in zip(masks.unbind(0), target.unbind(0), clicks, strict=True):
        cells = click_cells(rows, stride, (masks.shape[2], masks.shape[3]))
        positive, negative = (
            torch.from_numpy(cells[rows[:, 2] == label]).to(masks.device) for label in (1, 0)
        )
        results.append(jaccard(one, truth, positive, negative))
    losses, penalties = zip(*results, strict=True)
    return torch.stack(losses), torch.stack(penalties)


def click_cells(clicks: np.ndarray, stride: float, size: tuple[int, int]) -> np.ndarray:
    """int32 [P, 2], the cells (y, x) of a map of `size` in which clicks lie."""
    cells = np.floor((clicks[:, :2] + 0.5) / stride).astype(np.int32)
    return cells.clip(0, np.array(size, np.int32) - 1)


def jaccard_losses(masks: Tensor, target: Tensor) -> Tensor:
    """Relaxed Jaccard loss of every mask, LD eq. 3: 1 - sum min(A, B) / sum max(A, B).

    Args:
        masks: float32 [B, M, H, W] in [0, 1].
        target: uint8 [B, H, W]: 1 object, 0 background, 255 void (counts nowhere).

    Returns:
        [B, M]; 0 where mask and target are both empty.
    """
    valid = (target != VOID).to(masks.dtype).flatten(1)
    flat = masks.flatten(2)
    inside = (target == 1).to(masks.dtype).flatten(1)
    # A is 0 or 1, so min(A, B) = A B and max(A, B) = A + B - A B
    intersection = torch.einsum("bmn,bn->bm", flat, inside)
    union = inside.sum(1)[:, None] + torch.einsum("bmn,bn->bm", flat, valid) - intersection
    empty = union == 0
    return torch.where(empty, 0.0, 1 - intersection / union.masked_fill(empty, 1.0))


def cross_entropy_losses(
    masks: Tensor, target: Tensor, *, focus: float = 0.0, edge_weight: float = 0.0
) -> Tensor:
    """Mean binary cross-entropy over the pixels that are not void; shapes as above.

    Args:
        masks, target: as above.
        focus: gamma of the normalised focal loss (Sofiiuk et al. 2019): a pixel counts
            (1 - p)^gamma, p its probability of being right, and all pixels together as many as
            they are; 0 is plain cross-entropy.
        edge_weight: pixels at the object's boundary count so much more.
    """
    valid = (target != VOID).to(masks.dtype)[:, None]
    inside = (target == 1).to(masks.dtype)[:, None]
    probability = (inside * masks + (1 - inside) * (1 - masks)).clamp_min(_EPSILON)
    weight = valid
    if edge_weight:
        grown = F.max_pool2d(inside, EDGE_PX, 1, EDGE_PX // 2)
        shrunk = -F.max_pool2d(-inside, EDGE_PX, 1, EDGE_PX // 2)
        weight = weight * (1 + edge_weight * (grown - shrunk))
    weight = weight / weight.sum((2, 3), keepdim=True).clamp_min(1)
    if focus:
        hard = (1 - probability.detach()).pow(focus) * weight
        weight = hard / hard.sum((2, 3), keepdim=True).clamp_min(_EPSILON)
    return -(probability.log() * weight).sum((2, 3))


def l1_losses(masks: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference over the pixels that are not void; shapes as above."""
    valid = (target != VOID).to(masks.dtype)[:, None]
    inside = (target == 1).to(masks.dtype)[:, None]
    return ((masks - inside).abs() * valid).sum((2, 3)) / valid.sum((2, 3)).clamp_min(1)


def click_penalties(masks: Tensor, clicks: Tensor, stride: float) -> Tensor:
    """Soft constraint of the clicks, LD eq. 4: |S_p (S_p - B)|_1 + |S_n (S_n - (1 - B))|_1.

    Args:
        masks: [B, M, H, W] in [0, 1].
        clicks: [B, P, 3], rows (y, x, label) in working-image pixels.
        stride: working-image pixels per cell of `masks`.

    Returns:
        [B, M]: sum over positive clicks of 1 - B there, over negative clicks of B there.
    """
    height, width = masks.shape[2:]
    cell = torch.floor((clicks[..., :2] + 0.5) / stride).long()
    index = cell[..., 0].clamp(0, height - 1) * width + cell[..., 1].clamp(0, width - 1)
    values = masks.flatten(2).gather(2, index[:, None].expand(-1, masks.shape[1], -1))
    label = clicks[:, None, :, 2]
    wrong = torch.where(label == 1, 1 - values, values)
    return (wrong * (label >= 0)).sum(2)


def hindsight(losses: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of the best mask only, LD eq. 5: (min over m [B], its index [B])."""
    best = losses.min(dim=1)
    return best.values, best.indices


def balanced_hindsight(losses: Tensor) -> tuple[Tensor, Tensor]:
    """LD eq. 5 where every mask has its share: (loss of each sample's mask [B], its index [B]).

    Left to itself the minimum is a race that one mask wins: the best mask is trained on every
    sample, becomes better, and the others are never trained. Here samples go to masks by the
    assignment of least total loss in which no mask gets more than ceil(B / M) of them.

    Args:
        losses: [B, M].
    """
    samples, masks = losses.shape
    share = -(-samples // masks)
    costs = np.tile(losses.detach().double().cpu().numpy(), (1, share))
    _, places = linear_sum_assignment(costs)
    index = torch.from_numpy(places % masks).to(losses.device)
    return losses.gather(1, index[:, None])[:, 0], index


def ranked_diversity(jaccard: Tensor, weight: float) -> Tensor:
    """LD eq. 7: sum_m lambda_m jaccard_m with lambda_m = weight * 2^(M - m), m from 1; [B]."""
    count = jaccard.shape[1]
    exponents = torch.arange(count - 1, -1, -1, device=jaccard.device, dtype=jaccard.dtype)
    return (jaccard * (weight * 2.0**exponents)).sum(1)


def selection_loss(scores: Tensor, losses: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of g against the best mask, LD eq. 6; [B].

    Args:
        scores: logits [B, M].
        losses: [B, M], what decides which mask is best.
        temperature: 0 is the paper's single best mask; above, the target is the softmax of
            -losses / temperature, so that near-equal masks share it.
    """
    log_probability = scores.log_softmax(1)
    if temperature == 0:
        return -log_probability.gather(1, losses.argmin(1, keepdim=True))[:, 0]
    return -(log_probability * (-losses / temperature).softmax(1)).sum(1)
