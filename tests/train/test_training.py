"""The loop: exact resume, the right gradients, and learning at all."""

import copy
import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from trtseg.errors import CheckpointError
from trtseg.nn.checkpoint import load_network, read_checkpoint
from trtseg.nn.network import LatentDiversity
from trtseg.parse import read_derived
from trtseg.train.latent_diversity import LatentDiversityTask
from trtseg.train.objective import Objective
from trtseg.train.parallel import Parallel
from trtseg.train.samples.crops import Crops, collate
from trtseg.train.samples.images import LabelledImages
from trtseg.train.samples.randomness import StepRandomness
from trtseg.train.trainer import Trainer

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
LITE = {
    "encoder": "mobilenet_v2", "base_stride": 4, "image_term": False, "click_map": "gaussian",
    "previous_mask": True, "width": 8, "dilations": [1, 2], "residual": True, "candidates": 3,
    "select_inputs": ["guidance", "masks", "features"], "select_width": 8,
    "select_dilations": [1], "select_stride": 2, "working_long_side_px": 96,
}  # fmt: skip


PYRAMID = {
    **LITE, "encoder": "efficientnet_lite2", "base_stride": 2, "region": True,
    "segment": "pyramid", "map_widths": [8, 8], "neck_widths": [8] * 5, "select_stride": 4,
}  # fmt: skip


def trainer(config, folder):
    task = LatentDiversityTask(config)
    return Trainer(task, folder, Parallel("cpu"), 0, config.validation.every)


def stop_after(steps):
    """A `stopped` for `Trainer.run` that turns true after so many steps."""
    left = iter(range(steps - 1))
    return lambda: next(left, None) is None


def test_the_papers_network_on_vgg16_trains(config, tmp_path):
    """`configs/full.json` for a step of each stage, with everything small but the encoder."""
    values = read_derived(CONFIGS / "full.json")
    del values["data"], values["initial_weights"]
    values["network"] |= {
        "width": 8, "dilations": [1, 2, 1], "select_width": 8, "select_dilations": [1, 1],
    }  # fmt: skip
    values["crop"] |= {"size": 64, "object_side": [20, 60]}
    for stage in values["stages"]:
        stage["steps"] = 1
    trained = trainer(config(**values), tmp_path / "run")
    before = copy.deepcopy(trained.task.network.state_dict())
    assert trained.run()
    after = trained.task.network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any(name.startswith("encoder.backbone.") for name in changed)  # it is frozen
    assert {"encoder.projections.4.weight", "guidance_weight", "select.head.weight"} <= changed


RUNS = {
    "plain": {},
    "lite in bf16": {
        "network": LITE,
        "bf16": True,
        "stages": [
            {"trains": "segment", "steps": 4, "learning_rate": 1e-3, "encoder_factor": 0.2},
            {"trains": "select", "steps": 3, "learning_rate": 1e-3},
        ],
    },
    "pyramid with every prompt": {
        "network": PYRAMID,
        "clicks": {
            "corrections": 1, "stroke_fraction": 0.2, "region_fraction": 0.3,
            "repair_fraction": 0.3, "edge_fraction": 0.5, "slip_px": 2, "group_fraction": 0.5,
        },
    },
}  # fmt: skip
WHOLE: dict = {}  # by run, what it gives without a stop


# where a run may stop does not depend on the network
@pytest.mark.parametrize(
    ("name", "stop"),
    [*(("plain", stop) for stop in (2, 4, 5, 6)), ("lite in bf16", 2), ("lite in bf16", 5),
     ("pyramid with every prompt", 4), ("pyramid with every prompt", 6)],
)  # fmt: skip
def test_resumed_equals_uninterrupted(config, tmp_path, name, stop):
    """In either stage (4 steps of f, 3 of g) and between them, bit for bit."""
    config = config(**RUNS[name])
    if name not in WHOLE:
        assert trainer(config, tmp_path / "whole").run()
        WHOLE[name] = read_checkpoint(tmp_path / "whole" / "last")
    part = trainer(config, tmp_path / "parts")
    if stop != 4:
        assert not part.run(stopped=stop_after(stop))
    else:
        # between the stages: as if killed right after the first one's last checkpoint
        part.save = lambda name, save=part.save: save(name) if name == "last" else 1 / 0
        with pytest.raises(ZeroDivisionError):
            part.run()
    rest = trainer(config, tmp_path / "parts")
    rest.resume()
    expected = ("segment", stop) if stop <= 4 else ("select", stop - 4)
    assert (rest.stage.name, rest.step) == expected
    assert rest.run()
    whole, state = WHOLE[name]
    parts, other = read_checkpoint(tmp_path / "parts" / "last")
    assert whole.keys() == parts.keys()
    for key, value in whole.items():
        assert torch.equal(value, parts[key]), key
    # "train" names the folder of this test's data
    own = {"seconds": 0, "tensors_sha256": 0, "train": 0}
    assert {**state, **own} == {**other, **own}


