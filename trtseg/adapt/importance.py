"""Importance of weights by Memory-Aware Synapses, and the file it is kept in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trtseg.adapt.config import AdaptConfig
from trtseg.atomic import read_file, write_atomically
from trtseg.bundle import Bundle
from trtseg.errors import BundleError
from trtseg.parse import build, short

FORMAT = "1"
LARGEST_BYTES = 2**30


def memory_aware_synapses(
    outputs: Iterable[Callable[[Mapping[str, Tensor]], Tensor]], weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """omega: the mean over inputs of |d ||F(x)||^2 / d theta| (Aljundi et al. 2018, eq. 4).

    Args:
        outputs: for each input, the network's output as a function of the weights.
        weights: where the gradient is taken.

    Returns:
        By the names of `weights`, in their dtype.

    Raises:
        ValueError: there was no input.
    """
    total = {name: torch.zeros_like(value) for name, value in weights.items()}
    count = 0
    for output in outputs:
        with torch.enable_grad():
            leaves = {name: v.detach().requires_grad_() for name, v in weights.items()}
            norm = output(leaves).square().sum()
            gradients = torch.autograd.grad(norm, list(leaves.values()))
        for name, gradient in zip(leaves, gradients, strict=True):
            total[name] += gradient.abs()
        count += 1
    if count == 0:
        raise ValueError("outputs: expected at least one input")
    return {name: value / count for name, value in total.items()}


def importance_path(bundle: Bundle) -> Path:
    """The file beside a bundle: `NAME.importance.safetensors`."""
    stem = bundle.path.name.removesuffix(".trtseg")
    return bundle.path.resolve().with_name(f"{stem}.importance.safetensors")


def checkpoint_importance_path(checkpoint: Path) -> Path:
    """The file beside a checkpoint folder: `NAME.importance.safetensors`."""
    return checkpoint.resolve().with_name(f"{checkpoint.name}.importance.safetensors")


def save_importance(
    path: Path, importance: Mapping[str, Tensor], model: str, notes: Mapping[str, str]
) -> None:
    """Write importance atomically; bfloat16 on disk, which its use does not notice.

    Args:
        path: where to.
        importance: by name in the state dict.
        model: fingerprint of the bundle, or hash of the checkpoint's tensors.
        notes: provenance, and "config": an `AdaptConfig` in JSON that was chosen for the model.

    Raises:
        ValueError: a value is not finite; nothing is written.
    """
    for name, value in importance.items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"importance: expected finite values, got others in {name}")
    tensors = {
        name: value.to(torch.bfloat16).cpu().contiguous() for name, value in importance.items()
    }
    write_atomically(path, save(tensors, {**notes, "format": FORMAT, "model": model}), 0o666)


def read_importance(path: Path, model: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Importance, float32 by name, and its notes.

    Raises:
        BundleError: there is no such file, it is damaged, of another model, or holds what no
            importance can be.
    """
    try:
        data = read_file(path, LARGEST_BYTES)
        tensors = load(data)
    except FileNotFoundError:
        raise BundleError(
            f"{path}: no importance weights beside the model; `trtseg importance` computes them"
        ) from None
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else short(error)
        raise BundleError(f"{path}: cannot be read: {reason}") from error
    notes = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    if notes.get("format") != FORMAT or notes.get("model") != model:
        raise BundleError(f"{path}: belongs to another model")
    for name, tensor in tensors.items():
        if not (tensor.is_floating_point() and bool(torch.isfinite(tensor).all())):
            raise BundleError(f"{path}: {short(name)}: expected finite values")
        if bool((tensor < 0).any()):
            raise BundleError(f"{path}: {short(name)}: expected values of at least 0")
    return {name: tensor.float() for name, tensor in tensors.items()}, notes


def load_importance(bundle: Bundle, names: Iterable[str]) -> dict[str, Tensor]:
    """The importance of some weights of a bundle, float32.

    Raises:
        BundleError: as `read_importance`, or a name is missing.
    """
    path = importance_path(bundle)
    tensors, _ = read_importance(path, bundle.fingerprint)
    missing = sorted(set(names) - set(tensors))
    if missing:
        raise BundleError(f"{path}: {missing[0]} is missing")
    return {name: tensors[name] for name in names}


def chosen_config(bundle: Bundle) -> AdaptConfig:
    """The hyperparameters chosen for a bundle's model; the paper's where there are none.

    Raises:
        BundleError: they cannot be read.
    """
    path = importance_path(bundle)
    if not path.is_file():
        return AdaptConfig()
    return noted_config(path, read_importance(path, bundle.fingerprint)[1])


def noted_config(path: Path, notes: Mapping[str, str]) -> AdaptConfig:
    """The hyperparameters among the notes of an importance file; the paper's without any.

    Raises:
        BundleError: they cannot be read.
    """
    try:
        return build(AdaptConfig, json.loads(notes.get("config", "{}")), "config")
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: {short(error, 200)}") from error
