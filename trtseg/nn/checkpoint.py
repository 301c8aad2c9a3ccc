"""Training checkpoints: tensors in safetensors, everything else in JSON, swapped in atomically."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from trtseg.errors import CheckpointError
from trtseg.nn.config import NetworkConfig
from trtseg.nn.network import LatentDiversity

FORMAT = 1


def save_checkpoint(path: str | Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write a checkpoint folder; an interruption leaves the old one or the new one whole.

    Args:
        path: the folder.
        tensors: by name; weights are under "model.".
        state: JSON values; must hold "network", a `NetworkConfig` as a dictionary.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        fresh.chmod(0o755)
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, fresh / "tensors.safetensors")
        (fresh / "tensors.safetensors").chmod(0o644)
        digest = hashlib.sha256((fresh / "tensors.safetensors").read_bytes()).hexdigest()
        record = {"format": FORMAT, "tensors_sha256": digest, **state}
        (fresh / "state.json").write_text(json.dumps(record, indent=1))
        if path.exists():
            # a folder cannot be replaced in one step: keep the old one until the new is in place
            old = path.with_name(f".{path.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            path.replace(old)
            fresh.replace(path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            fresh.replace(path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of a checkpoint folder.

    Raises:
        CheckpointError: it is missing, truncated, altered or of another format.
    """
    path = Path(path)
    place = path.resolve()
    old = place.with_name(f".{place.name}.old")
    if not path.exists() and old.exists():
        # the swap was interrupted between its two steps
        old.replace(path)
    content = _read(path / "tensors.safetensors")
    try:
        state = json.loads(_read(path / "state.json"))
    except ValueError as error:
        raise CheckpointError(f"{path / 'state.json'}: not JSON: {error}") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        got = state.get("format") if isinstance(state, dict) else state
        raise CheckpointError(f"{path / 'state.json'}: expected format {FORMAT}, got {got!r}")
    if hashlib.sha256(content).hexdigest() != state.get("tensors_sha256"):
        raise CheckpointError(
            f"{path / 'tensors.safetensors'}: damaged: its SHA-256 is not that in state.json"
        )
    try:
        return load(content), state
    except SafetensorError as error:
        raise CheckpointError(
            f"{path / 'tensors.safetensors'}: not a safetensors file: {error}"
        ) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None


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


def assign(network: LatentDiversity, state: dict[str, Tensor], path: str | Path) -> None:
    """`load_state_dict`, with an error that names the checkpoint.

    Raises:
        CheckpointError: a name is missing or unknown, or a shape differs.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: weights do not fit the network: {reason}") from None
