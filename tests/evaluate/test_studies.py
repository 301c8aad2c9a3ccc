"""Studies: configurations that run, resume and render."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_model import write_tiny

from trtseg import cli
from trtseg.errors import DatasetError, TrtsegError
from trtseg.evaluate.comparison import change, paired
from trtseg.evaluate.methods import BASELINES
from trtseg.evaluate.records import read_json
from trtseg.evaluate.studies.models import make_models, training_configs
from trtseg.evaluate.studies.page import render_page, study_page
from trtseg.evaluate.studies.study import Paths, read_study, run_study
from trtseg.evaluate.timing import time_at_vga

from .methods import write_folder

STUDIES = Path(__file__).resolve().parents[2] / "studies"
NAMES = sorted({path.stem for path in STUDIES.glob("*.json")} - {"published", "data"})


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "data" / "photos", images=2)
    (tmp_path / "studies").mkdir()
    study = {
        "title": "A small study",
        "text": ["What it is."],
        "clicks": 3,
        "data": [
            {"name": "photos", "label": "Photos", "path": "photos", "note": "made for a test"},
            {"name": "absent", "label": "Absent", "path": "nowhere"},
        ],
        "methods": [
            {"label": "Matting", "model": "geodesic-matting", "group": "ours"},
            {"label": "Grab cut", "model": "grabcut", "group": "classical", "protocol": "random"},
            {"label": "Dream", "model": "no-such-model", "group": "learned"},
        ],
        "published": ["paper"],
    }
    published = {
        "paper": {
            "label": "Some paper",
            "training": "SBD",
            "source": "A. Author, 2018",
            "unconfirmed": ["photos"],
            "cells": {"photos": {"0.85": 3.2}},
        }
    }
    (tmp_path / "studies" / "1_small.json").write_text(json.dumps(study))
    (tmp_path / "studies" / "published.json").write_text(json.dumps(published))
    return tmp_path


def arguments(folder, *more):
    places = {
        "data": "data",
        "work": "work",
        "studies": "studies",
        "results": "docs/results",
        "page": "docs/results.md",
    }
    options = [text for name, place in places.items() for text in (f"--{name}", folder / place)]
    return ["study", "run", *(more or ["1_small"]), *map(str, options), "--quiet"]


def places(folder):
    return Paths(folder / "data", folder / "models", folder / "work")


def test_one_command_runs_and_renders(folder, capsys):
    assert cli.main(arguments(folder)) == 0
    page = (folder / "docs" / "results.md").read_text()
    assert "## A small study" in page
    assert "| **Matting** |" in page
    assert "| *Some paper (SBD)* | *3.20 / - ?* |" in page
    assert "| Photos (4 of 4) NoC@85 / NoC@90 |" in page
    assert "Not run: Dream." in page
    own = (folder / "docs" / "results" / "1_small.md").read_text()
    assert "# A small study" in own
    assert "| *Some paper (SBD)* | *3.20 / - ?* |" in own
    assert "Some paper (SBD): A. Author, 2018. Not checked against the source: Photos." in own
    assert "- Photos: made for a test" in own
    assert "- Dream, not run: missing: no-such-model" in own
    assert "ahead of" in own
    assert "1 of 2 other methods were not run on it" in own
    assert str(folder) not in page + own
    figure = folder / "docs" / "images" / "1_small_photos.svg"
    assert figure.exists()
    assert "../images/1_small_photos.svg" in own
    results = read_json(folder / "docs" / "results" / "1_small.json")
    assert set(results["rows"][0]["cells"]) == {"photos"}
    assert results["rows"][0]["cells"]["photos"]["objects"] == 4

    # a second run computes nothing and gives the same page
    before = {path: path.stat().st_mtime_ns for path in (folder / "work").rglob("*.json")}
    assert cli.main(arguments(folder)) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "work").rglob("*.json")}
    assert (folder / "docs" / "results.md").read_text() == page


def test_only_some_rows(folder):
    study = read_study(folder / "studies" / "1_small.json")
    paths = places(folder)
    results = run_study(study, paths, only=["Matting"], progress=False)
    assert results["rows"][0]["cells"]
    assert results["rows"][1]["missing"] == {"photos": "not run", "absent": "not run"}
    run = read_json(folder / "work" / "1_small" / "matting" / "photos" / "run.json")
    assert run["config"]["protocol"] == "standard"


def test_a_row_that_was_only_begun_does_not_hold_up_others(folder):
    study, paths = read_study(folder / "studies" / "1_small.json"), places(folder)
    run_study(study, paths, only=["Matting"], progress=False)
    shutil.rmtree(folder / "work" / "1_small" / "matting" / "photos" / "objects")
    other = study.methods[1].label
    results = run_study(study, paths, only=[other], progress=False)
    assert results["rows"][0]["missing"]["photos"] == "not run"
    assert results["rows"][1]["cells"]


def test_a_bad_image_is_not_hidden_as_not_run(folder):
    study = read_study(folder / "studies" / "1_small.json")
    file = folder / "data" / "photos" / "images" / "01.png"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(DatasetError, match=r"01\.png"):
        run_study(study, places(folder), progress=False)


def test_bad_studies(folder, capsys):
    file = folder / "studies" / "1_small.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "colour": "red"}))
    with pytest.raises(ValueError, match=r"1_small\.json: unknown colour"):
        read_study(file)
    twice = [content["methods"][0]] * 2
    file.write_text(json.dumps({**content, "methods": twice}))
    with pytest.raises(ValueError, match="method 'Matting' appears twice"):
        read_study(file)
    assert cli.main(arguments(folder, "2_large")) == 2
    assert "no such study" in capsys.readouterr().err


def results(**rows):
    """Results of a study of one data set: label to (group, clicks by object)."""

    def row(label, group, clicks):
        mean = float(np.mean(clicks))
        by_object = {str(index): value for index, value in enumerate(clicks)}
        cell = {
            "noc": {"0.85": {"mean": mean, "low": mean, "high": mean}},
            "objects": len(clicks), "expected": len(clicks), "available": 9,
            "failures": {"0.85": 0}, "failures_at_limit": {"0.85": 0}, "click_ms": None,
            "encode_ms": {"median": 1.0}, "seconds_per_click": None, "iou": [0.5],
            "iou_intervals": [[0.4, 0.6]], "clicks": {"0.85": by_object},
            "iou_1": {key: 1 / value for key, value in by_object.items()},
            "machine": {"processor": "P", "cores": 2},
        }  # fmt: skip
        return {"label": label, "group": group, "adapt": "none", "note": "", "missing": {},
                "cells": {"d": cell}}

    return {
        "study": "s", "title": "T", "text": ["Long."], "conclusion": "C.", "clicks": 20,
        "targets": [0.85], "published": [],
        "stop_at_target": True, "reference": None,
        "data": [{"name": "d", "label": "D", "note": "", "remark": "It is small."}],
        "rows": [row(label, *values) for label, values in rows.items()],
    }  # fmt: skip


def test_comparison_tells_where_ours_is_behind():
    study = results(ours=("ours", [4, 4, 5]), old=("classical", [3, 3, 3]))
    page = study_page(study, {})
    assert "- D: at NoC@85 ours is NOT ahead of old (-1.33 [-2.00, -1.00] clicks). It is sm" in page
    study = results(ours=("ours", [4, 4, 4]), old=("classical", [9, 9, 9]))
    assert "ours is ahead of every other method, of the nearest, old, by 5.00 clicks" in (
        study_page(study, {})
    )
    study = results(ours=("ours", [4, 4, 4]), old=("classical", [9, 4, 3]))
    assert "with 3 objects not for certain of old" in study_page(study, {})


def test_page_tells_that_a_set_is_reduced_and_objects_end_at_the_target():
    page = study_page(results(ours=("ours", [4, 4, 5])), {})
    assert "reduced to objects evenly spread over its order" in page
    assert "(D 3 of 9)" in page
    assert "An object ends once its IoU reaches 85 %" in page
    assert "IoU@1 |" in page
    assert "IoU@5" not in page


def test_changes_from_the_reference():
    study = results(full=("ablation", [4, 4, 4]), less=("ablation", [8, 8, 8]))
    study["reference"] = "full"
    full, less = (row["cells"]["d"] for row in study["rows"])
    less["change"] = change(less, full)
    assert less["change"]["0.85"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    page = study_page(study, {})
    assert "| less | -0.125 [-0.125, -0.125] | +100.0% [+100.0%, +100.0%] |" in page


def test_a_difference_is_over_common_objects():
    found = paired({"0": 3, "2": 5, "10": 9}, {"2": 4, "10": 6, "11": 1})
    assert found is not None
    assert (found["mean"], found["objects"]) == (2.0, 2)
    assert paired({"0": 1}, {"1": 1}) is None


class FakeCommands:
    """Does what training and export leave behind; fails at the command that has `fail_at`."""

    def __init__(self, fail_at=""):
        self.fail_at = fail_at
        self.seen = []

    def __call__(self, command):
        self.seen.append(command)
        if "train" in command:
            (Path(command[command.index("--output") + 1]) / "last").mkdir(
                parents=True, exist_ok=True
            )
        if self.fail_at and self.fail_at in command:
            return 2
        if "export" in command:
            Path(command[command.index("export") + 2]).touch()
        return 0


@pytest.fixture
def trained(folder):
    """A study of one method that is trained and one that is left out."""
    base = {"data": {"path": "train"}, "initial_weights": "bundle:lite", "stages": [{"steps": 9}]}
    (folder / "base.json").write_text(json.dumps(base))
    file = folder / "studies" / "1_small.json"
    content = json.loads(file.read_text())
    content["training"] = {"base": "../base.json", "batch": 2}
    content["methods"] = [
        {"label": "A", "model": "a", "training": {"stages.0.steps": 3}},
        {"label": "B", "model": "b", "training": {}, "omitted": "too slow"},
    ]
    file.write_text(json.dumps(content))
    return read_study(file), file.parent, places(folder)


def test_models_are_trained_once_and_continued(trained, folder):
    study, studies, paths = trained
    run = FakeCommands(fail_at="export")
    with pytest.raises(TrtsegError, match="a: export failed"):
        make_models(study, studies, paths, run=run)
    assert "--resume" not in run.seen[0]
    config = json.loads((folder / "work/training/a/config.json").read_text())
    assert config["stages"] == [{"steps": 3}]
    assert config["batch"] == 2
    assert config["data"]["path"] == str(folder / "train")
    assert config["initial_weights"] == "bundle:lite"

    run = FakeCommands()
    assert make_models(study, studies, paths, run=run) == [folder / "models/a.trtseg"]
    assert "--resume" in run.seen[0]
    assert make_models(study, studies, paths, run=run) == []
    assert len(run.seen) == 2
    with pytest.raises(ValueError, match="trains a with another configuration"):
        make_models(study, studies, paths, data=folder / "elsewhere", run=run)


def test_an_omitted_method_is_shown_with_its_reason(trained):
    study, _, paths = trained
    found = run_study(study, paths, progress=False)
    assert found["rows"][1]["missing"]["photos"] == "too slow"
    assert "- B, not run: too slow." in study_page(found, {"paper": {
        "label": "P", "training": "T", "source": "S", "cells": {}}})


def test_the_short_page_has_a_conclusion_and_what_was_measured(tmp_path):
    study = results(ours=("ours", [4, 4, 5]), old=("classical", [3, 3, 3]))
    study["rows"].append({**study["rows"][0], "label": "large", "cells": {}, "missing": {}})
    written = render_page([study], {}, tmp_path / "results.md")
    assert [file.relative_to(tmp_path).as_posix() for file in written[-2:]] == [
        "results/s.md", "results.md"
    ]  # fmt: skip
    own, page = (file.read_text() for file in written[-2:])
    assert "## T\n\nC.\n\n| method |" in page
    assert "[Everything else](results/s.md)" in page
    assert "Not run: large." in page
    assert "| large |" not in page
    assert "# T\n\nWritten by" in own
    assert "C.\n\nLong.\n\n| method |" in own
    assert "**large** | not run |" in own


def test_page_is_reproducible(tmp_path, folder):
    study = read_study(folder / "studies" / "1_small.json")
    results = run_study(study, places(folder), progress=False)
    published = read_json(folder / "studies" / "published.json")
    pages = []
    for name in ("a", "b"):
        files = render_page([results], published, tmp_path / name / "results.md")
        pages.append([file.read_bytes() for file in files])
    assert pages[0] == pages[1]


def test_time_at_vga():
    image = np.zeros((60, 80, 3), np.uint8)
    found = time_at_vga(BASELINES["geodesic-matting"](), image, repeats=2)
    assert found.keys() == {"encode_ms", "click_ms"}
    assert found["click_ms"] > 0


@pytest.mark.parametrize("name", NAMES)
def test_shipped_studies_are_valid(name):
    study = read_study(STUDIES / f"{name}.json")
    published = read_json(STUDIES / "published.json")
    assert set(study.published) <= published.keys()
    for entry in published.values():
        assert entry["source"]
        assert set(entry.get("unconfirmed", ())) <= entry["cells"].keys()
    paths = Paths(Path("data"), Path("models"), Path("work"))
    for method in study.methods:
        for data in study.data:
            assert study.config(method, data, paths).clicks == study.clicks


def test_a_data_set_that_nobody_described_is_named(folder):
    path = folder / "studies" / "1_small.json"
    values = json.loads(path.read_text())
    path.with_name("data.json").write_text(json.dumps({"known": values["data"][0]}))
    path.write_text(json.dumps(values | {"data": ["known", {"set": "known", "name": "again"}]}))
    first, second = read_study(path).data
    assert first == dataclasses.replace(second, name=first.name)
    path.write_text(json.dumps(values | {"data": ["other"]}))
    with pytest.raises(ValueError, match=r"1_small\.json: data set 'other' is not in .*data\.json"):
        read_study(path)


def test_training_configurations_of_the_shipped_studies_are_valid(tmp_path):
    read_config = pytest.importorskip("trtseg.train.config").read_config
    count = 0
    for name in NAMES:
        study = read_study(STUDIES / f"{name}.json")
        for model, config in training_configs(study, STUDIES).items():
            path = tmp_path / f"{name}_{model}.json"
            path.write_text(json.dumps(config))
            parsed = read_config(path)
            assert Path(parsed.data[0].path).is_absolute()
            count += 1
    assert count >= 10


def test_only_methods_and_data_sets_meet(folder):
    study, paths = read_study(folder / "studies" / "1_small.json"), places(folder)
    results = run_study(study, paths, only=[study.methods[0].label, study.data[0].name],
                        progress=False)  # fmt: skip
    run = [(row["label"], name) for row in results["rows"] for name in row["cells"]]
    assert run == [(study.methods[0].label, study.data[0].name)]


def test_numbers_of_a_model_that_was_replaced_are_not_read(folder):
    """As of one that ships, after it was trained anew: its old cells lie in the work directory."""
    path, paths = folder / "studies" / "1_small.json", places(folder)
    values = json.loads(path.read_text())
    values["methods"].append({"label": "Tiny", "model": "tiny"})
    path.write_text(json.dumps(values))
    study = read_study(path)
    model = write_tiny(paths.models / "tiny.trtseg")
    run_study(study, paths, only=["Tiny", "photos"], progress=False)
    found = run_study(study, paths, only=["Matting"], progress=False)
    assert found["rows"][-1]["cells"]
    model.unlink()
    write_tiny(model, seed=1)
    with pytest.raises(ValueError, match=r"tiny/photos: of another model than .*tiny\.trtseg is"):
        run_study(study, paths, only=["Matting"], progress=False)


def test_only_an_unknown_name(folder):
    study, paths = read_study(folder / "studies" / "1_small.json"), places(folder)
    with pytest.raises(ValueError, match=r"no method or data set 'Snake'; methods: .*Matting"):
        run_study(study, paths, only=["Snake"], progress=False)
