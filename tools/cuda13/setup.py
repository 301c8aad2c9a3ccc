"""The wheel `trtseg-cuda13`: `trtseg._cuda` alone, for an installation of `trtseg` without it."""

import os
import re
import sys
from pathlib import Path

from setuptools import Extension, setup

TOOLS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOOLS))
from cmake_build import CMakeBuild  # noqa: E402

os.environ["TRTSEG_CUDA"] = "only"
source = (TOOLS.parent / "trtseg" / "__init__.py").read_text(encoding="utf-8")
version = re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)[1]

setup(
    version=version,
    install_requires=[f"trtseg=={version}"],
    py_modules=[],
    ext_modules=[Extension("trtseg._cuda", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
