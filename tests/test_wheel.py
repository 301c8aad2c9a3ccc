"""The wheel that `tools/wheels.sh` makes, where there is no compiler."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="auditwheel repairs ELF files")
def test_the_wheel_runs_without_a_compiler(tmp_path):
    environment = {**os.environ, "TRTSEG_WHEELS": str(tmp_path / "dist")}
    environment.pop("PYTHONPATH", None)
    subprocess.run([ROOT / "tools" / "wheels.sh", sys.executable], env=environment, check=True)
    (wheel,) = (tmp_path / "dist").glob("trtseg-*.whl")
    assert "manylinux" in wheel.name
    assert wheel.stat().st_size < 20 * MIB
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("trtseg/_cpu.") for name in names)
    assert not any("_cuda." in name or name.endswith((".cpp", ".cu", ".h")) for name in names)

    fresh = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", fresh], check=True)
    pip = [fresh / "bin" / "pip", "install", "--quiet", "--no-deps", wheel]
    subprocess.run(pip, env=environment, check=True)
    # What trtseg depends on comes from here: to fetch it again would test the network.
    (library,) = fresh.glob("lib/python*/site-packages")
    here = [path for path in sys.path if path.endswith("site-packages")]
    (library / "dependencies.pth").write_text("\n".join(here), encoding="utf-8")
    bare = {**environment, "PATH": str(fresh / "bin")}
    assert shutil.which("cc", path=bare["PATH"]) is shutil.which("g++", path=bare["PATH"]) is None
    picture = tmp_path / "demo.png"
    subprocess.run(
        [fresh / "bin" / "trtseg", "demo", "-o", picture], env=bare, cwd=tmp_path, check=True
    )
    assert picture.stat().st_size > 10_000
    told = subprocess.run(
        [fresh / "bin" / "python", "-c", "import trtseg._cpu; print(trtseg._cpu.__file__)"],
        env=bare, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(told.stdout.strip()).is_relative_to(fresh)