def test_each_stage_trains_its_own_part(config, tmp_path):
    run = trainer(config(ema=0.0), tmp_path)
    before = copy.deepcopy(run.network.state_dict())
    assert run.run()
    segment, _ = read_checkpoint(tmp_path / "segment")
    last, _ = read_checkpoint(tmp_path / "last")
    for name, value in before.items():
        changed = not torch.equal(value, segment[f"model.{name}"])
        assert changed == (not name.startswith("select.")), name
        changed = not torch.equal(segment[f"ema.{name}"], last[f"model.{name}"])
        assert changed == name.startswith("select."), name


def test_a_frozen_backbone_stays(config, tmp_path):
    config = config(network=LITE)
    run = trainer(config, tmp_path)
    before = copy.deepcopy(run.network.encoder.backbone.state_dict())
    projection = run.network.encoder.projections[0].weight.detach().clone()
    run.run(stopped=stop_after(2))
    for name, value in run.network.encoder.backbone.state_dict().items():
        assert torch.equal(value, before[name])
    assert not torch.equal(run.network.encoder.projections[0].weight, projection)


def test_the_learning_rate_warms_up_and_cools_down(config, tmp_path):
    run = trainer(config(), tmp_path)  # 4 steps, warm-up 2, cooldown over the last 2
    rates = []
    for run.step in range(4):
        run._set_learning_rate()
        rates.append(run.optimiser.param_groups[0]["lr"] / 1e-3)
    np.testing.assert_allclose(rates, [0.5, 1.0, 1.0, 0.5])


def a_batch(config, first=0, count=2):
    crops = Crops(LabelledImages(config.data), config.crop, config.clicks,
                  config.network.base_stride, config.seed)
    return collate([crops[first + index] for index in range(count)])


def test_hindsight_reaches_one_head_only(config):
    config = config(loss={"diversity_weight": 0.0}, clicks={"corrections": 0})
    torch.manual_seed(0)
    network = LatentDiversity(config.network)
    batch = a_batch(config, count=1)
    batch.targets, batch.clicks = batch.targets[:1], batch.clicks[:1]
    values = Objective(network, config, "segment")(batch, StepRandomness(0, 0, 0))
    values["loss"].backward()
    gradient = network.segment.head.weight.grad.abs().sum((1, 2, 3))
    assert (gradient > 0).sum() == 1


def test_a_balanced_assignment_reaches_every_head(config):
    loss = {"diversity_weight": 0.0, "assignment": "balanced"}
    config = config(loss=loss, clicks={"corrections": 0})
    torch.manual_seed(0)
    network = LatentDiversity(config.network)
    heads = config.network.candidates
    batch = a_batch(config, count=heads)
    batch.targets, batch.clicks = batch.targets[:heads], batch.clicks[:heads]
    values = Objective(network, config, "segment")(batch, StepRandomness(0, 0, 0))
    values["loss"].backward()
    assert (network.segment.head.weight.grad.abs().sum((1, 2, 3)) > 0).all()


class Rounds(StepRandomness):
    """As many rounds of corrections as are allowed."""

    def __init__(self) -> None:
        super().__init__(0, 0, 0)
        self.shared = SimpleNamespace(integers=lambda stop: stop - 1)


@pytest.mark.parametrize(("most", "trained"), [(None, range(8)), (3, (0, 6, 7)), (1, (0,))])
def test_the_first_and_the_last_rounds_are_differentiated(config, most, trained):
    config = config(clicks={"corrections": 7, "trained_rounds": most})
    torch.manual_seed(0)
    objective = Objective(LatentDiversity(config.network), config, "segment")
    seen, masks = [], objective._masks

    def spy(*arguments):
        found = masks(*arguments)
        seen.append(found[0].requires_grad)
        return found

    objective._masks = spy
    objective(a_batch(config), Rounds())["loss"].backward()
    assert [number for number, one in enumerate(seen) if one] == list(trained)
    assert len(seen) == 8


def learnt(config, corrections, **loss):
    """Which masks one sample trains."""
    one = config(loss={"diversity_weight": 0.0, **loss}, clicks={"corrections": corrections})
    torch.manual_seed(0)
    network = LatentDiversity(one.network)
    batch = a_batch(one, count=1)
    batch.targets, batch.clicks = batch.targets[:1], batch.clicks[:1]
    Objective(network, one, "segment")(batch, Rounds())["loss"].backward()
    return (network.segment.head.weight.grad.abs().sum((1, 2, 3)) > 0).tolist()


def test_once_corrected_every_mask_is_trained(config):
    assert sum(learnt(config, 1)) <= 2, "the best of each round"
    assert all(learnt(config, 1, consensus_weight=0.5))


def test_an_anchor_learns_from_every_sample(config):
    assert sum(learnt(config, 0)) == 1, "the best"
    anchored = learnt(config, 0, anchor_weight=1.0)
    assert anchored[0], "the anchor"
    assert sum(anchored) == 2, "and the best of the others"


