"""Studies: configurations that run, resume and render."""

import json
from pathlib import Path

import numpy as np
import pytest

from trtseg.errors import DatasetError
from trtseg.evaluate.methods import BaselineMethod
from trtseg.evaluate.records import read_json
from trtseg.evaluate.results_page import render_page, study_section
from trtseg.evaluate.studies import main, study_files
from trtseg.evaluate.study import Paths, read_study, run_study, time_at_vga, training_configs

from .methods import write_folder

STUDIES = Path(__file__).resolve().parents[2] / "studies"


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
    return ["run", *map(str, options), "--quiet", *more]


def test_one_command_runs_and_renders(folder, capsys):
    assert main(arguments(folder)) == 0
    page = (folder / "docs" / "results.md").read_text()
    assert "## A small study" in page
    assert "| **Matting** |" in page
    assert "| *Some paper (SBD)* | *3.20 / -* |" in page
    assert "- Photos: made for a test" in page
    assert "- Dream: missing: no-such-model" in page
    assert "not run" in page
    assert "ahead of the best other method measured here, Grab cut" in page
    assert str(folder) not in page
    figure = folder / "docs" / "images" / "1_small_photos.svg"
    assert figure.exists()
    assert "images/1_small_photos.svg" in page
    results = read_json(folder / "docs" / "results" / "1_small.json")
    assert set(results["rows"][0]["cells"]) == {"photos"}
    assert results["rows"][0]["cells"]["photos"]["objects"] == 4

    # a second run computes nothing and gives the same page
    before = {path: path.stat().st_mtime_ns for path in (folder / "work").rglob("*.json")}
    assert main(arguments(folder)) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "work").rglob("*.json")}
    assert (folder / "docs" / "results.md").read_text() == page


def test_only_some_rows(folder):
    study = read_study(folder / "studies" / "1_small.json")
    paths = Paths(folder / "data", None, folder / "work")
    results = run_study(study, paths, only=["Matting"], progress=False)
    assert results["rows"][0]["cells"]
    assert results["rows"][1]["missing"] == {"photos": "not run", "absent": "not run"}
    run = read_json(folder / "work" / "1_small" / "matting" / "photos" / "run.json")
    assert run["config"]["protocol"] == "standard"


def test_a_bad_image_is_not_hidden_as_not_run(folder):
    study = read_study(folder / "studies" / "1_small.json")
    file = folder / "data" / "photos" / "images" / "01.png"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(DatasetError, match=r"01\.png"):
        run_study(study, Paths(folder / "data", None, folder / "work"), progress=False)


def test_bad_studies(folder, capsys):
    file = folder / "studies" / "1_small.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "colour": "red"}))
    with pytest.raises(ValueError, match=r"1_small\.json: not a study .*colour"):
        read_study(file)
    twice = [content["methods"][0]] * 2
    file.write_text(json.dumps({**content, "methods": twice}))
    with pytest.raises(ValueError, match="method 'Matting' appears twice"):
        read_study(file)
    assert main(arguments(folder, "2_large")) == 2
    assert "no such study" in capsys.readouterr().err


def test_comparison_tells_where_ours_is_behind():
    def row(label, group, value):
        noc = {"0.85": {"mean": value, "low": value, "high": value}}
        cell = {
            "noc": noc, "objects": 1, "expected": 1, "failures": {"0.85": 0},
            "failures_at_limit": {"0.85": 0}, "click_ms": None, "encode_ms": {"median": 1.0},
            "seconds_per_click": None, "machine": {"processor": "P", "cores": 2},
        }  # fmt: skip
        return {"label": label, "group": group, "note": "", "missing": {}, "cells": {"d": cell}}

    study = {
        "study": "s", "title": "T", "text": [], "clicks": 20, "targets": [0.85], "published": [],
        "data": [{"name": "d", "label": "D", "note": ""}],
        "rows": [row("ours", "ours", 4.0), row("old", "classical", 3.0)],
    }  # fmt: skip
    assert "ours (4.00) is NOT ahead of the best other method measured here, old (3.00)" in (
        study_section(study, {})
    )
    study["rows"][1] = row("old", "classical", 5.0)
    assert "ours (4.00) is ahead of" in study_section(study, {})


def test_page_is_reproducible(tmp_path, folder):
    study = read_study(folder / "studies" / "1_small.json")
    results = run_study(study, Paths(folder / "data", None, folder / "work"), progress=False)
    published = read_json(folder / "studies" / "published.json")
    pages = []
    for name in ("a", "b"):
        files = render_page([results], published, tmp_path / name / "results.md")
        pages.append([file.read_bytes() for file in files])
    assert pages[0] == pages[1]


def test_time_at_vga():
    image = np.zeros((60, 80, 3), np.uint8)
    found = time_at_vga(BaselineMethod("geodesic-matting"), image, repeats=2)
    assert found.keys() == {"encode_ms", "click_ms"}
    assert found["click_ms"] > 0


@pytest.mark.parametrize("name", list(study_files(STUDIES)))
def test_shipped_studies_are_valid(name):
    study = read_study(STUDIES / f"{name}.json")
    published = read_json(STUDIES / "published.json")
    assert set(study.published) <= published.keys()
    paths = Paths(Path("data"), None, Path("work"))
    for method in study.methods:
        for data in study.data:
            assert study.config(method, data, paths).clicks == 20


def test_training_configurations_of_the_shipped_studies_are_valid(tmp_path):
    read_config = pytest.importorskip("trtseg.train.config").read_config
    count = 0
    for name, file in study_files(STUDIES).items():
        for model, config in training_configs(read_study(file), STUDIES).items():
            path = tmp_path / f"{name}_{model}.json"
            path.write_text(json.dumps(config))
            parsed = read_config(path)
            assert Path(parsed.data[0].path).is_absolute()
            count += 1
    assert count > 15
