"""Files are data: nothing that reads one can run it, or take more than it was given."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "trtseg").rglob("*.py"), *(ROOT / "export").rglob("*.py")])
# Modules that run what they read.
RUNNING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve"}


def calls(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def wrong(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from (
            f"line {node.lineno}: imports {name}"
            for name in names
            if name.partition(".")[0] in RUNNING
        )
    for node, name in calls(path):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        last = name.rpartition(".")[2]
        if name in ("eval", "exec", "compile", "__import__"):
            yield f"line {node.lineno}: {name}"
        if name in ("torch.load", "torch.hub.load_state_dict_from_url") and (
            given.get("weights_only") != "True"
        ):
            yield f"line {node.lineno}: {name} without weights_only"
        if name in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
            yield f"line {node.lineno}: {name} without allow_pickle=False"
        if "." in name and (last == "read_bytes" or (last == "read" and not node.args)):
            yield f"line {node.lineno}: {name}, which takes whatever there is"


@pytest.mark.parametrize("path", SOURCES, ids=[str(p.relative_to(ROOT)) for p in SOURCES])
def test_reading_is_bounded_and_runs_nothing(path):
    assert list(wrong(path)) == []


def test_the_rule_finds_what_it_forbids(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(
        "import pickle\nfrom dill import load\neval('1')\ntorch.load(p)\nnp.load(p)\n"
        "p.read_bytes()\nf.read()\n"
    )
    assert len(list(wrong(path))) == 7
