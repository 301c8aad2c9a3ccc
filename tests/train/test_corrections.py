"""CA's initial model as a task of the trainer: clicks sampled, then clicks on its own mistakes."""

import json

import cv2
import numpy as np
import pytest
import torch

from trtseg.errors import CheckpointError, TrtsegError
from trtseg.nn.deeplab import DeepLabConfig, load_deeplab
from trtseg.train.corrections import CorrectionsTask, read_corrections_config
from trtseg.train.parallel import Parallel
from trtseg.train.trainer import Trainer


def small(**changes):
    """The small sibling's network."""
    values = {"backbone": "efficientnet_lite2", "encoder_stride": 16, "rates": (1, 2, 3),
              "width": 16, "low_level_width": 8, "working_long_side_px": 64}
    return DeepLabConfig(**{**values, **changes})


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


@pytest.fixture
def config(tmp_path, dataset):
    """A run of 3 + 4 steps; keywords replace entries of the JSON."""

    def make(**changes):
        values = {
            "data": {"path": str(dataset), "layout": "folder"},
            "network": small().to_dict(),
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

    return make


def trainer(config, folder):
    return Trainer(CorrectionsTask(config), folder, Parallel("cpu"), 0)


def stop_after(batches):
    left = iter(range(batches - 1))
    return lambda: next(left, None) is None


def test_the_learning_rate_decays_polynomially_in_each_stage(config, tmp_path):
    run = trainer(config(), tmp_path / "run")
    assert [stage.name for stage in run.stages] == ["sampled", "corrected"]
    for stage in run.stages:
        assert stage.rate(0, 4) == 1
        assert stage.rate(2, 4) == pytest.approx(0.5**0.9)


def test_stage_two_adds_corrections_and_resets(config, tmp_path, monkeypatch):
    run = trainer(config(), tmp_path / "run")
    counts = []
    advance = run._advance

    def watched(batch):
        counts.append((run.stage.name, [len(clicks) for clicks in batch.clicks]))
        return advance(batch)

    monkeypatch.setattr(run, "_advance", watched)
    assert run.run()
    assert [name for name, _ in counts] == ["sampled"] * 3 + ["corrected"] * 4
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
def test_a_resumed_run_goes_on_exactly(config, tmp_path, changes):
    settings = config(**changes)
    whole = trainer(settings, tmp_path / "whole")
    assert whole.run()
    first = trainer(settings, tmp_path / "parts")
    assert not first.run(stopped=stop_after(4))
    second = trainer(settings, tmp_path / "parts")
    second.resume()
    assert (second.stage.name, second.step) == ("corrected", 2)
    assert second.run()
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name
    network = load_deeplab(tmp_path / "parts" / "last")
    assert network.config == settings.network
    released = load_deeplab(tmp_path / "parts" / "model").state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(released[name], value.half().float()), name


def test_a_training_that_diverges_ends_in_one_error_and_keeps_what_was_saved(config, tmp_path):
    run = trainer(config(sampled_steps=20), tmp_path / "run")
    run.save("last")
    with torch.no_grad():
        run.network.head.bias.fill_(float("nan"))
    for spoilt in (run.run, lambda: run.save("last")):
        with pytest.raises(TrtsegError, match="diverged"):
            spoilt()
    assert not (tmp_path / "run" / "model").exists()
    kept = load_deeplab(tmp_path / "run" / "last")
    assert bool(torch.isfinite(kept.head.bias).all())
    run.average["head.bias"].fill_(1e5)
    with pytest.raises(TrtsegError, match=r"head\.bias is not finite in float16"):
        run.release()


def test_a_run_is_resumed_with_its_own_optimiser_alone(config, tmp_path):
    trainer(config(optimiser="adamw"), tmp_path / "run").run(stopped=stop_after(1))
    with pytest.raises(CheckpointError, match=r"expected the momentum_buffer .* sgd keeps"):
        trainer(config(), tmp_path / "run").resume()
    trainer(config(optimiser="adamw", sampled_steps=1), tmp_path / "run").resume()
    with pytest.raises(CheckpointError, match="no stage 'sampled'"):
        trainer(config(optimiser="adamw", sampled_steps=0), tmp_path / "run").resume()


def test_another_kind_of_checkpoint_is_refused(config, tmp_path):
    trainer(config(), tmp_path / "run").save("last")
    other = trainer(config(network=small(width=24).to_dict()), tmp_path / "run")
    with pytest.raises(CheckpointError):
        other.resume()
    with pytest.raises(CheckpointError):
        load_deeplab(tmp_path / "nothing")


def test_the_pretrained_layers_learn_at_their_own_rate(config, tmp_path):
    run = trainer(config(encoder_factor=0.0, weight_decay=0.0, sampled_steps=1), tmp_path / "run")
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    run.run(stopped=stop_after(1))
    moved = {
        name for name, value in run.network.state_dict().items()
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
def test_values_that_are_not_allowed_are_named(config, name, value):
    with pytest.raises(ValueError, match=name):
        config(**{name: value})
