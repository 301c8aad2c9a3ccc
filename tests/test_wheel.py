"""The wheel of `tools/wheels.sh`, where there is no compiler, and modules built in place."""

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
    assert wheel.stat().st_size < 24 * MIB
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


def test_modules_in_place_are_both(monkeypatch, tmp_path):
    """setuptools knows of `_cpu` alone: `_cuda` stayed in the build folder."""
    from setuptools import Distribution, Extension

    monkeypatch.syspath_prepend(ROOT / "tools")
    from cmake_build import CMakeBuild

    class Build(CMakeBuild):
        def build_extension(self, extension):
            folder = Path(self.get_ext_fullpath(extension.name)).parent
            folder.mkdir(parents=True)
            for name in ("_cpu", "_cuda"):
                (folder / self.get_ext_filename(name)).write_text(name)

    (tmp_path / "trtseg").mkdir()
    (tmp_path / "trtseg" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    extension = Extension("trtseg._cpu", sources=[])
    build = Build(Distribution({"packages": ["trtseg"], "ext_modules": [extension]}))
    build.inplace = True
    build.ensure_finalized()
    build.run()
    names = {path.name.partition(".")[0] for path in (tmp_path / "trtseg").glob("_c*")}
    assert names == {"_cpu", "_cuda"}
