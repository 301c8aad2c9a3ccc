"""Training on a GPU from a pack, at toy size on the CPU: pack, train, resume, export, evaluate."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")

from trtseg import cli
from trtseg.parse import read_derived
from trtseg.train.config import parse_config

ROOT = Path(__file__).parents[2]
SMALL = {
    "encoder": "none", "width": 8, "dilations": [1, 2], "candidates": 2, "previous_mask": True,
    "region": True, "select_width": 8, "select_dilations": [1], "working_long_side_px": 64,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_pack_train_resume_export_evaluate(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for folder in ("images", "masks"):
        (data / folder).mkdir(parents=True)
    for number in range(3):
        labels = np.zeros((48, 64), np.uint8)
        cv2.circle(labels, (20 + 8 * number, 24), 12, 1, -1)
        cv2.imwrite(str(data / "images" / f"{number}.png"), cv2.merge([labels * 150 + 40] * 3))
        cv2.imwrite(str(data / "masks" / f"{number}.png"), labels)
    shipped = read_derived(ROOT / "configs" / "lite_gpu.json")
    shipped.pop("initial_weights")
    toy = {
        **shipped, "network": SMALL, "batch": 2, "data": {"path": "pack.safetensors"},
        "crop": {**shipped["crop"], "size": 32, "object_side": [12, 30]},
        "stages": [{"trains": "segment", "steps": 2}, {"trains": "select", "steps": 1}],
    }  # fmt: skip
    (tmp_path / "toy.json").write_text(json.dumps(toy))
    (tmp_path / "source.json").write_text(json.dumps({**toy, "data": {"path": str(data)}}))
    out = tmp_path / "out"
    for _ in range(3):  # a step each, and on
        done = subprocess.run(
            ["bash", str(ROOT / "benchmarks" / "gpu_training.sh"), str(out), "--dry-run"],
            env={**os.environ, "PYTHON": sys.executable, "CONFIG": str(tmp_path / "toy.json"),
                 "SOURCE": str(tmp_path / "source.json"),
                 "PACK": str(tmp_path / "pack.safetensors"), "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "model" / "state.json").is_file()
    bundle = tmp_path / "toy.trtseg"
    assert cli.main(["export", str(out / "model"), str(bundle), "--fp32-only"]) == 0
    assert cli.main(["evaluate", "--model", str(bundle), "--data", str(data), "--clicks", "2",
                     "--output", str(tmp_path / "evaluated"), "--quiet"]) == 0


@pytest.mark.parametrize("name", ["lite_gpu", "lite_h100", "full_gpu"])
def test_the_shipped_configurations_are_sound(name: str) -> None:
    config = parse_config(read_derived(ROOT / "configs" / f"{name}.json"))
    assert config.device_data
    assert config.bf16
