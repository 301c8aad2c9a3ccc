"""Builds CUDA sources for the host, against the emulation in this folder.

The `.cu` files are the ones that nvcc compiles. Three constructs of CUDA that C++ cannot spell are
rewritten on the way to the compiler, line for line: launches `kernel<<<...>>>(...)`, `__shared__`
arrays and `extern __shared__` arrays. Everything else is supplied by `include/cuda_runtime.h`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trtseg.file_lock import locked

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "emulation"

PLAIN_FLAGS = ("-O2", "-g1")
GLUE_FLAGS = ("-O0",)
# -O1 keeps the bound checks; vptr needs type information that pybind11 modules hide.
SANITIZE_FLAGS = (
    "-O1",
    "-g1",
    "-fsanitize=address,undefined",
    "-fno-sanitize=vptr",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
)
# No contraction into fma: x86-64 without -march has none, said here so that it stays so.
COMMON_FLAGS = (
    "-std=c++17",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",  # unroll
)

_LAUNCH = re.compile(r"([A-Za-z_][\w:]*(?:<[^;<>]*>)?)\s*<<<(.*?)>>>\s*\((.*?)\);", re.DOTALL)
_DYNAMIC_SHARED = re.compile(r"extern\s+__shared__\s+(.+?)\s+(\w+)\[\];")
_STATIC_SHARED = re.compile(r"__shared__\s+([^;]+?)\s*(\w+)((?:\[[^\]]+\])*);")


def _launch(match: re.Match[str]) -> str:
    kernel, shape, arguments = match.groups()
    name = " ".join(kernel.split())
    return (
        f'::emulation::launch("{name}", ::emulation::config({shape}), '
        f"[=] {{ {kernel}({arguments}); }});"
    )


def translate(text: str) -> str:
    """CUDA C++ to C++; lines keep their numbers."""
    text = _DYNAMIC_SHARED.sub(
        r"auto* const \2 = static_cast<\1*>(::emulation::dynamic_shared());", text
    )
    text = _STATIC_SHARED.sub(
        r"static \1 \2\3; ::emulation::poison_static_shared(&\2, sizeof(\2));", text
    )
    text = _LAUNCH.sub(_launch, text)
    left = re.search(r"<<<|>>>|__shared__", text)
    if left:
        line = text.count("\n", 0, left.start()) + 1
        raise ValueError(f"line {line}: cannot translate {left.group()}")
    return text


def compiler() -> str | None:
    """The host compiler, None where there is none."""
    return shutil.which(os.environ.get("CXX", "g++"))


def sanitizer_preload() -> str | None:
    """LD_PRELOAD for a Python that loads a sanitized module, None where gcc has no sanitizer.

    libstdc++ is named too: AddressSanitizer looks for `__cxa_throw` when the process starts.
    """
    cxx = compiler()
    if cxx is None:
        return None
    found = []
    for name in ("libasan.so", "libstdc++.so.6"):
        path = subprocess.run(
            [cxx, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        if not Path(path).is_absolute():
            return None
        found.append(path)
    return " ".join(found)


def build(
    name: str,
    sources: Sequence[Path],
    *,
    sanitize: bool = False,
    glue: Sequence[Path] = (),
    includes: Sequence[Path] = (),
    defines: Sequence[str] = (),
    depends: Sequence[Path] = (),
    folder: Path | None = None,
) -> Path:
    """Compiles `sources` (.cu and .cpp) and the scheduler into one shared library.

    Args:
        name: file name without the suffix; the module's name if it is a Python module.
        sources: .cu files are translated, .cpp files compiled as they are.
        sanitize: under AddressSanitizer and UBSan.
        glue: more sources, compiled quickly and without sanitizers, once for both kinds.
        includes: folders, searched after the emulation's own.
        defines: `NAME=value`.
        depends: headers whose content is part of the key under which the result is kept.
        folder: where results are kept; `build/emulation` of the repository when None.

    Returns:
        The library, built or found from an earlier call with the same content.

    Raises:
        RuntimeError: the compiler reported an error; its output is the message.
    """
    cxx = compiler()
    if cxx is None:
        raise RuntimeError("no C++ compiler: set CXX")
    common = [
        *COMMON_FLAGS,
        f"-I{HERE / 'include'}",
        *(f"-I{path}" for path in includes),
        *(f"-D{define}" for define in defines),
    ]
    instrumented = [*common, *(SANITIZE_FLAGS if sanitize else PLAIN_FLAGS)]
    shared = hashlib.sha256()
    headers = [HERE / "scheduler.h", HERE / "include" / "cuda_runtime.h", *depends]
    for path in [Path(__file__), *headers]:
        shared.update(path.read_bytes())
    base = folder or BUILD
    base.mkdir(parents=True, exist_ok=True)

    def compile_one(source: Path) -> Path:
        text = source.read_bytes()
        flags = [*common, *GLUE_FLAGS] if source in glue else instrumented
        key = shared.copy()
        key.update("\0".join([cxx, *flags, str(source), ""]).encode() + text)
        target = base / f"{source.stem}-{key.hexdigest()[:16]}.o"
        if target.exists():
            return target
        partial = _unfinished(target)
        unit = source
        if source.suffix == ".cu":
            unit = partial.with_suffix(".cpp")
            # #line: errors, barrier reports and sanitizer traces name the .cu file.
            unit.write_text(f'#line 1 "{source}"\n' + translate(text.decode()))
        _run([cxx, *flags, "-c", str(unit), "-o", str(partial)])
        if unit != source:
            unit.unlink()
        return partial.replace(target)

    # of the processes that want the same library one compiles it, and the others find it
    with locked(base / f"{name}-{shared.hexdigest()[:16]}.lock"):
        with ThreadPoolExecutor(max_workers=2) as pool:
            objects = list(pool.map(compile_one, [HERE / "scheduler.cpp", *sources, *glue]))
        key = hashlib.sha256("\0".join(map(str, objects)).encode())
        target = base / key.hexdigest()[:16] / f"{name}.so"
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            link = [flag for flag in instrumented if flag.startswith("-f")]
            partial = _unfinished(target)
            _run([cxx, "-shared", *link, *map(str, objects), "-o", str(partial)])
            partial.replace(target)
    return target


def _unfinished(target: Path) -> Path:
    """Where a process writes before it moves the whole file to `target`: others may build too."""
    return target.with_name(f"{target.stem}.{os.getpid()}{target.suffix}")


def python_includes() -> list[Path]:
    """Headers for a pybind11 module."""
    import pybind11

    return [Path(pybind11.get_include()), Path(sysconfig.get_paths()["include"])]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
