"""The program ends while clicks are answered: no abort, no complaint.

`TRTSEG_EXITS=200` sets how many programs are started.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXITS = int(os.environ.get("TRTSEG_EXITS", "4"))
PROGRAM = """
import sys, time
import numpy as np
from trtseg import Click, Segmenter

segmenter = Segmenter.load(sys.argv[1], backend="onnxruntime", threads=1)
encoded = segmenter.encode(np.zeros((480, 640, 3), np.uint8))
sessions = [segmenter.session(encoded) for _ in range(3)]

def again(session):
    if len(session.clicks) < 500:
        session.submit_click(6, 6).add_done_callback(lambda future: again(session))

for session in sessions:
    for _ in range(3):
        again(session)
    session.submit_preview(Click(9, 9))
time.sleep(float(sys.argv[2]))
"""


def test_the_end_of_a_program_waits_for_what_runs(tiny_path: Path) -> None:
    for index in range(EXITS):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tiny_path), str(index * 0.006)],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, done.stderr) == (0, ""), f"exit number {index}"
