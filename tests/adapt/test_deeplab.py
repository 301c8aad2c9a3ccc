"""CA's initial model: layers as published, five channels, and its two-stage training."""

import json

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from trtseg import bundle as bundles
from trtseg.cli import main
from trtseg.errors import CheckpointError, TrtsegError
from trtseg.nn.bundle_weights import bundle_weights
from trtseg.nn.deeplab import (
    DeepLab,
    DeepLabConfig,
    DilatedMobileNetV2,
    click_disks,
    load_deeplab,
    small_config,
)
from trtseg.nn.mobilenet import MobileNetV2
from trtseg.nn.xception import Xception65
from trtseg.train.corrections import CorrectionsTrainer, read_corrections_config

# output channels, stride, dilation of the three separable convolutions of every unit, at output
# stride 8: (Chen et al. 2018, figure 4; entry flow, 16 times the middle flow, exit flow)
TABLE = [
    ("entry_1", (128, 128, 128), 2, 1, "conv"),
    ("entry_2", (256, 256, 256), 2, 1, "conv"),
    ("entry_3", (728, 728, 728), 1, 1, "conv"),
    *[("middle", (728, 728, 728), 1, 2, "sum")] * 16,
    ("exit_1", (728, 1024, 1024), 1, 2, "conv"),
    ("exit_2", (1536, 1536, 2048), 1, 4, "none"),
]


@pytest.fixture(scope="module")
def paper():
    return DeepLab(DeepLabConfig()).eval()


def test_xception_65_has_the_published_layers(paper):
    encoder = paper.encoder
    root = [layer for layer in encoder.root if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.stride[0], c.kernel_size[0]) for c in root] == [
        (5, 32, 2, 3), (32, 64, 1, 3),
    ]
    assert len(encoder.units) == len(TABLE)
    channels = 64
    for name, unit, row in zip(encoder.names, encoder.units, TABLE, strict=True):
        title, outputs, stride, dilation, skip = row
        assert name == title
        found = [layer.pointwise.out_channels for layer in unit.layers]
        assert (tuple(found), unit.skip) == (outputs, skip)
        strides = [layer.depthwise.stride[0] for layer in unit.layers]
        assert strides == [1, 1, stride]
        assert {layer.depthwise.dilation[0] for layer in unit.layers} == {dilation}
        assert all(layer.depthwise.groups == layer.depthwise.in_channels for layer in unit.layers)
        assert (unit.shortcut is not None) == (skip == "conv")
        assert unit.layers[0].depthwise.in_channels == channels
        channels = outputs[-1]
    # convolutions that give the network its name: all but the shortcuts, and the classifier
    count = 2 + 3 * len(encoder.units)
    assert count == 65
    # 37.8 million weights and normalisations; 576 more weights than for three channels
    plain = sum(p.numel() for p in Xception65(3).parameters())
    assert sum(p.numel() for p in encoder.parameters()) - plain == 2 * 32 * 9


def test_the_papers_strides_and_rates(paper):
    x = torch.zeros(1, 5, 64, 96)
    with torch.no_grad():
        low, high = paper.encoder(x)
        logits = paper.decode(low, high)
    assert (low.shape, high.shape) == ((1, 256, 16, 24), (1, 2048, 8, 12))
    assert logits.shape == (1, 1, 16, 24)
    rates = [layer.depthwise.dilation[0] for layer in paper.pyramid.dilated]
    assert rates == [12, 24, 36]
    assert paper.low_level[0].out_channels == 48
    assert [layer.pointwise.out_channels for layer in paper.decoder] == [256, 256]
    assert paper.config.disk_radius_px == 3


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_dilation_in_place_of_stride_gives_the_same_features_more_densely(stride):
    torch.manual_seed(0)
    plain = MobileNetV2().eval()
    dilated = DilatedMobileNetV2(5, stride).eval()
    state = plain.state_dict()
    zeros = torch.zeros(32, 2, 3, 3)
    state["stem.weight"] = torch.cat([state["stem.weight"], zeros], 1)
    dilated.backbone.load_state_dict(state)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = plain(image)[4]
        low, found = dilated(torch.cat([image, torch.randn(1, 2, 64, 96)], 1))
        step = 32 // stride
        torch.testing.assert_close(found[:, :, ::step, ::step], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(low, plain(image)[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 65)])
def test_disks_have_radius_3(size):
    height, width = size
    clicks = np.array([[0, 0, 1], [height - 1, width - 1, 0]], np.float32)
    maps = click_disks(clicks, size, 3.0)
    y, x = np.mgrid[:height, :width]
    assert np.array_equal(maps[0], (y**2 + x**2 <= 9).astype(np.float32))
    far = (y - height + 1) ** 2 + (x - width + 1) ** 2 <= 9
    assert np.array_equal(maps[1], far.astype(np.float32))


