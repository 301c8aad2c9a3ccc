"""The loss of continuous adaptation (CA eq. 1 to 4)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

TINY = 1e-6  # of a pixel: keeps the Jaccard distance of two empty masks defined


def corrected_logits(logits: Tensor, corrections: Tensor) -> Tensor:
    """The logit at every corrected point, bilinear between cells, as masks are composed.

    Args:
        logits: [H, W].
        corrections: [N, 3], rows (y, x, label) in cells of `logits`; points outside take the
            nearest cell's value.

    Returns:
        [N].
    """
    height, width = logits.shape
    y = corrections[:, 0].clamp(0, height - 1)
    x = corrections[:, 1].clamp(0, width - 1)
    top, left = y.floor().long(), x.floor().long()
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    down, along = y - top, x - left
    flat = logits.flatten()
    upper = flat[top * width + left] * (1 - along) + flat[top * width + right] * along
    lower = flat[bottom * width + left] * (1 - along) + flat[bottom * width + right] * along
    return upper * (1 - down) + lower * down


def correction_loss(logits: Tensor, corrections: Tensor) -> Tensor:
    """GCE(x, c): mean cross-entropy over the corrected pixels only (CA eq. 2); 0 without any."""
    if len(corrections) == 0:
        return logits.new_zeros(())
    values = corrected_logits(logits, corrections)
    return F.binary_cross_entropy_with_logits(values, corrections[:, 2])


def mask_loss(logits: Tensor, mask: Tensor, kind: str = "cross-entropy") -> Tensor:
    """The distance of a prediction to a mask [H, W] in [0, 1].

    Args:
        logits: [H, W].
        mask: of the same size.
        kind: "cross-entropy", GCE(x, p), the mean over all pixels (CA eq. 3); or "jaccard", the
            relaxed Jaccard distance (LD eq. 3), 0 for two empty masks.
    """
    if kind == "cross-entropy":
        return F.binary_cross_entropy_with_logits(logits, mask)
    found = torch.sigmoid(logits)
    common, either = torch.minimum(found, mask).sum(), torch.maximum(found, mask).sum()
    return 1 - (common + TINY) / (either + TINY)


def drift(
    weights: Mapping[str, Tensor],
    initial: Mapping[str, Tensor],
    importance: Mapping[str, Tensor],
) -> Tensor:
    """omega^T (theta - theta*)^2 (CA eq. 4)."""
    terms = [
        torch.sum(importance[name] * (weights[name] - initial[name]).square())
        for name in weights
    ]
    return torch.stack(terms).sum()


def adaptation_loss(
    logits: Tensor,
    corrections: Tensor,
    mask: Tensor | None,
    distance: Tensor | float,
    *,
    correction_weight: float,
    importance_weight: float,
    mask_loss_kind: str = "cross-entropy",
) -> Tensor:
    """lambda GCE(x, c) + (1 - lambda) GCE(x, p) + gamma omega^T (theta - theta*)^2, CA eq. 4.

    Args:
        logits: [H, W], of a mask that learns.
        corrections: as `correction_loss`.
        mask: p, as `mask_loss`; None where there was no mask before (its term is then 0).
        distance: what `drift` gives.
        correction_weight: lambda.
        importance_weight: gamma.
        mask_loss_kind: of `mask_loss`.
    """
    loss = correction_weight * correction_loss(logits, corrections)
    if mask is not None and correction_weight < 1:
        loss = loss + (1 - correction_weight) * mask_loss(logits, mask, mask_loss_kind)
    return loss + importance_weight * distance
