"""The native Jaccard loss and click penalty, differentiable: `trtseg.ops.jaccard` for autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trtseg import ops


class _Jaccard(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, masks: Tensor, target: Tensor, positive: Tensor, negative: Tensor
    ) -> tuple[Tensor, Tensor]:
        loss, penalty, sums = ops.jaccard(masks, target, positive, negative)
        ctx.save_for_backward(target, positive, negative, sums)
        ctx.like = masks.shape, masks.dtype
        return loss, penalty

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, loss_weight: Tensor, penalty_weight: Tensor
    ) -> tuple[Tensor | None, ...]:
        target, positive, negative, sums = ctx.saved_tensors
        shape, dtype = ctx.like
        grad = torch.empty(shape, dtype=dtype, device=target.device)
        weights = loss_weight.contiguous(), penalty_weight.contiguous()
        ops.jaccard_gradient(target, positive, negative, sums, *weights, grad)
        return grad, None, None, None


def jaccard(
    masks: Tensor, target: Tensor, positive: Tensor, negative: Tensor
) -> tuple[Tensor, Tensor]:
    """(loss, penalty) of `trtseg.ops.jaccard`, differentiable in `masks`.

    Tensors in another memory order are copied first.
    """
    return _Jaccard.apply(masks.contiguous(), target.contiguous(), positive, negative)
