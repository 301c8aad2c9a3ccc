"""Engines built in the background while another backend answers."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tensorrt_fixture import device, fake_tensorrt

from trtseg.errors import BackendUnavailable
from trtseg.runtime import tensorrt
from trtseg.runtime.segmenter import Segmenter
from trtseg.runtime.tensorrt.plan_cache import EngineCache
from trtseg.runtime.upgrade import Upgrade


@pytest.fixture
def loader(monkeypatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.make())
    device.install(monkeypatch)
    cache = EngineCache(tmp_path / "cache")
    return lambda bundle, **options: tensorrt.load(bundle, cache=cache, **options)


def test_clicks_are_answered_before_and_after(segmenter: Segmenter, photo, loader) -> None:
    go = threading.Event()

    def slow(bundle, **options):
        go.wait(30)
        return loader(bundle, **options)

    upgrade = Upgrade(segmenter, slow)
    assert upgrade.segmenter is segmenter
    assert not upgrade.ready
    session = upgrade.segmenter.session(upgrade.segmenter.encode(photo))
    before = session.add_click(60, 50).mask
    go.set()
    assert upgrade.wait(60)
    better = upgrade.segmenter
    assert better.engines.description.startswith("tensorrt")
    assert (upgrade.fraction, upgrade.phase, upgrade.problem) == (1.0, "ready", None)
    np.testing.assert_array_equal(
        better.session(better.encode(photo)).add_click(60, 50).mask, before
    )
    # An open session goes on where it began.
    assert session.add_click(20, 20, False).mask.shape == before.shape
    # An encoding of the first segmenter serves the better one, too.
    moved = better.session(session.encoded)
    np.testing.assert_array_equal(moved.add_click(60, 50).mask, before)


def test_cancelling_keeps_the_first(segmenter: Segmenter, loader, caplog) -> None:
    started, go = threading.Event(), threading.Event()

    def slow(bundle, **options):
        started.set()
        go.wait(30)
        return loader(bundle, **options)

    upgrade = Upgrade(segmenter, slow)
    started.wait(30)
    upgrade.cancel()
    go.set()
    assert not upgrade.wait(60)
    assert upgrade.segmenter is segmenter
    assert "cancelled" in upgrade.problem
    assert "stays on ONNX Runtime" in caplog.text


def test_a_failure_is_told_and_changes_nothing(segmenter: Segmenter) -> None:
    def fail(bundle, **options):
        raise BackendUnavailable("no GPU can be used")

    upgrade = Upgrade(segmenter, fail)
    assert not upgrade.wait(60)
    assert upgrade.segmenter is segmenter
    assert upgrade.problem == "no GPU can be used"


def test_progress_is_shown(segmenter: Segmenter) -> None:
    seen, go = threading.Event(), threading.Event()

    def slow(bundle, *, progress, cancelled):
        progress(0.25, "Timing tactics")
        seen.set()
        go.wait(30)
        raise BackendUnavailable("no")

    upgrade = Upgrade(segmenter, slow)
    seen.wait(30)
    assert (upgrade.fraction, upgrade.phase) == (0.25, "Timing tactics")
    go.set()
    upgrade.wait(60)


def test_the_end_of_a_program_ends_a_build(tiny_path: Path) -> None:
    code = """
import sys
import numpy as np
from trtseg import EngineError, Segmenter, ops
from trtseg.runtime.upgrade import Upgrade

def load(bundle, *, progress, cancelled):
    level = np.ones((8, 200, 200), np.float32)
    while not cancelled():
        progress(0.5, "building")
        ops.hypercolumn([level], (900, 900))
    raise EngineError("cancelled")

Upgrade(Segmenter.load(sys.argv[1], backend="onnxruntime", threads=1), load)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_path)], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, "cancelled" in done.stderr) == (0, True), done.stderr
