"""Nothing that is in a file makes the process that opens it use more than is stated, or die.

Files that were made to harm, or damaged: bundles are loaded and clicked with, photos loaded and
clicked in, states of a sequence gone on from, each in a process of its own. A tenth of them is
tried; `TRTSEG_HOSTILE=1 pytest -n 0 -s tests/test_hostile_tally.py` tries all and prints the tally.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import bundles, photos
from tiny_model import write_tiny

from trtseg import Segmenter

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures as Linux does")
ALL = bool(os.environ.get("TRTSEG_HOSTILE"))
# What may come out, and the most of memory (MiB) and computing (s): for bundles, twice the bytes of
# the largest and what networks may take; for photos, the largest of 16 bits with alpha, some times.
BOUNDS = {
    "bundle": ({"OK", "BundleError", "EngineError"}, 6 * 1024, 20),
    "photo": ({"OK", "ValueError", "OSError"}, 6 * 1024, 30),
    "state": ({"OK", "CheckpointError"}, 1024, 10),
}


def run(kind: str, model: Path, cases: Iterator, folder: Path) -> None:
    allowed, most_mib, most_seconds = BOUNDS[kind]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    opener = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "hostile.opener", str(model)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert opener.stdin is not None
    assert opener.stdout is not None
    ends: Counter[str] = Counter()
    worst = {"mib": (0.0, ""), "seconds": (0.0, "")}
    wrong = []
    with opener:
        for index, (name, make) in enumerate(cases):
            if not ALL and index % 10 != 8:  # the largest are left out
                continue
            path = folder / "case.trtseg"
            make(path)
            print(json.dumps({"kind": kind, "path": str(path)}), file=opener.stdin, flush=True)
            found = json.loads(opener.stdout.readline())
            ends[found["end"]] += 1
            for what in worst:
                worst[what] = max(worst[what], (found[what], name))
            within = found["mib"] <= most_mib and found["seconds"] <= most_seconds
            if found["end"] not in allowed or not within or len(found["told"]) > 999:
                wrong.append((name, found))
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        opener.stdin.close()
    print(f"\n{kind}s: {ends.total()} opened: {dict(ends.most_common())}")
    print(f"  memory at most {worst['mib'][0]:.0f} MiB ({worst['mib'][1]})")
    print(f"  computing at most {worst['seconds'][0]:.1f} s ({worst['seconds'][1]})")
    for each in wrong:
        print("  WRONG", each)
    assert not wrong


def test_bundles(tmp_path: Path) -> None:
    run("bundle", write_tiny(tmp_path / "model"), bundles.cases(), tmp_path)


def test_photos(tmp_path: Path) -> None:
    run("photo", write_tiny(tmp_path / "model"), photos.cases(), tmp_path)


def test_states(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from adapt.conftest import write_adaptable
    from hostile import states

    model = write_adaptable(tmp_path / "model")
    segmenter = Segmenter.load(model, backend="onnxruntime", threads=1)
    run("state", model, states.cases(segmenter), tmp_path)
