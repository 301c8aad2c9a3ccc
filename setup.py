"""Builds the native modules: see tools/cmake_build.py."""

import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup

sys.path.insert(0, str(Path(__file__).resolve().parent / "tools"))
from cmake_build import CMakeBuild

setup(
    packages=[*find_packages(include=["trtseg", "trtseg.*"]), "trtseg.export"],
    package_dir={"trtseg.export": "export"},
    ext_modules=[Extension("trtseg._cpu", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
