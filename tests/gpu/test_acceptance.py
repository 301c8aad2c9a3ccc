"""`benchmarks/gpu_acceptance.sh --dry-run`: every line that needs no GPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytest.importorskip("torch")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_acceptance.sh"
posix = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def run(
    *arguments: object, script: Path = SCRIPT, **environment: str
) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", str(script), *map(str, arguments)],
        env={**os.environ, "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@posix
@pytest.mark.slow
def test_a_dry_run_writes_one_page(tmp_path: Path) -> None:
    done = run(tmp_path / "out", "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [step["step"] for step in found["steps"]] == [
        "machine", "clicks", "ops", "convolutions", "bench-lite", "bench-full", "kernels",
    ]  # fmt: skip
    assert {step["status"] for step in found["steps"]} == {0}
    assert set(found["results"]) == {"bench-lite", "bench-full", "convolutions", "kernels"}
    assert {one.name for one in (tmp_path / "out").iterdir()} == {
        "log.txt", "summary.json", "summary.md",
    }  # fmt: skip
    page = (tmp_path / "out" / "summary.md").read_text()
    for words in ("| clicks | passed |", "bench-lite, 60x80", "| f, dilation 128 |", "| click |",
                  "| hypercolumn | float16 |"):  # fmt: skip
        assert words in page
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "== ops: status 0" in log
    # on the card nothing is compiled that a processor could have compiled
    collected = log.partition("== ops:")[2].partition("== ops: status")[0].split("\n", 1)[1]
    assert "test_hypercolumn" in collected
    assert not any(word in collected for word in ("ptxas", "emulated", "results_lie"))


@posix
def test_a_failing_step_stops_no_other(tmp_path: Path) -> None:
    """An interpreter that fails at everything but the summary."""
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *gpu_summary*) exec {sys.executable} "$@";; esac\nexit 3\n'
    )
    python.chmod(0o755)
    done = run(tmp_path / "out", "--dry-run", PYTHON=str(python))
    assert done.returncode == 1
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert len(found["steps"]) == 7
    assert {step["status"] for step in found["steps"]} == {3}
    assert "| clicks | failed: status 3 |" in (tmp_path / "out" / "summary.md").read_text()


@posix
def test_what_does_not_fit_is_left_out(tmp_path: Path) -> None:
    script = tmp_path / "benchmarks" / SCRIPT.name
    script.parent.mkdir()
    script.write_text(SCRIPT.read_text().replace("deadline=3600", "deadline=0"))
    shutil.copy(SCRIPT.with_name("gpu_summary.py"), script.with_name("gpu_summary.py"))
    (tmp_path / "trtseg").symlink_to(SCRIPT.parents[1] / "trtseg")
    done = run(tmp_path / "out", "--dry-run", script=script)
    assert done.returncode == 1, "nothing ran"
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {step["status"] for step in found["steps"]} == {None}
    assert "| clicks | left out: no time was left |" in (tmp_path / "out/summary.md").read_text()


@posix
def test_usage_is_said() -> None:
    assert "gpu_acceptance.sh OUT [--dry-run]" in run().stdout
    assert run().returncode == 2


@posix
@pytest.mark.skipif(shutil.which("strip") is None, reason="needs binutils")
def test_what_travels_is_a_checkout_with_modules_within_a_limit(tmp_path: Path) -> None:
    """An interpreter that compiles nothing: its modules are other binaries."""
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\n"
        'if [ "$2" = venv ]; then\n'
        '  mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; cp /bin/true "$3/bin/pip"\n'
        "else\n"
        '  echo "$TRTSEG_CUDA $TRTSEG_CUDA_ARCHITECTURES" >built\n'
        "  for name in _cpu _cuda; do cp /bin/true trtseg/$name.cpython-312.so; done\n"
        "fi\n"
    )
    python.chmod(0o755)
    script, archive = SCRIPT.with_name("gpu_prebuild.sh"), tmp_path / "out.tar"
    command = ["bash", str(script), str(python), "90", str(archive), "tests/tolerances.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(archive) as opened:
        names = {name.removeprefix("./") for name in opened.getnames()}
        built = opened.extractfile("./built")
        assert built is not None
        assert built.read() == b"1 90\n"
    assert names >= {
        "trtseg/_cpu.cpython-312.so", "trtseg/_cuda.cpython-312.so", "tests/tolerances.py",
        "benchmarks/gpu_acceptance.sh", "export/bundle.py", "tests/gpu/test_cuda.py",
    }  # fmt: skip
    assert not any(name.startswith((".venv", "docs/", "models/")) for name in names)
    assert "MiB  _cuda.cpython-312.so" in done.stdout
    done = subprocess.run(
        command, env={**os.environ, "LIMIT_MIB": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "more than 1 MiB" in done.stderr
