"""Experiments: resumable, comparable, and what their commands write."""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from adapt.conftest import IMAGE, SEQUENCE, write_adaptable
from trtseg.adapt import demo_command, experiment_command, importance_command
from trtseg.adapt.config import AdaptConfig, config_from_json
from trtseg.adapt.experiment import (
    Experiment,
    Records,
    Series,
    Source,
    jobs,
    resumable,
    run_job,
    samples_of,
    shifted,
)
from trtseg.adapt.experiment_report import running_mean, summarise, write_report
from trtseg.adapt.importance import chosen_config, importance_path, save_importance
from trtseg.adapt.subjects import at_working_size, bundle_subject, early_fusion_subject
from trtseg.errors import DatasetError
from trtseg.nn.checkpoint import save_checkpoint
from trtseg.nn.deeplab import DeepLab, small_config
from trtseg.runtime.segmenter import Segmenter
from trtseg.train.corrections import read_corrections_config

CONFIG = AdaptConfig(image=IMAGE, sequence=SEQUENCE, bf16=False)
EXPERIMENT = Experiment((Source("disks"),), (Series("own", CONFIG),), clicks=3, target=0.99)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    folder = root / "disks"
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        mask = np.zeros((24, 32), np.uint8)
        cv2.circle(mask, (10 + 4 * index, 12), 6, 1, -1)
        image = np.where(mask[..., None] > 0, 200, 60) + rng.integers(0, 20, (24, 32, 3))
        cv2.imwrite(str(folder / "images" / f"{index}.png"), image.astype(np.uint8))
        cv2.imwrite(str(folder / "masks" / f"{index}.png"), mask)
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory, importance):
    segmenter = Segmenter.load(write_adaptable(tmp_path_factory.mktemp("m") / "m"), threads=1)
    save_importance(
        importance_path(segmenter.bundle), importance, segmenter.bundle.fingerprint, {}
    )
    return segmenter


def _run(model, data, path, samples=None):
    records = Records(path)
    everything = samples_of(EXPERIMENT.sources[0], data)
    for source, mode, series in jobs(EXPERIMENT):
        run_job(
            EXPERIMENT, source, mode, series, samples=everything[:samples], records=records,
            make=bundle_subject(model, focus=False),
        )  # fmt: skip
    return records


def _answers(records):
    return [
        [(row["job"], row["name"], row["clicks"], row["iou_last"]) for row in rows]
        for rows in sorted(records._rows.values(), key=lambda rows: rows[0]["job"])
    ]


def test_an_interrupted_experiment_goes_on_to_the_same_result(model, data, tmp_path):
    whole = _run(model, data, tmp_path / "whole" / "records.jsonl")
    _run(model, data, tmp_path / "parts" / "records.jsonl", samples=2)
    # as if it had stopped between the last row and what its image teaches
    states = list((tmp_path / "parts" / "states").iterdir())
    assert len(states) == 2
    parts = _run(model, data, tmp_path / "parts" / "records.jsonl")
    assert _answers(parts) == _answers(whole)
    assert [len(rows) for rows in parts._rows.values()] == [3, 3, 3, 3]


def test_a_row_without_its_lesson_is_computed_again():
    taught, not_taught = {"taught": True}, {"taught": False}
    assert resumable([taught, taught], 2) == 2
    assert resumable([taught, taught], 1) == 1
    assert resumable([taught, not_taught, taught], 1) == 2
    assert resumable([taught], 0) == 0
    assert resumable([taught], 2) == 0
    assert resumable([], 0) == 0


def test_a_line_that_was_cut_off_is_ignored(tmp_path):
    path = tmp_path / "records.jsonl"
    records = Records(path)
    records.add({"job": "a", "clicks": 1})
    with path.open("a") as file:
        file.write('{"job": "a", "cli')
    assert Records(path).of("a") == [{"job": "a", "clicks": 1}]


