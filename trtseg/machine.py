"""The machine: what a measurement was made on, in enough detail to repeat it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from trtseg import __version__

# Whose versions matter to a measurement; nothing is imported to find them.
PACKAGES = (
    "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "opencv-python-headless", "torch",
    "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx", "cupy-cuda12x", "cupy-cuda13x",
)  # fmt: skip


def describe() -> dict[str, Any]:
    """The machine and this version of trtseg as plain values; what cannot be found out is left out.
    """
    facts: dict[str, Any] = {
        "trtseg": __version__,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "processor": processor_name(),
        "cores": physical_cores(),
        "logical_cores": os.cpu_count(),
        "packages": packages(),
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        facts["memory_mib"] = total >> 20
    if hasattr(os, "getloadavg"):
        facts["load_average"] = round(os.getloadavg()[0], 2)
    gpus = _gpus()
    if gpus:
        facts["gpus"] = gpus
    return facts


def physical_cores() -> int:
    """Cores this process may use, hyperthreads counted once where the system tells."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings.read_text() if siblings.is_file() else str(cpu))
    return max(1, len(cores))


def peak_memory_mib() -> float | None:
    """Peak resident memory of this process; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if platform.system() == "Darwin" else peak / 2**10


def processor_name() -> str:
    """The processor's model, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def packages() -> dict[str, str]:
    """Versions of those of `PACKAGES` that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _gpus() -> list[str]:
    query = "name,driver_version,memory.total,clocks.max.sm,power.limit"
    try:
        output = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return output.strip().splitlines()
