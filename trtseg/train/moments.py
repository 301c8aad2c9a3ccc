"""An optimiser's moments as tensors by the names of the parameters, for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from trtseg.errors import CheckpointError

ADAM = ("exp_avg", "exp_avg_sq", "step")
SGD = ("momentum_buffer",)


def moment_tensors(optimiser: torch.optim.Optimizer, names: Sequence[str]) -> dict[str, Tensor]:
    """"optimiser.MOMENT.NAME" of every moment that there is.

    Args:
        optimiser: holds them.
        names: of its parameters, in its order.
    """
    moments = optimiser.state_dict()["state"]
    return {
        f"optimiser.{moment}.{name}": value
        for index, name in enumerate(names)
        for moment, value in moments.get(index, {}).items()
        if value is not None
    }


def load_moments(
    optimiser: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    kinds: Sequence[str],
    tensors: Mapping[str, Tensor],
    path: Path,
) -> list[str]:
    """Give an optimiser the moments that `moment_tensors` gave of it.

    Args:
        optimiser: receives them; that of a parameter whose moments are not all there begins anew.
        parameters: by name, in the optimiser's order.
        kinds: `ADAM` or `SGD`.
        tensors: of the checkpoint.
        path: of the checkpoint, for the error.

    Returns:
        The names of the parameters that begin anew.

    Raises:
        CheckpointError: a moment has not its parameter's shape.
    """
    state, missing = optimiser.state_dict(), []
    for index, (name, parameter) in enumerate(parameters.items()):
        found = {
            kind: tensors[f"optimiser.{kind}.{name}"]
            for kind in kinds
            if f"optimiser.{kind}.{name}" in tensors
        }
        if len(found) < len(kinds):
            missing.append(name)
            continue
        for kind, value in found.items():
            if kind == "step":
                continue
            if value.shape != parameter.shape:
                raise CheckpointError(
                    f"{path}: {kind} of {name}: expected {list(parameter.shape)}, "
                    f"got {list(value.shape)}"
                )
            # in the parameter's memory layout, on which the last bit of a sum may depend
            found[kind] = torch.empty_like(parameter).copy_(value)
        state["state"][index] = found
    optimiser.load_state_dict(state)
    return missing