class Seen(torch.nn.Module):
    """In the place of g: keeps what it is given and answers with fixed logits."""

    def __init__(self, count):
        super().__init__()
        self.fixed = torch.nn.Parameter(torch.linspace(0, 1, count))

    def judge(self, inputs):
        (self.x,) = inputs
        logits = self.fixed.expand(len(self.x), -1)
        return logits, logits


def test_shuffled_masks_bring_their_targets_along(config):
    torch.manual_seed(0)
    losses = {}
    network = None
    for shuffle in (False, True):
        settings = config(
            loss={"shuffle_masks": shuffle}, clicks={"corrections": 0},
            network={**LITE, "base_stride": 4, "select_inputs": ["masks"]},
        )  # fmt: skip
        network = network or LatentDiversity(settings.network)
        network.select = Seen(3)
        objective = Objective(network, settings, "select")
        batch = a_batch(settings)
        for step in range(6):
            randomness = StepRandomness(0, 1, step)
            order = list(StepRandomness(0, 1, step).shared.permutation(3))
            loss = objective(batch, randomness)["loss"]
            losses[shuffle, step] = loss.item(), network.select.x, order
    _, plain, _ = losses[False, 0]
    jaccard = torch.stack([
        # what g's target is made of, from the masks in their own order
        1 - _iou(F.interpolate(plain, size=32, mode="bilinear")[:, m], batch.targets)
        for m in range(3)
    ], dim=1)  # fmt: skip
    log_p = network.select.fixed.detach().log_softmax(0)
    orders = set()
    for step in range(6):
        loss, seen, _ = losses[True, step]
        # which mask went into which channel, found by comparing them
        order = [
            next(m for m in range(3) if torch.equal(seen[:, c], plain[:, m])) for c in range(3)
        ]
        orders.add(tuple(order))
        best = jaccard[:, order].argmin(1)
        assert loss == pytest.approx(-log_p[best].mean().item(), rel=1e-5)
    assert len(orders) > 1


def _iou(masks, targets):
    valid = targets != 255
    inside = (targets == 1).float()
    intersection = (torch.minimum(masks, inside) * valid).sum((1, 2))
    return intersection / (torch.maximum(masks, inside) * valid).sum((1, 2))


def test_overfits_two_images(config):
    """Jaccard loss of the best mask below 0.05 on two images, in a fraction of a minute."""
    settings = config(
        network={"encoder": "none", "width": 16, "dilations": [1, 2, 4, 8, 1], "candidates": 2},
        clicks={"corrections": 0, "single_fraction": 0.0},
        crop={"size": 64, "object_side": [20, 60], "objects": 1, "supervision_stride": 1},
        loss={"cross_entropy_weight": 1.0},
    )
    torch.manual_seed(0)
    network = LatentDiversity(settings.network)
    objective = Objective(network, settings, "segment")
    batch = a_batch(settings)
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    for step in range(400):
        values = objective(batch, StepRandomness(0, 0, step))
        if 1 - values["best_iou"] < 0.05:
            break
        optimiser.zero_grad()
        values["loss"].backward()
        optimiser.step()
    assert 1 - values["best_iou"] < 0.05


def test_validation_keeps_the_best(config, data, tmp_path):
    run = trainer(config(validation={"paths": [str(data)], "every": 2, "objects": 3, "clicks": 2,
                                     "min_area_fraction": 0.05}), tmp_path / "run")
    assert run.run()
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "best", "curves.png", "last", "log.csv", "model", "segment", "select"
    }  # fmt: skip
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["stage"], row["step"]) for row in rows] == [
        ("segment", "2"), ("segment", "4"), ("select", "2"), ("select", "3")
    ]  # fmt: skip
    for row in rows:
        assert 1 <= float(row["validation noc@85"]) <= float(row["validation noc@90"]) <= 2
        assert float(row["validation best_iou@1"]) >= float(row["validation iou@1"])
    assert not load_network(tmp_path / "run" / "best").training


def test_time_is_kept(config, tmp_path):
    run = trainer(config(), tmp_path)
    assert not run.run(max_minutes=0)
    assert run.step == 1
    assert read_checkpoint(tmp_path / "last")[1]["step"] == 1


def test_a_checkpoint_of_another_network_is_refused(config, tmp_path):
    trainer(config(), tmp_path).run(max_minutes=0)
    other = trainer(config(network=LITE), tmp_path)
    with pytest.raises(CheckpointError, match=r"last: weights do not fit the network"):
        other.resume()
    state = json.loads((tmp_path / "last" / "state.json").read_text())
    (tmp_path / "last" / "state.json").write_text(json.dumps({**state, "stage": "third"}))
    with pytest.raises(CheckpointError, match=r"state\.json: no stage 'third' in this"):
        trainer(config(), tmp_path).resume()


def test_a_run_can_start_from_a_checkpoint(config, tmp_path):
    trainer(config(), tmp_path / "first").run()
    second = trainer(config(initial_weights=str(tmp_path / "first" / "last")), tmp_path / "second")
    wanted = load_network(tmp_path / "first" / "last").state_dict()
    for name, value in second.network.state_dict().items():
        assert torch.equal(value, wanted[name]), name
