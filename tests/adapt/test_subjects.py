"""What learns is evaluated as anything else: tied to all it depends on, resumable, comparable."""

import argparse
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from networks import small_config

from adapt.conftest import write_adaptable
from trtseg import cli
from trtseg.adapt.config import AdaptConfig
from trtseg.adapt.importance import chosen_config, importance_path, save_importance
from trtseg.commands import importance as importance_command
from trtseg.commands.options.method import load_method
from trtseg.errors import BundleError
from trtseg.evaluate.configuration import DataSpec, EvaluationConfig
from trtseg.evaluate.methods import load_segmenter
from trtseg.evaluate.studies.study import Paths, read_study
from trtseg.nn.checkpoint import save_checkpoint
from trtseg.nn.deeplab import DeepLab
from trtseg.parse import build, read_json
from trtseg.runtime.segmenter import Segmenter
from trtseg.train.corrections import read_corrections_config

ROOT = Path(__file__).resolve().parents[2]
IMAGE = {"steps": 2, "learning_rate": 1e-3, "correction_weight": 1.0, "importance_weight": 1.0,
         "guidance": "earlier"}  # fmt: skip
LEARNING = {"image": IMAGE, "bf16": False}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "disks"
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        mask = np.zeros((24, 32), np.uint8)
        cv2.circle(mask, (10 + 4 * index, 12), 6, 1, -1)
        image = np.where(mask[..., None] > 0, 200, 60) + rng.integers(0, 20, (24, 32, 3))
        cv2.imwrite(str(folder / "images" / f"{index}.png"), image.astype(np.uint8))
        cv2.imwrite(str(folder / "masks" / f"{index}.png"), mask)
    return folder


@pytest.fixture
def model(tmp_path, importance):
    """The path of a bundle with its importance."""
    path = write_adaptable(tmp_path / "m")
    bundle = Segmenter.load(path, threads=1).bundle
    save_importance(importance_path(bundle), importance, bundle.fingerprint, {})
    return path


def evaluate(model, data, output, *more):
    arguments = ["--model", model, "--data", data, "--output", output, "--clicks", 3,
                 "--target", 0.99, "--threads", 1, "--quiet", "--no-report", *more]  # fmt: skip
    return cli.main(["evaluate", *map(str, arguments)])


def records(output):
    found = [json.loads(path.read_text()) for path in sorted(output.glob("objects/disks/*.json"))]
    return [(record["name"], record["ious"], record["clicks"]) for record in found]


def test_results_are_tied_to_importance_and_hyperparameters(
    model, data, importance, tmp_path, capsys
):
    how = tmp_path / "how.json"
    how.write_text(json.dumps(LEARNING))
    run = (model, data, tmp_path / "out", "--adapt", "both", "--learning", how)
    assert evaluate(*run) == 0
    assert evaluate(*run, "--resume") == 0
    capsys.readouterr()

    how.write_text(json.dumps({**LEARNING, "image": {**IMAGE, "steps": 3}}))
    assert evaluate(*run, "--resume") == 2
    assert "learning: " in capsys.readouterr().err
    how.write_text(json.dumps(LEARNING))
    bundle = Segmenter.load(model, threads=1).bundle
    others = {name: value * 2 for name, value in importance.items()}
    save_importance(importance_path(bundle), others, bundle.fingerprint, {})
    assert evaluate(*run, "--resume") == 2
    assert "importance: " in capsys.readouterr().err


def test_an_interrupted_sequence_gives_the_same_result(model, data, tmp_path, capsys):
    how = tmp_path / "how.json"
    how.write_text(json.dumps(LEARNING))
    options = ("--adapt", "both", "--learning", how)
    assert evaluate(model, data, tmp_path / "whole", *options) == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    (tmp_path / "parts" / "objects" / "disks" / "000002.json").unlink()
    assert evaluate(model, data, tmp_path / "parts", *options, "--resume") == 0
    assert records(tmp_path / "parts") == records(tmp_path / "whole")
    assert len(records(tmp_path / "whole")) == 3
    assert evaluate(model, data, tmp_path / "fixed") == 0
    assert records(tmp_path / "fixed") != records(tmp_path / "whole")
    assert "obeyed" in capsys.readouterr().out


