"""Adapted weights: an immutable value with Adam's memory, so that undo is exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

BETAS = (0.9, 0.999)
EPSILON = 1e-8


@dataclass(frozen=True)
class Report:
    """What a call of `learn` did.

    Attributes:
        steps: steps that count.
        losses: the loss before each of them.
        rejected: a step was refused because its loss or gradient was not finite.
        elapsed_ms: how long it took.
    """

    steps: int = 0
    losses: tuple[float, ...] = ()
    rejected: bool = False
    elapsed_ms: float = 0.0


@dataclass(frozen=True, eq=False)
class AdaptedWeights:
    """Weights of the adapted layers and the optimiser's memory; its tensors are never written.

    Attributes:
        values: float32, by name in the network's state dict.
        first, second: Adam's moments, by the same names; empty before the first step.
        step: Adam's step count.
        report: what led here.
    """

    values: Mapping[str, Tensor]
    first: Mapping[str, Tensor] = field(default_factory=dict)
    second: Mapping[str, Tensor] = field(default_factory=dict)
    step: int = 0
    report: Report = Report()

    def __post_init__(self) -> None:
        for name in ("values", "first", "second"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def restarted(self) -> AdaptedWeights:
        """The same weights with an optimiser that remembers nothing."""
        return AdaptedWeights(self.values)

    def stepped(self, gradients: Mapping[str, Tensor], learning_rate: float) -> AdaptedWeights:
        """One step of Adam (betas 0.9, 0.999), as a new value."""
        step = self.step + 1
        names = list(self.values)
        grads = [gradients[name].float() for name in names]
        zeros = not self.first
        first = [torch.zeros_like(g) if zeros else self.first[n].clone()
                 for n, g in zip(names, grads, strict=True)]
        second = [torch.zeros_like(g) if zeros else self.second[n].clone()
                  for n, g in zip(names, grads, strict=True)]
        torch._foreach_lerp_(first, grads, 1 - BETAS[0])
        torch._foreach_mul_(second, BETAS[1])
        torch._foreach_addcmul_(second, grads, grads, 1 - BETAS[1])
        scale = torch._foreach_sqrt(second)
        torch._foreach_div_(scale, (1 - BETAS[1] ** step) ** 0.5)
        torch._foreach_add_(scale, EPSILON)
        values = [self.values[name].clone() for name in names]
        torch._foreach_addcdiv_(values, first, scale, -learning_rate / (1 - BETAS[0] ** step))
        return AdaptedWeights(
            dict(zip(names, values, strict=True)),
            dict(zip(names, first, strict=True)),
            dict(zip(names, second, strict=True)),
            step,
        )

    def same_values(self, other: Mapping[str, Tensor]) -> bool:
        """Whether the weights equal `other`, bit for bit."""
        return self.values.keys() == other.keys() and all(
            torch.equal(value, other[name]) for name, value in self.values.items()
        )