def test_no_clicks_no_disks():
    assert not click_disks(np.zeros((0, 3), np.float32), (4, 5), 3.0).any()


def test_unknown_values_are_refused():
    with pytest.raises(ValueError, match="backbone"):
        DeepLabConfig(backbone="resnet")
    with pytest.raises(ValueError, match="encoder_stride"):
        DeepLabConfig(encoder_stride=4)


@pytest.fixture
def dataset(tmp_path):
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rng = np.random.default_rng(0)
    for index in range(4):
        mask = np.zeros((72, 80), np.uint8)
        cv2.circle(mask, (40, 36), 20, 1, -1)
        image = np.where(mask[..., None] > 0, 200, 60) + rng.integers(0, 20, (72, 80, 3))
        cv2.imwrite(str(root / "images" / f"{index}.png"), image.astype(np.uint8))
        cv2.imwrite(str(root / "masks" / f"{index}.png"), mask)
    return root


def _config(tmp_path, dataset, **changes):
    values = {
        "data": {"path": str(dataset), "layout": "folder"},
        "network": small_config(width=16, low_level_width=8).to_dict(),
        "sampled_steps": 3,
        "corrected_steps": 4,
        "reset_every": 2,
        "learning_rate": 0.01,
        "crop": {"size": 64, "objects": 1, "supervision_stride": 4},
        **changes,
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values))
    return read_corrections_config(path)


def test_the_learning_rate_decays_polynomially_in_each_stage(tmp_path, dataset):
    trainer = CorrectionsTrainer(_config(tmp_path, dataset), tmp_path / "run")
    assert [trainer.learning_rate(step) for step in (0, 3)] == [0.01, 0.01]
    assert trainer.learning_rate(1) == pytest.approx(0.01 * (2 / 3) ** 0.9)
    assert trainer.learning_rate(5) == pytest.approx(0.01 * 0.5**0.9)


def test_stage_two_adds_corrections_and_resets(tmp_path, dataset, monkeypatch):
    trainer = CorrectionsTrainer(_config(tmp_path, dataset), tmp_path / "run")
    counts = []
    advance = trainer._advance

    def watched(batch, rng, *, correct):
        counts.append((correct, [len(clicks) for clicks in batch.clicks]))
        return advance(batch, rng, correct=correct)

    monkeypatch.setattr(trainer, "_advance", watched)
    assert trainer.run()
    assert [correct for correct, _ in counts] == [False] * 3 + [True] * 4
    for first, second in ((3, 4), (5, 6)):
        assert counts[first][1] == [1, 1]
        assert counts[second][1] == [2, 2]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimiser": "adamw", "encoder_factor": 0.1, "clip_norm": 1.0, "jaccard_weight": 1.0},
    ],
    ids=["the paper's", "ours"],
)
def test_a_resumed_run_goes_on_exactly(tmp_path, dataset, changes):
    config = _config(tmp_path, dataset, **changes)
    whole = CorrectionsTrainer(config, tmp_path / "whole")
    assert whole.run()
    first = CorrectionsTrainer(config, tmp_path / "parts")
    while first.step < 5:
        first._round()
    first.save()
    second = CorrectionsTrainer(config, tmp_path / "parts")
    second.resume()
    assert second.step == 5
    assert second.run()
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name
    network = load_deeplab(tmp_path / "parts" / "last")
    assert network.config == config.network
    released = load_deeplab(tmp_path / "parts" / "model").state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(released[name], value.half().float()), name


def test_an_interruption_saves(tmp_path, dataset, monkeypatch):
    trainer = CorrectionsTrainer(_config(tmp_path, dataset), tmp_path / "run")

    def interrupt(step, loss):
        if step >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.run(progress=interrupt)
    resumed = CorrectionsTrainer(_config(tmp_path, dataset), tmp_path / "run")
    resumed.resume()
    assert resumed.step == 2


def test_a_training_that_diverges_ends_in_one_error_and_keeps_what_was_saved(tmp_path, dataset):
    trainer = CorrectionsTrainer(_config(tmp_path, dataset), tmp_path / "run")
    trainer.save()
    with torch.no_grad():
        trainer.network.head.bias.fill_(float("nan"))
    for spoilt in (trainer.run, trainer.save, trainer.release):
        with pytest.raises(TrtsegError, match="diverged"):
            spoilt()
    assert not (tmp_path / "run" / "model").exists()
    kept = load_deeplab(tmp_path / "run" / "last")
    assert bool(torch.isfinite(kept.head.bias).all())
    with torch.no_grad():
        trainer.network.head.bias.fill_(1e5)
    with pytest.raises(TrtsegError, match=r"head\.bias is not finite in float16"):
        trainer.release()