def test_a_row_after_a_cut_off_line_stands_alone_and_other_damage_is_named(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"job": "a", "clicks": 1}\n{"job": "a", "cli')
    Records(path).add({"job": "a", "clicks": 2})
    assert [row["clicks"] for row in Records(path).of("a")] == [1, 2]
    path.write_text('{"job": "a"}\nnonsense\n{"job": "a"}\n')
    with pytest.raises(DatasetError, match=r"records\.jsonl, line 2: not a record"):
        Records(path)


def test_a_series_of_an_unknown_source_is_refused(tmp_path):
    file = tmp_path / "e.json"
    source = {"path": "disks"}
    file.write_text(json.dumps({"sources": [source],
                                "series": [{"label": "own", "sources": ["nosuch"]}]}))
    with pytest.raises(ValueError, match="own: expected sources of disks, got 'nosuch'"):
        experiment_command.read_experiment(file, None, 0)
    with pytest.raises(ValueError, match="target: expected in"):
        Experiment((Source("disks"),), (), target=7)


def test_the_report_compares_with_the_fixed_model(model, data, tmp_path):
    records = _run(model, data, tmp_path / "records.jsonl")
    summary = summarise(EXPERIMENT, records)
    assert [row["mode"] for row in summary] == ["fixed", "image", "sequence", "both"]
    fixed = summary[0]
    assert fixed["change"] is None
    for row in summary[1:]:
        assert row["change"] == pytest.approx(row["clicks"] / fixed["clicks"] - 1, abs=1e-3)
        low, high = row["change_interval"]
        assert low <= row["change"] <= high
    paths = write_report(EXPERIMENT, records, tmp_path / "report", {"model": "m"})
    assert all(path.stat().st_size > 0 for path in paths)
    table = (tmp_path / "report" / "table.md").read_text()
    assert table.count("\n") == 6
    assert "IA+SA, own" in table


def test_the_fixed_model_runs_once():
    two = Experiment((Source("a"),), (Series("x", CONFIG), Series("y", CONFIG)))
    assert [mode for _, mode, _ in jobs(two)].count("fixed") == 1


def test_running_mean():
    assert running_mean([2, 4, 6, 8], 2).tolist() == [2, 3, 5, 7]


@pytest.mark.parametrize("shift", ["inverted", "thermal"])
def test_shifts_change_colours_only(photo, shift):
    found = shifted(photo, shift)
    assert found.shape == photo.shape
    assert found.dtype == np.uint8
    assert not np.array_equal(found, photo)
    assert shifted(photo, "none") is photo


def test_a_source_may_be_a_part_of_a_data_set(data):
    source = Source("disks", prefix="1")
    assert source.name == "1"
    assert [sample.name[0] for sample in samples_of(source, data)] == ["1"]


def test_unknown_values_are_refused():
    with pytest.raises(ValueError, match="shift"):
        Source("a", shift="rotated")
    with pytest.raises(ValueError, match="modes"):
        Series("a", CONFIG, ("always",))


def test_another_working_size_changes_what_the_networks_see_and_nothing_else(model, photo):
    assert at_working_size(model, 0) is model
    small = at_working_size(model, 32)
    assert max(small.encode(photo).working_size) == 32
    assert small.bundle.fingerprint == model.bundle.fingerprint
    assert max(model.encode(photo).working_size) == 64
    with pytest.raises(ValueError, match="long_side_px"):
        Experiment((Source("a"),), (Series("a"),), long_side_px=-1)


def _parse(module, *arguments):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args([str(argument) for argument in arguments])


def test_the_experiment_command(model, data, tmp_path, capsys):
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps({
        "sources": [{"path": "disks"}],
        "series": [{"label": "own", "modes": ["fixed", "image"], "adapt": {"bf16": False}}],
        "clicks": 2,
    }))
    arguments = (path, "--model", model.bundle.path, "--data", data, "--output", tmp_path / "out")
    assert experiment_command.run(_parse(experiment_command, *arguments)) == 0
    assert "| disks | 3 | fixed |" in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    fingerprint, importance = results["model"].split()
    assert fingerprint == model.bundle.fingerprint
    # records of the same model with another importance do not mix with these
    (tmp_path / "out" / "model.txt").write_text(f"{fingerprint} {importance[::-1]}")
    with pytest.raises(ValueError, match="another model or importance"):
        experiment_command.run(_parse(experiment_command, *arguments))
    (tmp_path / "out" / "model.txt").write_text("another")
    with pytest.raises(ValueError, match="another model"):
        experiment_command.run(_parse(experiment_command, *arguments))
    with pytest.raises(ValueError, match="--only"):
        experiment_command.run(_parse(experiment_command, *arguments, "--only", "cats"))


