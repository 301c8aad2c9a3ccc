"""Drives the real TensorRT-for-RTX parser and builder in tests, without a GPU.

Three small forwarding libraries, compiled here, let the official TensorRT bindings from PyPI call
the RTX libraries from PyPI. They are found through LD_LIBRARY_PATH, which the loader reads when a
process starts, so everything runs in child processes. Building works; loading a plan needs a GPU.

What passes here passed with TensorRT for RTX 1.7.1, which has no tactics at build time: it says
nothing about the builder of TensorRT proper.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
_SOURCES = {
    "libnvinfer.so.11": "forward_builder.c",
    "libnvonnxparser.so.11": "forward_parser.c",
    "libnvinfer_plugin.so.11": "forward_plugin.c",
}


class Unavailable(Exception):
    """The wheels or the C compiler are missing; the message says which."""


@dataclass(frozen=True)
class RtxBuilder:
    """Starts Python processes in which `tensorrt_rtx` is the real RTX builder.

    Attributes:
        libraries: the folder with the forwarding libraries.
    """

    libraries: Path

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "LD_LIBRARY_PATH": str(self.libraries),
            "PYTHONPATH": os.pathsep.join(map(str, (HERE / "modules", REPOSITORY))),
        }

    def start(self, code: str, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *map(str, arguments)],
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, code: str, *arguments: object, timeout_s: float = 120.0) -> str:
        """The standard output of `code`, which must succeed."""
        process = self.start(code, *arguments)
        out, err = process.communicate(timeout=timeout_s)
        assert process.returncode == 0, f"exit {process.returncode}\n{out}\n{err}"
        return out


def prepare(folder: Path) -> RtxBuilder:
    """Compile the forwarding libraries into `folder`, beside links to the RTX libraries.

    Raises:
        Unavailable: a wheel or the compiler is missing, or this is not Linux on x86-64.
    """
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        raise Unavailable("the wheels of TensorRT for RTX are used on Linux x86-64 only")
    for module, wheel in (
        ("tensorrt_bindings", "tensorrt-cu13-bindings==11.4.0.106"),
        ("onnxruntime_ep_nv_tensorrt_rtx", "onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0"),
    ):
        if importlib.util.find_spec(module) is None:
            raise Unavailable(f"pip install {wheel}")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Unavailable("no C compiler")
    # find_spec, not import: importing the provider would load its libraries into this process.
    spec = importlib.util.find_spec("onnxruntime_ep_nv_tensorrt_rtx")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    wheel_folder = Path(next(iter(spec.submodule_search_locations)))
    for name in ("libtensorrt_rtx.so", "libtensorrt_onnxparser_rtx.so"):
        versions = sorted(wheel_folder.glob(f"{name}.1.7.1"))
        if not versions:
            raise Unavailable("pip install onnxruntime-ep-nv-tensorrt-rtx-cu13==0.5.0")
        (folder / f"{name}.1").symlink_to(versions[0])
    for library, source in _SOURCES.items():
        command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
        subprocess.run(
            [*command, "-o", str(folder / library), str(HERE / source), "-ldl"], check=True
        )
    return RtxBuilder(folder)
