"""Memory and descriptors stay flat; `TRTSEG_SOAK_S=3600 pytest -n 0 -s` tries for an hour."""

from __future__ import annotations

import gc
import itertools
import os
import time
from pathlib import Path

import numpy as np
import pytest

from trtseg import Segmenter

IMAGES = 500
WARM = 100
SOAK_S = float(os.environ.get("TRTSEG_SOAK_S", "0"))
MIB = 2**20


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_and_descriptors_stay_flat_over_many_images(segmenter: Segmenter) -> None:
    rng = np.random.default_rng(0)
    until = time.monotonic() + SOAK_S
    start, open_files, number = 0, 0, 0
    for number in itertools.count():
        if number == WARM:
            gc.collect()
            start, open_files = resident_bytes(), descriptors()
        if number >= WARM + IMAGES and time.monotonic() >= until:
            break
        height, width = rng.integers(1, 400, 2)
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        session = segmenter.session(segmenter.encode(image))
        for _ in range(3):
            p = session.add_click(rng.integers(width), rng.integers(height), bool(rng.integers(2)))
        assert p.candidates.shape[1:] == p.probability.shape
        assert p.rle()["size"] == [height, width]
        p.polygons()
        session.undo()
        if number % 10 == 0:
            session.submit_click(0, 0).result(20)
    gc.collect()
    grown = (resident_bytes() - start) / MIB
    print(f"\n{number} images: {grown:+.1f} MiB, {descriptors() - open_files:+d} descriptors")
    # One leaked base per image alone would be 48 MiB.
    assert grown < 12
    assert descriptors() == open_files
