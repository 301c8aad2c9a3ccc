"""`trtseg info`: what this installation and machine can do, and why not more."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from trtseg import __version__, bundle
from trtseg.errors import BundleError
from trtseg.machine import packages, physical_cores, processor_name
from trtseg.runtime.segmenter import availability


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments on `parser`."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the report to stdout."""
    facts = collect()
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    for heading, content in facts.items():
        if not isinstance(content, dict):
            print(f"{heading}: {content}")
            continue
        print(f"{heading}:")
        for name, value in content.items():
            print(f"  {name}: {value}")
    return 0


def collect() -> dict[str, Any]:
    """The report as plain values."""
    return {
        "trtseg": __version__,
        "python": f"{platform.python_version()} on {platform.platform()}",
        "cpu": f"{processor_name()}: {physical_cores()} physical cores usable, "
        f"{os.cpu_count()} logical",
        "gpu": _gpus(),
        "packages": _packages(),
        "native modules": {name: _native(name) for name in ("_cpu", "_cuda")},
        "backends": {
            name: ("usable: " if state.usable else "not usable: ") + state.reason
            for name, state in availability().items()
        },
        "models": {name: _model(name) for name in bundle.names()} or "none in this package",
        "caches": _caches(),
    }


def _native(name: str) -> str:
    try:
        module = importlib.import_module(f"trtseg.{name}")
    except ImportError as error:
        return f"not there: {error}"
    return str(Path(module.__file__ or "").name)


def _packages() -> dict[str, str]:
    """Versions of what is installed; nothing is imported for it."""
    found = packages()
    if "torch" not in found:
        found["torch"] = "not installed; train, export and adapt need it, segment does not"
    return found


def _gpus() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return "none: nvidia-smi is not there, so no NVIDIA driver is installed"
    query = [program, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown: nvidia-smi failed: {error}"
    lines = (answer.stdout or answer.stderr).strip().splitlines() or ["nvidia-smi said nothing"]
    return "; ".join(lines) if answer.returncode == 0 else f"unknown: {lines[0]}"


def _model(name: str) -> str:
    try:
        manifest = bundle.read(name).manifest
    except BundleError as error:
        return f"damaged: {error}"
    precisions = ", ".join(manifest.graphs["segment"])
    return (
        f"{manifest.kind}, {manifest.candidates} candidates, working size "
        f"{manifest.long_side_px} px, {precisions}"
    )


def _caches() -> dict[str, str]:
    from trtseg.runtime.tensorrt.plan_cache import default_directory

    return {"engines": str(default_directory())}
