"""Training checkpoints: tensors in safetensors, everything else in JSON, saved as one.

`state.json` is the head of the folder (see `trtseg.atomic`): it holds the SHA-256 of
`tensors.safetensors`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from trtseg.atomic import read_folder, write_folder
from trtseg.errors import CheckpointError
from trtseg.nn.config import NetworkConfig
from trtseg.nn.network import LatentDiversity
from trtseg.parse import quoted, short

FORMAT = 1
STATE = "state.json"
TENSORS = "tensors.safetensors"
LARGEST_BYTES = 8 * 2**30


def save_checkpoint(
    path: str | Path,
    tensors: dict[str, Tensor],
    state: dict[str, Any],
    *,
    accept: Callable[[dict[str, Any] | None], None] = lambda state: None,
) -> None:
    """Write a checkpoint folder; an interruption leaves the old one or the new one whole.

    Args:
        path: the folder.
        tensors: by name; weights are under "model.".
        state: JSON values; must hold "network", a `NetworkConfig` as a dictionary.
        accept: called with the state that is there, None without one, while no other writer can
            replace it; what it raises refuses the save.

    Raises:
        CheckpointError: it cannot be written; the old one is still there.
    """
    path = Path(path)
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    digest = hashlib.sha256(content).hexdigest()
    text = json.dumps({"format": FORMAT, "tensors_sha256": digest, **state}, indent=1).encode()
    try:
        write_folder(
            path, STATE, {TENSORS: content, STATE: text}, _listed,
            lambda head: accept(None if head is None else _parsed(head, path / STATE)),
        )  # fmt: skip
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of a checkpoint folder.

    Raises:
        CheckpointError: it is missing, truncated, altered or of another format.
    """
    path = Path(path)
    try:
        text, found = read_folder(
            path, STATE, lambda head: _listed(head, path / STATE), LARGEST_BYTES
        )
    except OSError as error:
        file = error.filename or path
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from None
    if TENSORS not in found:
        if not (path / TENSORS).exists():
            raise CheckpointError(f"{path / TENSORS}: cannot be read: it is missing")
        raise CheckpointError(
            f"{path / TENSORS}: damaged: its SHA-256 is not that in {STATE}"
        )
    try:
        return load(found[TENSORS]), _parsed(text, path / STATE)
    except SafetensorError as error:
        raise CheckpointError(
            f"{path / TENSORS}: not a safetensors file: {short(error)}"
        ) from None


def _listed(head: bytes, place: Path | None = None) -> dict[str, str]:
    try:
        return {TENSORS: _parsed(head, place or Path(STATE))["tensors_sha256"]}
    except CheckpointError:
        if place is not None:
            raise
        return {}  # damaged: it lists nothing that a new one would have to keep


def _parsed(text: bytes, place: Path) -> dict[str, Any]:
    try:
        state = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{place}: not JSON: {short(error)}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        got = state.get("format") if isinstance(state, dict) else state
        raise CheckpointError(f"{place}: expected format {FORMAT}, got {quoted(got)}")
    if not isinstance(state.get("tensors_sha256"), str):
        raise CheckpointError(f"{place}: no tensors_sha256 in it")
    return state


def weights(path: str | Path) -> tuple[NetworkConfig, dict[str, Tensor]]:
    """Configuration and state dict of a checkpoint, with averaged weights where kept.

    Raises:
        CheckpointError: as `read_checkpoint`, or the configuration is not one of ours.
    """
    tensors, state = read_checkpoint(path)
    try:
        config = NetworkConfig.from_dict(state["network"])
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{Path(path) / 'state.json'}: bad network: {error}") from None
    prefix = "ema." if any(name.startswith("ema.") for name in tensors) else "model."
    return config, {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def load_network(path: str | Path) -> LatentDiversity:
    """The network of a checkpoint in evaluation mode, with averaged weights where kept.

    Raises:
        CheckpointError: as `weights`, or weights and configuration do not fit.
    """
    config, state = weights(path)
    network = LatentDiversity(config)
    assign(network, state, path)
    return network.eval()


def assign(network: nn.Module, state: dict[str, Tensor], path: str | Path) -> None:
    """`load_state_dict`, with an error that names the checkpoint.

    Raises:
        CheckpointError: a name is missing or unknown, or a shape differs.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = short(" ".join(str(error).split()), 400)
        raise CheckpointError(f"{path}: weights do not fit the network: {reason}") from None