def test_a_run_is_resumed_with_its_own_optimiser_alone(tmp_path, dataset):
    first = CorrectionsTrainer(_config(tmp_path, dataset, optimiser="adamw"), tmp_path / "run")
    first._round()
    first.save()
    with pytest.raises(CheckpointError, match=r"expected the momentum_buffer .* sgd keeps"):
        CorrectionsTrainer(_config(tmp_path, dataset), tmp_path / "run").resume()
    short = _config(tmp_path, dataset, optimiser="adamw", sampled_steps=0, corrected_steps=1)
    longer = _config(tmp_path, dataset, optimiser="adamw")
    CorrectionsTrainer(short, tmp_path / "run").resume()
    trainer = CorrectionsTrainer(longer, tmp_path / "run")
    trainer.step = 7
    trainer.save()
    with pytest.raises(CheckpointError, match="step: expected 0 to 1"):
        CorrectionsTrainer(short, tmp_path / "run").resume()


def test_what_cannot_work_is_told_before_the_training(tmp_path, dataset, capsys):
    _config(tmp_path, dataset)
    config = str(tmp_path / "config.json")
    (tmp_path / "file").write_text("")
    for arguments, words in (
        (["--output", str(tmp_path / "file")], "File exists"),
        (["--output", str(tmp_path / "a"), "--device", "gpu9"], "--device: expected"),
    ):
        assert main(["train-corrections", config, *arguments]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    with pytest.raises(SystemExit):
        main(["train-corrections", config, "--output", "a", "--max-minutes", "nan"])
    assert "expected minutes of at least 0" in capsys.readouterr().err


def test_another_kind_of_checkpoint_is_refused(tmp_path, dataset):
    trainer = CorrectionsTrainer(_config(tmp_path, dataset), tmp_path / "run")
    trainer.save()
    other = CorrectionsTrainer(
        _config(tmp_path, dataset, network=small_config(width=24).to_dict()), tmp_path / "run"
    )
    with pytest.raises(CheckpointError):
        other.resume()
    with pytest.raises(CheckpointError):
        load_deeplab(tmp_path / "nothing")


def test_the_backbone_of_a_bundle_with_the_lite_encoder_is_taken(tmp_path, dataset):
    config = _config(tmp_path, dataset, initial_weights="bundle:lite")
    trainer = CorrectionsTrainer(config, tmp_path / "run")
    _, state = bundle_weights(bundles.read("lite"))
    backbone = trainer.network.encoder.backbone.state_dict()
    for name, value in backbone.items():
        expected = state[f"encoder.backbone.{name}"]
        assert torch.equal(value[:, :3] if name == "stem.weight" else value, expected), name
    assert not backbone["stem.weight"][:, 3:].any()


def test_a_bundle_without_that_encoder_is_refused(tmp_path):
    encoder = DeepLab(small_config()).encoder
    with pytest.raises(CheckpointError, match=r"somewhere: holds no MobileNetV2"):
        encoder.load_backbone({"stem.weight": torch.zeros(32, 3, 3, 3)}, "somewhere")
    with pytest.raises(CheckpointError, match=r"somewhere: holds no MobileNetV2"):
        encoder.load_backbone({}, "somewhere")


def test_the_pretrained_layers_learn_at_their_own_rate(tmp_path, dataset):
    config = _config(tmp_path, dataset, encoder_factor=0.0, weight_decay=0.0, sampled_steps=1)
    trainer = CorrectionsTrainer(config, tmp_path / "run")
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer._round()
    moved = {
        name for name, value in trainer.network.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert {"encoder.backbone.stem.weight", "head.weight"} <= moved
    assert not any(name.startswith("encoder.backbone.stages.") for name in moved)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimiser", "lion"),
        ("encoder_factor", -1),
        ("clip_norm", 0),
        ("jaccard_weight", -0.5),
        ("sampled_steps", -5),
        ("learning_rate", 0),
        ("seed", 2**70),
        ("data", []),
        ("network", {"rates": [0]}),
        ("network", {"width": 0}),
        ("crop", {"objects": 1, "shift": -1}),
    ],
)
def test_values_that_are_not_allowed_are_named(tmp_path, dataset, name, value):
    with pytest.raises(ValueError, match=name):
        _config(tmp_path, dataset, **{name: value})
