"""The native modules: one CMake run and what it installs, for the setup.py of both wheels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parents[1]


class CMakeBuild(build_ext):
    """`_cpu` and, where nvcc is found, `_cuda`.

    Environment: TRTSEG_CUDA=0|1 leaves `_cuda` out or insists on it, TRTSEG_CUDA=only builds it
    alone; TRTSEG_CUDA_ARCHITECTURES (such as "90" or "75;86") is what nvcc compiles for, by default
    this machine's cards, or the common ones where there is none; TRTSEG_WERROR=1.
    """

    def copy_extensions_to_source(self) -> None:
        """Where modules are built in place: `_cuda`, too, which setuptools does not know of since
        it may be missing."""
        super().copy_extensions_to_source()
        name = self.extensions[0].name
        built = Path(self.build_lib, *name.split(".")[:-1])
        package = Path(self.get_ext_fullpath(name)).parent
        for module in built.glob("_cuda.*"):
            shutil.copy2(module, package)

    def build_extension(self, extension: Extension) -> None:
        import pybind11

        package = Path(self.get_ext_fullpath(extension.name)).resolve().parent
        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        package.mkdir(parents=True, exist_ok=True)
        options = [
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DCMAKE_INSTALL_PREFIX={package}",
            "-DCMAKE_BUILD_TYPE=Release",
        ]
        for name in ("TRTSEG_CUDA", "TRTSEG_CUDA_ARCHITECTURES", "TRTSEG_WERROR"):
            if name in os.environ:
                options.append(f"-D{name}={os.environ[name].replace(',', ';')}")
        # In an isolated build the last build's ninja and pybind11 are gone: start afresh.
        (build / "CMakeCache.txt").unlink(missing_ok=True)
        generator = ["-G", "Ninja"] if shutil.which("ninja") else []
        subprocess.run(["cmake", *generator, "-S", ROOT, "-B", build, *options], check=True)
        jobs = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
        run = ["cmake", "--build", build, "--config", "Release", "--parallel", jobs]
        subprocess.run(run, check=True)
        subprocess.run(["cmake", "--install", build, "--config", "Release"], check=True)
