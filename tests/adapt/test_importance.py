"""Memory-Aware Synapses against finite differences, and the file beside the bundle."""

import json
import os
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from adapt.conftest import write_adaptable
from trtseg import bundle as bundles
from trtseg.adapt import Learner
from trtseg.adapt.config import AdaptConfig
from trtseg.adapt.importance import (
    chosen_config,
    importance_path,
    load_importance,
    memory_aware_synapses,
    read_importance,
    save_importance,
)
from trtseg.adapt.latent import Tail
from trtseg.errors import BundleError
from trtseg.nn.layers.context import ContextNetwork
from trtseg.runtime.segmenter import Segmenter


def test_importance_is_the_mean_absolute_gradient_of_the_squared_norm():
    torch.manual_seed(0)
    network = Tail(ContextNetwork(2, (1, 2), True, 2).double(), 2)
    weights = {name: value.detach() for name, value in network.named_parameters()}
    inputs = [torch.randn(1, 2, 5, 4, dtype=torch.float64) for _ in range(3)]

    def output(x):
        return lambda w: torch.sigmoid(torch.func.functional_call(network, dict(w), (x,)))

    found = memory_aware_synapses([output(x) for x in inputs], weights)
    epsilon = 1e-6
    for name, value in weights.items():
        for index in np.ndindex(*value.shape):
            gradients = []
            for x in inputs:
                norms = []
                for sign in (1, -1):
                    moved = {n: v.clone() for n, v in weights.items()}
                    moved[name][index] += sign * epsilon
                    norms.append(float(output(x)(moved).square().sum()))
                gradients.append(abs(norms[0] - norms[1]) / (2 * epsilon))
            assert float(found[name][index]) == pytest.approx(
                np.mean(gradients), rel=1e-6, abs=1e-7
            )


def test_without_inputs_there_is_no_importance():
    with pytest.raises(ValueError, match="at least one"):
        memory_aware_synapses([], {"a": torch.zeros(1)})


def test_the_file_lies_beside_the_bundle_and_comes_back(tmp_path):
    model = bundles.read(write_adaptable(tmp_path / "m.trtseg"))
    path = importance_path(model)
    assert path == tmp_path / "m.importance.safetensors"
    values = {"a": torch.tensor([0.5, 2.0])}
    save_importance(path, values, model.fingerprint, {"dataset": "d"})
    assert torch.equal(load_importance(model, ["a"])["a"], values["a"])
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    with pytest.raises(BundleError, match="b is missing"):
        load_importance(model, ["b"])


def test_a_missing_file_says_how_to_make_it(tmp_path):
    segmenter = Segmenter.load(write_adaptable(tmp_path / "m"), threads=1)
    with pytest.raises(BundleError, match="trtseg importance"):
        Learner(segmenter)


def test_importance_of_another_model_is_refused(tmp_path):
    model = bundles.read(write_adaptable(tmp_path / "m"))
    other = bundles.read(write_adaptable(tmp_path / "n", half_storage=True))
    save_importance(importance_path(model), {"a": torch.ones(1)}, other.fingerprint, {})
    with pytest.raises(BundleError, match="another model"):
        load_importance(model, ["a"])


def test_values_that_are_not_finite_are_neither_written_nor_read(tmp_path):
    path = tmp_path / "m.importance.safetensors"
    with pytest.raises(ValueError, match="expected finite values, got others in a"):
        save_importance(path, {"a": torch.tensor([1.0, np.nan])}, "model", {})
    assert not path.exists()
    save_importance(path, {"a": torch.ones(2)}, "model", {})
    content = path.read_bytes()
    path.write_bytes(content[:-2] + b"\xc0\x7f")  # bfloat16 NaN
    with pytest.raises(BundleError, match="a: expected finite values"):
        read_importance(path, "model")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": {"steps": 10**9}}, r"image.*steps: expected 0 to 1000, got 1000000000"),
        ({"image": {"steps": 2.5}}, r"image\.steps: expected a whole number, got 2\.5"),
        ({"image": {"steps": "3"}}, r"image\.steps: expected a whole number, got '3'"),
        ({"image": {"learning_rate": 10**400}}, r"image\.learning_rate: expected a finite number"),
        ({"layers": 1.5}, "layers: expected a whole number"),
        ({"layers": True}, "layers: expected a whole number"),
        ({"seed": -1}, "seed: expected at least 0"),
        ({"image": 5}, "image: expected an object, got 5"),
        ({"evil": 1}, "unknown evil"),
        ({"bf16": "x"}, "bf16: expected true or false"),
        ("[" * 100_000, "config|recursion|JSON|depth"),
        ("[1]", "expected an object"),
    ],
)
def test_a_hostile_configuration_is_refused(tmp_path, change, message):
    model = bundles.read(write_adaptable(tmp_path / "m"))
    text = change
    if isinstance(change, dict):
        config = asdict(AdaptConfig())
        for name, value in change.items():
            nested = isinstance(value, dict)
            config[name] = {**config[name], **value} if nested else value
        text = json.dumps(config)
    save_importance(
        importance_path(model), {"a": torch.ones(1)}, model.fingerprint, {"config": text}
    )
    with pytest.raises(BundleError, match=message) as caught:
        chosen_config(model)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.tensor([1.0, -1.0]), "expected values of at least 0"),
        (torch.tensor([1.0, float("inf")]), "expected finite values"),
        (torch.tensor([1, 2]), "expected finite values"),
    ],
)
def test_hostile_values_are_refused(tmp_path, values, message):
    save_file({"a": values}, tmp_path / "x", {"format": "1", "model": "m"})
    with pytest.raises(BundleError, match=f"a: {message}"):
        read_importance(tmp_path / "x", "m")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BundleError, match="not a plain file"):
        read_importance(tmp_path / "pipe", "m")


def test_a_damaged_file_is_refused(tmp_path):
    model = bundles.read(write_adaptable(tmp_path / "m"))
    importance_path(model).write_bytes(b"no safetensors")
    with pytest.raises(BundleError, match="cannot be read"):
        load_importance(model, ["a"])
