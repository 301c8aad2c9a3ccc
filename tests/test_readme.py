"""What the documents show is run as it stands there."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import threading
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import cv2
import numpy as np
import pytest

from trtseg import Segmenter, bundle, cli

ROOT = Path(__file__).parents[1]
DATA = ROOT / "trtseg" / "data"
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ROOT / "studies" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
RUN_HERE = ("segment", "demo", "info")
needs_lite = pytest.mark.skipif("lite" not in bundle.names(), reason="no lite model in the package")


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.M | re.S)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(DATA / "coffee.jpg", "photo.jpg")
    return tmp_path


@needs_lite
@pytest.mark.parametrize("name", ["README.md", "docs/embedding.md"])
def test_python_examples_run(workplace: Path, name: str) -> None:
    names: dict[str, object] = {}
    for number, block in enumerate(blocks(ROOT / name, "python")):
        exec(compile(block, f"{name}, example {number + 1}", "exec"), names)
    if name == "README.md":
        assert set(np.unique(cv2.imread("mask.png", cv2.IMREAD_UNCHANGED))) == {0, 255}


@needs_lite
def test_clicks_that_come_fast_and_early_all_count() -> None:
    """The guide's tool: four clicks 10 ms apart while the image is still being encoded."""
    names: dict[str, Any] = {}
    exec(blocks(ROOT / "docs" / "embedding.md", "python")[0], names)
    segmenter = Segmenter.load("lite")
    image = cv2.imread(str(DATA / "coffee.jpg"))
    encodings = threading.Event()
    encode = segmenter.encode

    def slow(*arguments: Any, **options: Any) -> Any:
        encodings.wait(30)
        return encode(*arguments, **options)

    shown: list[np.ndarray] = []
    errors: list[Exception] = []
    tool = names["SelectionTool"](
        segmenter,
        on_mask=lambda mask, box: shown.append(mask),
        on_preview=lambda mask: None,
        on_error=errors.append,
    )
    places = [(277, 215, True), (60, 60, False), (300, 180, True), (540, 350, False)]
    segmenter.encode = slow  # type: ignore[method-assign]
    tool.open(image, "BGR")
    for x, y, positive in places:
        tool.poll()
        tool.click(x, y, positive)
        sleep(0.01)
    assert tool.session is None, "not encoded yet"
    encodings.set()
    deadline = monotonic() + 30
    while (tool.session is None or len(tool.session.clicks) < 4) and monotonic() < deadline:
        tool.poll()
        sleep(0.001)
    tool.session.wait()
    tool.poll()
    assert not errors
    session = segmenter.session(encode(image, "BGR"))
    for x, y, positive in places:
        p = session.add_click(x, y, positive)
    assert [(c.x, c.y, c.positive) for c in tool.session.clicks] == places
    np.testing.assert_array_equal(tool.session.prediction.mask, p.mask)
    np.testing.assert_array_equal(shown[-1], p.mask)


def commands(path: Path) -> list[list[str]]:
    lines = "\n".join(blocks(path, "bash")).splitlines()
    found = [part.strip() for line in lines for part in line.split("&&")]
    return [shlex.split(part)[1:] for part in found if part.startswith("trtseg ")]


@needs_lite
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_run_or_at_least_parse(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    for words in commands(path):
        if words[0] not in RUN_HERE or "mine.trtseg" in words:
            module = importlib.import_module(cli.COMMANDS[words[0]][0])
            monkeypatch.setattr(module, "run", lambda args: 0)
        assert cli.main(words) == 0, words
        monkeypatch.undo()
        monkeypatch.chdir(workplace)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_readme_names_every_dependency_and_extra() -> None:
    text = (ROOT / "README.md").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    dependencies = re.search(r"^dependencies = \[(.*?)^\]", project, re.M | re.S)[1]
    for name in re.findall(r'"([A-Za-z0-9-]+)', dependencies):
        assert f"| {name} |" in text
    extras = re.search(r"optional-dependencies\]\n(.*?)^\[", project, re.M | re.S)[1]
    for name in re.findall(r"^([\w-]+) = ", extras, re.M):
        assert f"`{name}`" in text
