"""The native module with the CUDA kernels, on NumPy arrays: `_cuda` as the emulation runs it.

Same kernels, same launch code and same bindings as `trtseg._cuda`; only arrays are taken from host
memory, as `trtseg._cpu` does.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import importlib.util
import os
from pathlib import Path
from types import ModuleType

from trtseg.atomic import write_atomically

from .build import BUILD, ROOT, build, python_includes

CSRC = ROOT / "csrc"
NAME = "_emulated"


class Order(enum.IntEnum):
    """In which order the threads of a block and the blocks of a grid run."""

    FORWARD = 0
    REVERSE = 1
    SHUFFLED = 2


def build_module(*, sanitize: bool) -> Path:
    bindings = [
        path
        for path in sorted((CSRC / "bindings").glob("*.cpp"))
        if path.stem not in ("array_cuda", "platform_cuda")
    ]
    # In one piece and without sanitizers: pybind11's headers are what takes the time. The kernels
    # are what is tested here; tools/sanitize.sh has the bindings under sanitizers.
    together = BUILD / f"{NAME}_bindings.cpp"
    text = "".join(f'#include "{path}"\n' for path in bindings)
    if not together.exists() or together.read_text() != text:
        BUILD.mkdir(parents=True, exist_ok=True)
        write_atomically(together, text.encode())  # another process may be compiling it
    headers = [*CSRC.rglob("*.h"), *CSRC.rglob("*.cuh"), *bindings]
    return build(
        NAME,
        [CSRC / "core" / "parallel.cpp", *sorted((CSRC / "ops").glob("*_cuda.cu"))],
        sanitize=sanitize,
        glue=[together],
        includes=[CSRC, *python_includes()],
        defines=[f"TRTSEG_MODULE={NAME}"],
        depends=sorted(headers),
    )


@functools.cache
def load() -> ModuleType:
    """The module, built at the first call; the file that TRTSEG_EMULATION_MODULE names if it is set
    (a sanitized one, in a process with `sanitizer_preload()` in LD_PRELOAD)."""
    path = os.environ.get("TRTSEG_EMULATION_MODULE") or build_module(sanitize=False)
    spec = importlib.util.spec_from_file_location(NAME, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Control:
    """The emulation inside a loaded module."""

    def __init__(self, module: ModuleType):
        self._library = ctypes.CDLL(module.__file__)
        self._library.emulation_set_order.argtypes = [ctypes.c_int, ctypes.c_uint64]
        self._library.emulation_launches.restype = ctypes.c_uint64
        self._library.emulation_launches_on.restype = ctypes.c_uint64
        self._library.emulation_launches_on.argtypes = [ctypes.c_uint64]

    def set_order(self, order: Order, seed: int = 0) -> None:
        self._library.emulation_set_order(order, seed)

    @property
    def launches(self) -> int:
        """Kernels launched so far."""
        return self._library.emulation_launches()

    def launches_on(self, stream: int) -> int:
        """Of these, those on one stream."""
        return self._library.emulation_launches_on(stream)
