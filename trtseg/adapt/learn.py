"""Learning from one image's corrections: a few gradient steps that can always be refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import torch
from torch import Tensor

from trtseg.adapt.config import Learning
from trtseg.adapt.loss import adaptation_loss, drift
from trtseg.adapt.weights import AdaptedWeights, Report

_log = logging.getLogger("trtseg.adapt")

Forward = Callable[[Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True, eq=False)
class Example:
    """A training example made of corrections.

    Attributes:
        forward: logits [K, H, W] of the masks that learn under given weights; all that no adapted
            weight changes has been computed already.
        corrections: float32 [N, 3], rows (y, x, label) in cells of the logits.
        mask: p in CA eq. 3, float32 [H, W] in [0, 1]; None where there was none before.
    """

    forward: Forward
    corrections: Tensor
    mask: Tensor | None


def learn(
    start: AdaptedWeights,
    examples: Sequence[Example],
    initial: Mapping[str, Tensor],
    importance: Mapping[str, Tensor],
    learning: Learning,
) -> AdaptedWeights:
    """Weights after `learning.steps` steps; `start` is left as it is.

    A step whose loss or gradient is not finite is refused and reported, and what was reached
    before it is returned. An exception, a keyboard interrupt included, passes through; the
    caller still holds `start`.

    Args:
        start: weights and optimiser to begin with.
        examples: what to learn; steps take them in turn.
        initial: theta*, the weights that importance pulls back to.
        importance: omega, of the same names.
        learning: the hyperparameters.
    """
    begin = perf_counter()
    state, rejected = start, False
    losses: list[float] = []
    for step in range(learning.steps):
        elapsed_ms = (perf_counter() - begin) * 1e3
        mean_ms = elapsed_ms / max(len(losses), 1)
        if losses and learning.budget_ms is not None and elapsed_ms + mean_ms > learning.budget_ms:
            break
        example = examples[step % len(examples)]
        loss, gradients = _gradients(state, example, initial, importance, learning)
        # one value to wait for, whatever the number of layers
        norms = torch._foreach_norm(list(gradients.values()))
        if not bool(torch.isfinite(torch.stack([loss, *norms]).sum())):
            rejected = True
            _log.warning(
                "adaptation step %d refused: loss %s or its gradient is not finite; going on "
                "with the last good weights", len(losses) + 1, float(loss),
            )
            break
        losses.append(float(loss))
        rate = learning.learning_rate
        if learning.rate_scale == "loss":
            rate *= min(losses[-1], 1.0)
        if rate > 0:
            state = state.stepped(gradients, rate)
    elapsed_ms = (perf_counter() - begin) * 1e3
    return replace(state, report=Report(len(losses), tuple(losses), rejected, elapsed_ms))


def _gradients(
    state: AdaptedWeights,
    example: Example,
    initial: Mapping[str, Tensor],
    importance: Mapping[str, Tensor],
    learning: Learning,
) -> tuple[Tensor, dict[str, Tensor]]:
    with torch.enable_grad():
        weights = {name: v.detach().requires_grad_() for name, v in state.values.items()}
        distance = drift(weights, initial, importance) if learning.importance_weight else 0.0
        each = [
            adaptation_loss(
                logits,
                example.corrections,
                example.mask,
                distance,
                correction_weight=learning.correction_weight,
                importance_weight=learning.importance_weight,
                mask_loss_kind=learning.mask_loss,
            )
            for logits in example.forward(weights).float()
        ]
        loss = torch.stack(each).mean()
        # weights of other candidates have no gradient at all without the importance term
        found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    gradients = {
        name: torch.zeros_like(state.values[name]) if gradient is None else gradient
        for name, gradient in zip(weights, found, strict=True)
    }
    return loss.detach(), gradients
