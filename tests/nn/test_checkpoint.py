"""Checkpoints: whole or refused, with the file named."""

import json
import os

import pytest
import torch

from trtseg.errors import CheckpointError
from trtseg.nn.checkpoint import load_network, read_checkpoint, save_checkpoint
from trtseg.nn.config import NetworkConfig
from trtseg.nn.network import LatentDiversity

CONFIG = NetworkConfig(
    encoder="none", width=4, dilations=(1,), select_width=4, select_dilations=(1,)
)


def save(path, config=CONFIG, **tensors):
    network = LatentDiversity(config)
    named = {f"model.{name}": value for name, value in network.state_dict().items()}
    save_checkpoint(path, {**named, **tensors}, {"network": config.to_dict(), "step": 3})
    return network


def test_round_trip(tmp_path):
    network = save(tmp_path / "last")
    loaded = load_network(tmp_path / "last")
    assert loaded.config == CONFIG
    assert not loaded.training
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    _, state = read_checkpoint(tmp_path / "last")
    assert state["step"] == 3


def test_averaged_weights_win(tmp_path):
    network = LatentDiversity(CONFIG)
    average = {f"ema.{name}": value + 1 for name, value in network.state_dict().items()}
    save(tmp_path / "last", **average)
    loaded = load_network(tmp_path / "last").state_dict()
    assert torch.equal(loaded["bias"], network.bias.detach() + 1)


def test_overwriting_leaves_nothing_behind(tmp_path):
    save(tmp_path / "last")
    second = save(tmp_path / "last")
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    assert torch.equal(load_network(tmp_path / "last").bias, second.bias)


def test_a_failed_save_keeps_the_old_one(tmp_path):
    network = save(tmp_path / "last")
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path / "last", {"a": torch.zeros(1)}, {"network": object()})
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    assert torch.equal(load_network(tmp_path / "last").bias, network.bias)


def test_a_save_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    network = save(tmp_path / "last")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trtseg.atomic.os.fsync", full)
    with pytest.raises(CheckpointError, match="last: cannot be written: No space left on device"):
        save(tmp_path / "last")
    assert torch.equal(load_network(tmp_path / "last").bias, network.bias)
    assert sorted(path.name for path in (tmp_path / "last").iterdir()) == [
        "state.json", "tensors.safetensors",
    ]  # fmt: skip


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    save(tmp_path / "last")
    for name in ("state.json", "tensors.safetensors"):
        (tmp_path / "last" / name).unlink()
        os.mkfifo(tmp_path / "last" / name)
        with pytest.raises(CheckpointError, match=f"{name}: cannot be read: not a plain file"):
            read_checkpoint(tmp_path / "last")
        (tmp_path / "last" / name).unlink()
        save(tmp_path / "last")


def damage_state(change):
    def apply(folder):
        path = folder / "state.json"
        state = json.loads(path.read_text())
        change(state)
        path.write_text(json.dumps(state))

    return apply


def truncate(folder):
    path = folder / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def flip(folder):
    path = folder / "tensors.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"tensors\.safetensors: damaged"),
        (flip, r"tensors\.safetensors: damaged"),
        (lambda f: (f / "tensors.safetensors").unlink(), r"tensors\.safetensors: cannot be read"),
        (lambda f: (f / "state.json").unlink(), r"state\.json: cannot be read"),
        (lambda f: (f / "state.json").write_text("{"), r"state\.json: not JSON"),
        (lambda f: (f / "state.json").write_text("[" * 100_000), r"state\.json: not JSON"),
        (lambda f: (f / "state.json").write_bytes(b"\xff\xfe"), r"state\.json: not JSON"),
        (damage_state(lambda s: s.update(tensors_sha256=[1])), "no tensors_sha256"),
        (lambda f: (f / "state.json").write_text("[]"), r"state\.json: expected format 1"),
        (damage_state(lambda s: s.update(format=9)), r"state\.json: expected format 1, got 9"),
        (damage_state(lambda s: s["network"].update(width=8)), "weights do not fit"),
        (damage_state(lambda s: s["network"].update(depth=8)), r"state\.json: bad network"),
        (damage_state(lambda s: s.pop("network")), r"state\.json: bad network"),
    ],
)
def test_damage_is_named(tmp_path, damage, message):
    save(tmp_path / "last")
    damage(tmp_path / "last")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_network(tmp_path / "last")
    assert str(tmp_path / "last") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="none"):
        load_network(tmp_path / "none")
