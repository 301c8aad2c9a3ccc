from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest

from trtseg import Segmenter

IMAGES = 500
WARM = 100
MIB = 2**20


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_stays_flat_over_many_images(segmenter: Segmenter) -> None:
    rng = np.random.default_rng(0)
    start = 0
    for number in range(WARM + IMAGES):
        if number == WARM:
            gc.collect()
            start = resident_bytes()
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
    # One leaked base per image alone would be 48 MiB.
    assert resident_bytes() - start < 12 * MIB
