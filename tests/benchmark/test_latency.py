"""`benchmarks/latency.py`: its plumbing, on a small model and without the peer."""

from __future__ import annotations

import importlib.util
import json
import sys
import textwrap
from argparse import Namespace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from tiny_model import write_tiny

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs scripts that are programs")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program(path: Path, code: str) -> Path:
    """A Python program that stands for the peer's interpreter."""
    path.write_text(f"#!{sys.executable}\n{textwrap.dedent(code)}")
    path.chmod(0o755)
    return path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("matplotlib")
    latency = script("latency")
    model = write_tiny(tmp_path / "tiny")

    def run(*words: object) -> dict:
        fixed = ["--output", tmp_path / "out", "--model", model, "--threads", 1, "--sizes", "VGA",
                 "--clicks", 2, "--encodes", 2, "--seconds", 1]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["latency.py", *map(str, (*fixed, *words))])
        assert latency.main() == 0
        return json.loads((tmp_path / "out.json").read_text())

    return run


@posix
def test_the_peer_is_measured_by_its_own_interpreter(run, tmp_path: Path) -> None:
    peer = program(tmp_path / "python", """
        import json, sys
        import numpy as np
        script, job, result, *options = sys.argv[1:]
        assert script.endswith("peer.py")
        assert options == ["--threads=1", "--clicks=2", "--encodes=2", "--seconds=1.0"]
        with np.load(job) as job:
            assert job["image"].shape == (480, 640, 3) and job["image"].dtype == np.uint8
            assert job["clicks"].shape == (10, 3) and set(job["clicks"][:, 2]) == {0, 1}
        phases = {"encode": [700.0, 900.0], "click": [70.0, 90.0]}
        open(result, "w").write(json.dumps({"phases": phases, "note": "MobileSAM, imaginary"}))
    """)  # fmt: skip
    result = run("--methods", "trtseg", "peer", "--peer-python", peer)
    assert result["notes"] == ["MobileSAM, imaginary"]
    rows = {(each["method"], each["phase"]): each for each in result["rows"]}
    assert rows["MobileSAM (random weights)", "encode"]["p50_ms"] == 800
    assert rows["MobileSAM (random weights)", "click"]["p50_ms"] == 80
    assert rows["trtseg", "click"]["samples"] == 2
    table = (tmp_path / "out.md").read_text()
    assert "| MobileSAM (random weights) | VGA | encode | 800.0 |" in table
    assert table.endswith("\nMobileSAM, imaginary\n")
    assert (tmp_path / "out.png").stat().st_size > 1000


@posix
def test_a_missing_or_failing_peer_is_left_out_with_a_note(run, tmp_path: Path) -> None:
    missing = program(tmp_path / "missing", """
        import runpy, sys
        sys.modules["ultralytics"] = None  # an import of it fails
        sys.argv = sys.argv[1:]
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as stop:
            sys.exit(stop.code)
    """)
    failing = program(tmp_path / "failing", "raise RuntimeError('no such thing')")
    for peer, words in (
        (missing, "has no ultralytics: pip install ultralytics in an environment of its own"),
        (failing, "peer.py: RuntimeError: no such thing"),
        (tmp_path / "nowhere", "No such file or directory"),
    ):
        result = run("--methods", "grabcut", "peer", "--peer-python", peer)
        assert {each["method"] for each in result["rows"]} == {"grabcut"}
        (note,) = result["notes"]
        assert note.startswith("peer VGA: left out, ")
        assert words in note


def test_the_peer_works_as_its_own_predictor_does() -> None:
    """The shapes at every joint, with stand-ins for the three networks."""
    torch = pytest.importorskip("torch")
    peer = script("peer")
    seen = []

    class PromptEncoder:
        def __call__(self, points, boxes, masks):
            assert boxes is masks is None
            coordinates, labels = points
            seen.append(labels[0].tolist())
            torch.testing.assert_close(coordinates[0, 0], torch.tensor([102.4, 204.8]))
            return "sparse", "dense"

        def get_dense_pe(self):
            return "positions"

    def decode(image_embeddings, **prompts):
        assert image_embeddings == "embedding"
        assert set(prompts.values()) == {"positions", "sparse", "dense", True}
        logits = torch.full((1, 3, 256, 256), -1.0)
        logits[:, 1, :, :128] = 1  # the left half, by the mask with the best score
        return logits, torch.tensor([[0.1, 0.9, 0.2]])

    def encode(x):
        assert x.shape == (1, 3, 1024, 1024)
        assert x[..., 512:, :].abs().max() == 0
        return "embedding"

    network = SimpleNamespace(
        pixel_mean=torch.zeros(3, 1, 1), pixel_std=torch.ones(3, 1, 1),
        image_encoder=encode, prompt_encoder=PromptEncoder(), mask_decoder=decode,
    )  # fmt: skip
    image = np.full((50, 100, 3), 9, np.uint8)
    clicks = np.array([(10, 20, 1), (30, 40, 0)], float)
    phases = peer.measure(network, image, clicks, Namespace(clicks=3, encodes=2, seconds=60))
    assert [len(phases[name]) for name in ("encode", "click")] == [2, 3]
    assert seen[peer.WARM_UP :] == [[1], [1, 0], [1]]
    points = torch.tensor([[[102.4, 204.8]]])
    mask = peer.answer(network, "embedding", points, torch.ones(1, 1).int(), (50, 100))
    assert mask.shape == (50, 100)
    assert mask[:, :49].all()
    assert not mask[:, 51:].any()
