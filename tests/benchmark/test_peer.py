"""The peer of `trtseg bench`: another interpreter's, of which stand-ins are programs here."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_model import write_tiny

from trtseg.benchmark import peer, report
from trtseg.cli import main

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs scripts that are programs")
FAST = ["--repeats", "2", "--warmup", "0", "--clicks", "3", "--size", "60x80", "--threads", "1"]


def program(path: Path, code: str) -> str:
    """A Python program that stands for the peer's interpreter."""
    path.write_text(f"#!{sys.executable}\n{textwrap.dedent(code)}")
    path.chmod(0o755)
    return str(path)


@posix
def test_the_peer_is_measured_by_its_own_interpreter(tmp_path: Path, capsys) -> None:
    python = program(tmp_path / "python", """
        import json, sys
        import numpy as np
        script, job, result, *options = sys.argv[1:]
        assert script.endswith("peer.py")
        assert options == ["--threads=1", "--repeats=2"]
        with np.load(job) as job:
            assert job["image"].shape == (60, 80, 3) and job["image"].dtype == np.uint8
            assert job["clicks"].shape == (3, 3) and set(job["clicks"][:, 2]) == {0, 1}
        phases = {"encode": [700.0, 900.0], "click": [70.0, 90.0]}
        open(result, "w").write(json.dumps({"phases": phases, "note": "MobileSAM, imaginary"}))
    """)  # fmt: skip
    model, path = write_tiny(tmp_path / "tiny"), tmp_path / "result.json"
    assert main(["bench", str(model), *FAST, "--peer", python, "--json", str(path)]) == 0
    result = report.read(path)
    assert result["peer"] == "MobileSAM, imaginary"
    (run,) = result["runs"]
    assert run["peer"]["encode"]["p50"] == 800
    assert run["peer"]["click"]["p50"] == 80
    table = capsys.readouterr().out
    assert "peer encode" in table
    assert "peer: MobileSAM, imaginary" in table


@posix
def test_a_missing_or_failing_peer_is_told_in_one_line(tmp_path: Path, capsys) -> None:
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
    model = write_tiny(tmp_path / "tiny")
    for python, words in (
        (missing, "has no ultralytics: pip install ultralytics in an environment of its own"),
        (failing, "RuntimeError: no such thing"),
        (str(tmp_path / "nowhere"), "No such file or directory"),
    ):
        assert main(["bench", str(model), *FAST, "--peer", python]) != 0
        (line,) = [line for line in capsys.readouterr().err.splitlines() if words in line]
        assert python in line


def test_the_peer_works_as_its_own_predictor_does() -> None:
    """The shapes at every joint, with stand-ins for the three networks."""
    torch = pytest.importorskip("torch")
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
    phases = peer.measure(network, image, clicks, 2)
    assert [len(phases[name]) for name in ("encode", "click")] == [2, 4]
    assert seen[peer.WARM_UP :] == [[1], [1, 0], [1], [1, 0]]
    points = torch.tensor([[[102.4, 204.8]]])
    mask = peer.answer(network, "embedding", points, torch.ones(1, 1).int(), (50, 100))
    assert mask.shape == (50, 100)
    assert mask[:, :49].all()
    assert not mask[:, 51:].any()
