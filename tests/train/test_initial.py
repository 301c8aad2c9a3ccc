"""Where a run's weights come from, when they are ours."""

import dataclasses
import json

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from trtseg import bundle as bundles
from trtseg.errors import CheckpointError
from trtseg.nn.bundle_weights import bundle_weights, load_network
from trtseg.nn.checkpoint import save_checkpoint
from trtseg.nn.config import NetworkConfig
from trtseg.nn.network import LatentDiversity, normalisation
from trtseg.train.config import read_config
from trtseg.train.corrections import CorrectionsTask, read_corrections_config
from trtseg.train.initial import balance_levels, initialise


def test_bundle_gives_the_network_it_was_made_of():
    bundle = bundles.read("lite")
    config, state = bundle_weights(bundle)
    network = LatentDiversity(config)
    initialise(network, "bundle:lite")
    loaded = load_network(bundle).state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name]), name
        assert torch.equal(value, loaded[name]), name
    graph = onnx.load_from_string(bundle.graph("segment"))
    head = next(i for i in graph.graph.initializer if i.name.endswith("head.weight"))
    np.testing.assert_array_equal(network.state_dict()[head.name], numpy_helper.to_array(head))


@pytest.mark.parametrize("candidates", [1, 3])
def test_fewer_candidates_are_the_first_ones(candidates):
    config, state = bundle_weights(bundles.read("lite"))
    torch.manual_seed(3)
    network = LatentDiversity(dataclasses.replace(config, candidates=candidates))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    initialise(network, "bundle:lite")
    for name, value in network.state_dict().items():
        if name.startswith("select."):
            assert torch.equal(value, before[name]), name
        elif name.startswith(("segment.head.", "segment.coarse_head.")):
            assert torch.equal(value, state[name][:candidates]), name
        else:
            assert torch.equal(value, state[name]), name


def test_backbone_alone_leaves_the_rest_at_random():
    config, state = bundle_weights(bundles.read("lite"))
    torch.manual_seed(3)
    network = LatentDiversity(dataclasses.replace(config, candidates=1, width=8))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    initialise(network, "bundle:lite", "backbone")
    for name, value in network.state_dict().items():
        taken = name.startswith("encoder.backbone.")
        assert torch.equal(value, (state if taken else before)[name]), name


def test_early_fusion_network_takes_that_backbone_too(tmp_path):
    _, state = bundle_weights(bundles.read("lite"))
    values = {
        "data": {"path": str(tmp_path), "layout": "folder"},
        "network": {"backbone": "efficientnet_lite2", "encoder_stride": 16, "width": 8},
        "initial_weights": "bundle:lite",
    }
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for name in ("images/a.png", "masks/a.png"):
        cv2.imwrite(str(tmp_path / name), np.ones((8, 8), np.uint8))
    (tmp_path / "c.json").write_text(json.dumps(values))
    task = CorrectionsTask(read_corrections_config(tmp_path / "c.json"))
    backbone = task.network.encoder.backbone
    for name, value in backbone.state_dict().items():
        expected = state[f"encoder.backbone.{name}"]
        assert torch.equal(value[:, :3] if name == "stem.weight" else value, expected), name
    assert not backbone.stem.weight[:, 3:].any(), "the click maps' begin at 0"


def test_more_candidates_than_there_are_do_not_fit():
    config, _ = bundle_weights(bundles.read("lite"))
    network = LatentDiversity(dataclasses.replace(config, candidates=8))
    with pytest.raises(CheckpointError, match="weights do not fit"):
        initialise(network, "bundle:lite")


def test_network_of_another_width_is_refused(tmp_path):
    config, state = bundle_weights(bundles.read("lite"))
    save_checkpoint(
        tmp_path / "c", {f"model.{k}": v for k, v in state.items()}, {"network": config.to_dict()}
    )
    network = LatentDiversity(dataclasses.replace(config, width=config.width + 8))
    with pytest.raises(CheckpointError, match="weights do not fit"):
        initialise(network, str(tmp_path / "c"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("bundle:lite", "bundle:lite"),
        ("bundle:../a/b", "bundle:{folder}/../a/b"),
        ("x", "{folder}/x"),
    ],
)
def test_paths_start_at_the_configuration(given, expected, config, tmp_path):
    values = config().to_dict() | {"initial_weights": given}
    (tmp_path / "c.json").write_text(json.dumps(values))
    folder = tmp_path.resolve()
    assert read_config(tmp_path / "c.json").initial_weights == expected.format(folder=folder)


def test_levels_of_a_new_network_vary_alike():
    torch.manual_seed(0)
    network = LatentDiversity(NetworkConfig(encoder="mobilenet_v2", width=16))
    with torch.no_grad():
        network.encoder.projections[1].weight *= 0.001  # as of a backbone with small features
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    balance_levels(network, image)
    mean, scale = (torch.tensor(v).view(1, 3, 1, 1) for v in normalisation(network.config))
    with torch.no_grad():
        levels = network.encoder((image[None].float() - mean) * scale)
    for level in levels:
        assert float(level.std()) == pytest.approx(5**-0.5, rel=1e-3)
