"""The user study: its rules, its log, and the whole of it through a browser."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from trtseg.commands import study_users
from trtseg.evaluate.clicks import make_clicker
from trtseg.evaluate.methods import ModelMethod
from trtseg.runtime.segmenter import Segmenter
from trtseg.serve.refusals import NotFound
from trtseg.serve.users import report
from trtseg.serve.users.routes import routes
from trtseg.serve.users.simulate import simulate
from trtseg.serve.users.study import StudyConfig, StudyPhoto, UserStudy, read_config, tasks_of
from trtseg.types import Click

from .browsing import Page, chromium
from .conftest import picture, png
from .running import Running

pytest.importorskip("matplotlib")
CONFIG = StudyConfig(
    photos=(StudyPhoto("a", "a.png", "a-mask.png"), StudyPhoto("b", "b.png", "b-mask.png")),
    methods=("one", "two"), target=0.6, clicks=4,
)  # fmt: skip


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for seed, name in enumerate("ab"):
        (tmp_path / f"{name}.png").write_bytes(png(picture(seed)))
        mask = np.zeros((120, 160), np.uint8)
        cv2.ellipse(mask, (60 + 30 * seed, 60), (40, 30), 0, 0, 360, 255, -1)
        (tmp_path / f"{name}-mask.png").write_bytes(png(mask))
    return tmp_path


@pytest.fixture
def study(base: Path, segmenter) -> UserStudy:
    return UserStudy(CONFIG, base, base / "logs", lambda name: ModelMethod(segmenter))


def again(study: UserStudy, base: Path) -> UserStudy:
    method = next(iter(study._methods.values()))
    return UserStudy(CONFIG, base, study.folder, lambda name: method)


def test_every_photo_comes_under_every_method_in_orders_that_differ() -> None:
    seen = [tasks_of(CONFIG, number) for number in range(1, 9)]
    for tasks in seen:
        assert tasks[0].tutorial
        pairs = [(task.photo, task.method) for task in tasks[1:]]
        assert sorted(pairs) == [(photo, name) for photo in (0, 1) for name in ("one", "two")]
        assert {task.photo for task in tasks[1:3]} == {0, 1}
    assert seen[0] == tasks_of(CONFIG, 1)
    assert len({tuple(tasks) for tasks in seen}) > 3


def test_a_task_ends_at_the_target_or_the_last_click(study: UserStudy) -> None:
    key = study.begin()
    state = study.state(key)
    assert "method" not in json.dumps(state)
    with pytest.raises(ValueError, match="not finished"):
        study.next(key)
    while not state["finished"]:
        state = study.click(key, Click(5, 5, False))
    assert len(state["clicks"]) == 4
    with pytest.raises(ValueError, match="finished"):
        study.click(key, Click(60, 60))
    with pytest.raises(ValueError, match="after the tasks"):
        study.answer(key, [3] * 10)
    assert not study.next(key)["tutorial"]
    with pytest.raises(ValueError, match="inside"):
        study.click(key, Click(500, 5))


def test_a_restart_goes_on_with_the_same_masks(study: UserStudy, base: Path) -> None:
    key = study.begin()
    study.click(key, Click(5, 5, False))
    state = study.click(key, Click(20, 60, False))
    assert again(study, base).state(key) == state
    log = study.folder / f"{key}.jsonl"
    log.write_text(log.read_text() + '{"event": "cli')  # a crash in the middle of a line
    assert again(study, base).state(key) == state
    assert log.read_text().endswith("}\n")


@pytest.mark.parametrize("key", ["", "..", "../x", "001-", "001-zzzzzzzz", "999-00000000"])
def test_no_name_leads_elsewhere(study: UserStudy, key: str) -> None:
    with pytest.raises(NotFound):
        study.state(key)


def test_a_simulated_run_is_reported_and_reproduced(
    study: UserStudy, base: Path, segmenter
) -> None:
    texts = []
    for attempt in ("first", "second"):
        one = UserStudy(CONFIG, base, base / attempt, lambda name: ModelMethod(segmenter))
        for number in (1, 2):
            simulate(one, number)
        report.write(CONFIG, one.folder, base / f"{attempt}-report")
        place = base / f"{attempt}-report"
        texts.append(((place / "report.md").read_text(), (place / "figure6.svg").read_text()))
    assert texts[0] == texts[1]
    assert "2 participants, all of them simulated; 8 tasks" in texts[0][0]
    found = report.collect(CONFIG, base / "first")
    assert {name: len(rows) for name, rows in found["overlaps"].items()} == {"one": 4, "two": 4}
    assert all(len(row) == 4 for rows in found["overlaps"].values() for row in rows)
    assert len(found["sus"]) == 2


def test_the_usability_score() -> None:
    assert report.sus([5, 1] * 5) == 100
    assert report.sus([3] * 10) == 50
    assert report.sus([1, 5] * 5) == 0


def test_the_shipped_configuration_can_be_read() -> None:
    path = Path(__file__).parents[2] / "studies" / "users" / "shipped.json"
    config = read_config(path)
    assert all((path.parent / one.photo).exists() for one in config.photos)


@pytest.fixture
def tab() -> Iterator[object]:
    try:
        opened = chromium()
        browser = opened.__enter__()
    except (ImportError, FileNotFoundError) as error:
        pytest.skip(f"no browser to test the page in: {error}")
    yield browser.new_page(viewport={"width": 1280, "height": 800})
    opened.__exit__(None, None, None)


def test_a_participant_in_the_browser(tab, study: UserStudy, workspace, tmp_path: Path) -> None:
    with Running(workspace, lambda workspace: routes(study)) as running:
        page = Page(tab, running.url.replace("/?", "/page/study.html?"))
        tab.screenshot(path=tmp_path / "welcome.png")
        tab.click("#start")
        done = 0
        page.until("trtseg.state().phase === 'task'")
        while page.js("trtseg.state().phase") == "task":
            state = page.js("trtseg.state()")
            clicker = make_clicker("standard", study.truths[state["photo"]])
            mask = None
            while not page.js("trtseg.state().finished"):
                click = clicker.next_click(mask)
                count = page.js("trtseg.state().clicks.length")
                button = "left" if click.positive else "right"
                tab.mouse.click(*page.at(click.x, click.y), button=button)
                page.until(f"trtseg.state().clicks.length === {count + 1}")
                rows = page.js("[...trtseg.editor.objects[0].mask.data]")
                mask = np.array(rows, np.uint8).reshape(120, 160)
            if done == 1:  # whoever closes the page finds it as it was
                tab.reload()
                page.until("trtseg.state().phase === 'task' && trtseg.editor.image !== null")
                assert page.js("trtseg.state().finished")
            page.drawn()
            tab.screenshot(path=tmp_path / "task.png")
            tab.click("#next")
            done += 1
            page.until(f"trtseg.state().phase !== 'task' || !trtseg.state().finished || {done} > 9")
        assert done == len(tasks_of(CONFIG, 1))
        tab.screenshot(path=tmp_path / "questions.png")
        for index in range(10):
            tab.check(f"input[name=q{index}][value='4']")
        tab.click("#form button")
        page.until("trtseg.state().phase === 'done'")
        assert page.errors == []
    found = report.collect(CONFIG, study.folder)
    assert found["sus"] == [50]
    assert sum(len(rows) for rows in found["overlaps"].values()) == 4
    report.write(CONFIG, study.folder, tmp_path / "report")
    assert "System Usability Scale: 50.0" in (tmp_path / "report" / "report.md").read_text()


def test_every_method_runs_where_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = argparse.ArgumentParser()
    study_users.add_arguments(parser)
    given = ["study.json", "--output", "out", "--backend", "onnxruntime", "--device", "cpu"]
    args = parser.parse_args([*given, "--threads", "1"])
    asked = []
    load = Segmenter.load
    monkeypatch.setattr(
        Segmenter, "load", lambda name, **how: asked.append((name, how)) or load(name, **how)
    )
    study_users._method("lite", args)
    assert asked == [("lite", {"threads": 1, "backend": "onnxruntime", "device": "cpu"})]
    with pytest.raises(SystemExit):  # the methods name their models
        parser.parse_args([*given, "--model", "lite"])
