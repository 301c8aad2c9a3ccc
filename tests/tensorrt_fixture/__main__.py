"""Run a command with the real TensorRT-for-RTX builder behind `tensorrt_rtx`, without a GPU.

PYTHONPATH=tests python -m tensorrt_fixture python benchmarks/engine_builds.py lite
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tensorrt_fixture import Unavailable, prepare

if len(sys.argv) < 2:
    sys.exit(__doc__)
with tempfile.TemporaryDirectory() as folder:
    try:
        environment = prepare(Path(folder)).environment()
    except Unavailable as error:
        sys.exit(f"missing: {error}")
    status = subprocess.run(sys.argv[1:], env=environment, check=False).returncode
sys.exit(status)
