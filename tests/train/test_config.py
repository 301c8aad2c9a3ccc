"""Configurations: every mistake is named with its place."""

import json
from pathlib import Path

import pytest

from trtseg.nn.config import NetworkConfig
from trtseg.train.config import StageConfig, parse_config, read_config

STAGE = {"trains": "segment", "steps": 1}
MINIMAL = {"network": {}, "data": {"path": "x"}, "stages": [STAGE]}
CONFIGS = [
    path
    for path in sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.json"))
    if "stages" in json.loads(path.read_text())  # the others are of other tasks
]


def with_value(place, value):
    values = json.loads(json.dumps(MINIMAL))
    *path, last = place.split(".")
    inner = values
    for key in path:
        inner = inner.setdefault(key, {})
    inner[last] = value
    return values


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("batch", "8", "config.batch: expected a whole number, got '8'"),
        ("batch", 2.5, "config.batch: expected a whole number, got 2.5"),
        ("batch", True, "config.batch: expected a whole number, got True"),
        ("batch", 0, "config.batch: expected at least 1, got 0"),
        ("ema", "0.9", "config.ema: expected a finite number, got '0.9'"),
        ("ema", float("nan"), "config.ema: expected a finite number, got nan"),
        ("bf16", 1, "config.bf16: expected true or false, got 1"),
        ("initial_weights", 3, "config.initial_weights: expected a string, got 3"),
        ("stages", [{**STAGE, "learning_rate": "1e-3"}],
         r"config.stages\[0\].learning_rate: expected a finite"),
        ("stages", [{**STAGE, "learning_rate": 0}],
         r"config.stages\[0\].learning_rate: expected above 0"),
        ("stages", [{**STAGE, "epochs": 3}],
         r"config.stages\[0\].steps: expected either steps or epochs"),
        ("stages", [{**STAGE, "trains": "all"}],
         r"config.stages\[0\].trains: expected one of segment, select, got 'all'"),
        ("stages", [{**STAGE, "rate": 3}], r"config.stages\[0\]: unknown rate; known: trains"),
        ("stages", [], "config.stages: expected at least one"),
        ("stages", 3, "config.stages: expected a list, got 3"),
        ("clicks.region_fraction", 0.5,
         "config.clicks.region_fraction: needs a network with region"),
        ("network.dilations", 3, "config.network.dilations: expected a list, got 3"),
        ("network.dilations", [1, "2"], r"config.network.dilations\[1\]: expected a whole number"),
        ("network.encoder", "vgg", "config.network.encoder: expected one of"),
        ("crop.scale", [1], "config.crop.scale: expected 2 values, got 1"),
        ("crop.scale", [2, 1], "config.crop.scale: expected 0 < low <= high"),
        ("crop.size", 100, "config.crop.size: expected a multiple of 32"),
        ("loss.kind", "dice", "config.loss.kind: expected one of jaccard"),
        ("loss.assignment", "even", "config.loss.assignment: expected one of best, balanced"),
        ("data.weights", {"a": "b"}, "config.data.weights.a: expected a finite number"),
        ("data.layout", "imagenet", "config.data.layout: expected one of "),
        ("data", [], "config.data: expected at least one source"),
        ("clicks.margins", [], "config.clicks.margins: expected distances"),
        ("validation.every", 0, "config.validation.every: expected at least 1"),
        ("colour", 1, "config: unknown colour"),
    ],
)
def test_mistakes_are_named(place, value, message):
    with pytest.raises(ValueError, match="^" + message) as caught:
        parse_config(with_value(place, value))
    assert "\n" not in str(caught.value)


def test_missing_entries_are_named():
    with pytest.raises(ValueError, match="config: stages is missing"):
        parse_config({"network": {}, "data": {"path": "x"}})
    with pytest.raises(ValueError, match="config: expected an object, got 3"):
        parse_config(3)


def test_round_trip():
    config = parse_config(MINIMAL)
    assert config.network == NetworkConfig()
    assert parse_config(json.loads(json.dumps(config.to_dict()))) == config


def test_one_source_may_stand_for_a_list():
    assert parse_config(MINIMAL).data == parse_config({**MINIMAL, "data": [{"path": "x"}]}).data


def test_epochs_count_steps():
    for changes, steps in (({"epochs": 100}, 350), ({"epochs": 0.5}, 2), ({"steps": 9}, 9)):
        config = StageConfig("segment", **changes)
        assert config.stage("segment", images=7, samples=2, clip_norm=1.0, ema=0.0).steps == steps


def test_paths_start_at_the_file(tmp_path):
    values = {**MINIMAL, "validation": {"paths": ["../eval"]}, "initial_weights": "/w.npz"}
    (tmp_path / "c.json").write_text(json.dumps(values))
    config = read_config(tmp_path / "c.json")
    assert config.data[0].path == str(tmp_path / "x")
    assert Path(config.validation.paths[0]).resolve() == tmp_path.parent / "eval"
    assert config.initial_weights == "/w.npz"


def test_bad_files_are_named(tmp_path):
    path = tmp_path / "c.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"c\.json: not JSON"):
        read_config(path)
    path.write_text(json.dumps(with_value("batch", "8")))
    with pytest.raises(ValueError, match=r"c\.json: config\.batch: expected a whole number"):
        read_config(path)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_are_valid(path):
    read_config(path)


def test_the_papers_configuration_is_the_paper():
    config = read_config(next(path for path in CONFIGS if path.stem == "latent_diversity"))
    assert config.network == NetworkConfig(working_long_side_px=config.network.working_long_side_px)
    assert config.batch == 1
    for stage in config.stages:
        assert stage.epochs == 100
        assert stage.learning_rate == 1e-4
        assert stage.weight_decay == 0