def test_the_demo_command(model, data, tmp_path, capsys):
    arguments = (data / "disks", "--model", model.bundle.path, "-o", tmp_path / "plot.png",
                 "--clicks", 2)
    assert demo_command.run(_parse(demo_command, *arguments)) == 0
    assert "IA+SA" in capsys.readouterr().out
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(FileExistsError, match="--force"):
        demo_command.run(_parse(demo_command, *arguments))


def test_the_importance_command_keeps_the_chosen_hyperparameters(data, tmp_path, capsys):
    bundle = write_adaptable(tmp_path / "m")
    chosen = tmp_path / "adapt.json"
    chosen.write_text(json.dumps({"layers": 2, "image": {
        "steps": 4, "learning_rate": 1e-5, "correction_weight": 1.0, "importance_weight": 0.5,
        "guidance": "earlier",
    }}))
    arguments = (bundle, data / "disks", "--objects", 2, "--config", chosen)
    assert importance_command.run(_parse(importance_command, *arguments)) == 0
    path = tmp_path / "m.importance.safetensors"
    assert capsys.readouterr().out.strip() == str(path)
    config = chosen_config(Segmenter.load(bundle, threads=1).bundle)
    assert (config.layers, config.image.steps, config.image.guidance) == (2, 4, "earlier")
    with pytest.raises(FileExistsError, match="--force"):
        importance_command.run(_parse(importance_command, *arguments))


def test_importance_and_experiments_of_an_early_fusion_checkpoint(data, tmp_path, capsys):
    torch.manual_seed(0)
    network = DeepLab(small_config(width=16, low_level_width=8, working_long_side_px=64))
    tensors = {f"model.{name}": value for name, value in network.state_dict().items()}
    save_checkpoint(tmp_path / "last", tensors, {"network": network.config.to_dict()})
    arguments = (tmp_path / "last", data / "disks", "--objects", 1)
    assert importance_command.run(_parse(importance_command, *arguments)) == 0
    assert (tmp_path / "last.importance.safetensors").is_file()
    sequence = early_fusion_subject(tmp_path / "last")("sequence", CONFIG, tmp_path / "state")
    sample = samples_of(EXPERIMENT.sources[0], data)[0]
    with sequence.image(sample.image) as session:
        session.add_click(10, 12)
    assert sequence.images == 1
    capsys.readouterr()
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps({"sources": [], "series": [], "long_side_px": 128}))
    options = ("--early-fusion", tmp_path / "last", "--data", data, "--output", tmp_path / "out")
    with pytest.raises(ValueError, match="long_side_px: expected 0 or 64"):
        experiment_command.run(_parse(experiment_command, path, *options))


def test_the_committed_experiments_can_be_read():
    folder = Path(__file__).parents[2] / "docs" / "adaptation"
    names = ("experiment", "tune", "tune-steps", "ablation", "early-fusion", "early-fusion-tune",
             "early-fusion-tune-rate")
    for name in names:
        experiment = experiment_command.read_experiment(folder / f"{name}.json", None, 2)
        assert {source.objects for source in experiment.sources} == {2}
    config_from_json((folder / "chosen.json").read_text())
    assert read_corrections_config(folder / "deeplab-small.json").network.width == 96
