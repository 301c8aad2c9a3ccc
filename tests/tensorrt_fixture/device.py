"""A GPU, as far as the runtime can tell: a stand-in for CuPy and the emulated CUDA kernels."""

from __future__ import annotations

import importlib.machinery
import sys
from types import ModuleType

import pytest
from emulation.build import compiler
from emulation.module import load

from tensorrt_fixture import fake_cupy


def install(monkeypatch: pytest.MonkeyPatch, **gpu: str) -> ModuleType:
    """Put `cupy` and `trtseg._cuda` in place for one test; skips without a C++ compiler.

    Args:
        gpu: see `fake_cupy.make`.

    Returns:
        What stands for `cupy`.
    """
    if compiler() is None:
        pytest.skip("no C++ compiler for the emulated kernels")
    emulated = load()
    kernels = ModuleType("trtseg._cuda")
    kernels.__spec__ = importlib.machinery.ModuleSpec("trtseg._cuda", None)
    for name in dir(emulated):
        if not name.startswith("_"):
            function = getattr(emulated, name)
            launches = callable(function) and not name.endswith("_scratch")
            wrapped = fake_cupy.on_device(function) if launches else function
            setattr(kernels, name, wrapped)
    module = fake_cupy.make(**gpu)
    monkeypatch.setitem(sys.modules, "trtseg._cuda", kernels)
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module