def test_bad_hyperparameters_are_named(model, data, tmp_path, capsys):
    how = tmp_path / "how.json"
    how.write_text(json.dumps({"image": {**IMAGE, "steps": "many"}}))
    run = (model, data, tmp_path / "out", "--adapt", "image", "--learning", how)
    assert evaluate(*run) == 2
    assert "learning.image.steps: expected a whole number" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_working_size_changes_what_the_networks_see_and_nothing_else(model, photo):
    def loaded(side):
        config = EvaluationConfig(str(model), (DataSpec("a"),), long_side_px=side)
        return load_segmenter(config, 1)

    small = loaded(32)
    assert max(small.encode(photo).working_size) == 32
    assert small.bundle.fingerprint == loaded(None).bundle.fingerprint
    assert max(loaded(None).encode(photo).working_size) == 64


def _importance(*arguments):
    parser = argparse.ArgumentParser()
    importance_command.add_arguments(parser)
    return importance_command.run(parser.parse_args([str(argument) for argument in arguments]))


def test_the_importance_command_keeps_the_chosen_hyperparameters(data, tmp_path, capsys):
    bundle = write_adaptable(tmp_path / "m")
    chosen = tmp_path / "adapt.json"
    chosen.write_text(json.dumps({"layers": 2, "image": {**IMAGE, "steps": 4}}))
    arguments = (bundle, data, "--objects", 2, "--config", chosen)
    assert _importance(*arguments) == 0
    path = tmp_path / "m.importance.safetensors"
    assert capsys.readouterr().out.strip() == str(path)
    config = chosen_config(Segmenter.load(bundle, threads=1).bundle)
    assert (config.layers, config.image.steps, config.image.guidance) == (2, 4, "earlier")
    with pytest.raises(FileExistsError, match="--force"):
        _importance(*arguments)


def test_an_early_fusion_checkpoint_is_evaluated(data, tmp_path, capsys):
    torch.manual_seed(0)
    network = DeepLab(small_config(width=16, low_level_width=8, working_long_side_px=64))
    tensors = {f"model.{name}": value for name, value in network.state_dict().items()}
    checkpoint = tmp_path / "last"
    save_checkpoint(checkpoint, tensors, {"network": network.config.to_dict()})
    # what does not learn needs no importance
    assert evaluate(checkpoint, data, tmp_path / "without", "--limit", 1) == 0
    assert _importance(checkpoint, data, "--objects", 1) == 0
    assert (tmp_path / "last.importance.safetensors").is_file()
    how = tmp_path / "how.json"
    how.write_text(json.dumps({**LEARNING, "image": {**IMAGE, "steps": 1}}))
    for mode in ("none", "both"):
        options = ("--limit", 2, *(("--adapt", mode, "--learning", how) if mode == "both" else ()))
        assert evaluate(checkpoint, data, tmp_path / mode, *options) == 0
        method = json.loads((tmp_path / mode / "run.json").read_text())["method"]
        assert (method["kind"], method["adapt"]) == ("early-fusion", mode)
    assert evaluate(checkpoint, data, tmp_path / "out", "--long-side", 128) == 2
    assert "can neither be refined nor be given a working size" in capsys.readouterr().err


def test_the_committed_hyperparameters_can_be_read():
    path = ROOT / "configs" / "adaptation.json"
    # what ships beside the model is what was chosen
    chosen = build(AdaptConfig, read_json(path), "config")
    assert chosen == chosen_config(Segmenter.load("lite").bundle)
    initial = read_corrections_config(ROOT / "configs" / "deeplab_small.json")
    assert initial.network.width == 96
    # from where the file stands, not from where the command is given
    assert initial.data[0].path == str(ROOT / "configs" / "../data/train")
    assert initial.initial_weights.startswith(str(ROOT / "configs"))
    count = 0
    for file in (ROOT / "studies").glob("*.json"):
        if file.stem in ("published", "data"):
            continue
        study = read_study(file)
        for method in study.methods:
            config = study.config(method, study.data[0], Paths(*map(Path, "dmw")))
            if config.learning is not None:
                build(AdaptConfig, config.learning, f"{file.stem}: {method.label}")
                count += 1
    assert count > 20


def test_a_baseline_does_not_learn():
    config = EvaluationConfig("graph-cut", (DataSpec("a"),), adapt="image")
    with pytest.raises(ValueError, match="neither be adapted"):
        load_method(config)


def test_a_checkpoint_of_latent_diversity_is_to_be_exported(tmp_path):
    """One that is kept under the name of a study's model leaves that row out, and no more."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "state.json").write_text(json.dumps({"network": {"encoder": "vgg16"}}))
    with pytest.raises(BundleError, match="`trtseg export` makes a bundle of it"):
        load_method(EvaluationConfig(str(tmp_path / "kept"), (DataSpec("a"),)))
