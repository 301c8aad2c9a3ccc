"""The operations on the CPU, compiled with AddressSanitizer and UBSan: these tests once more."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from emulation.build import ROOT, compiler, sanitizer_preload


@pytest.mark.slow
@pytest.mark.skipif(
    compiler() is None or sanitizer_preload() is None or not shutil.which("cmake"),
    reason="no GCC with its sanitizers, or no CMake",
)
def test_the_operations_are_clean_under_sanitizers():
    here = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{here}{os.pathsep}{os.environ['PATH']}"}
    command = [ROOT / "tools" / "sanitize.sh", "-p", "no:xdist", "-o", "addopts="]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=1200
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
