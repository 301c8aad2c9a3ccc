"""The plug-in in the real napari, without a display."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_model import write_tiny

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
napari = pytest.importorskip("napari")
pytestmark = pytest.mark.filterwarnings("ignore")  # napari's own, and those of what it stands on
PLUGIN = Path(__file__).parents[2] / "integrations" / "napari"


@pytest.fixture
def widget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(PLUGIN))
    from napari.components import ViewerModel
    from qtpy.QtWidgets import QApplication
    from trtseg_napari.widget import Clicks

    from trtseg import Segmenter

    application = QApplication.instance() or QApplication([])
    write_tiny(tmp_path / "tiny", region=True)
    viewer = ViewerModel()
    y, x = np.mgrid[:120, :160]
    waves = [np.sin(x / 17 + k) + np.cos(y / 23 - k) for k in range(3)]
    viewer.add_image((np.stack(waves, -1) * 60 + 128).astype(np.uint8), name="waves", rgb=True)
    made = Clicks(viewer, Segmenter.load(tmp_path / "tiny", threads=1))
    yield made
    made.close()
    application.processEvents()
    sys.modules.pop("trtseg_napari.widget", None)


def session_of(widget):
    image = widget._viewer.layers["waves"].data
    return widget._segmenter.session(widget._segmenter.encode(image))


def masks(widget, label: int = 1) -> np.ndarray:
    return (widget._viewer.layers["masks"].data == label) * np.uint8(255)


def test_points_rectangles_candidates_and_undo(widget) -> None:
    from trtseg.serve.prompts import apply
    from trtseg.types import Box

    layers = widget._viewer.layers
    widget.begin.click()
    session = session_of(widget)
    layers["object"].add([60, 80])
    one = session.add_click(80, 60).mask
    np.testing.assert_array_equal(masks(widget), one)
    layers["background"].add([20, 20])
    two = session.add_click(20, 20, False)
    np.testing.assert_array_equal(masks(widget), two.mask)
    other = (two.selected + 1) % len(two.scores)
    widget.candidate.setValue(other + 1)
    np.testing.assert_array_equal(masks(widget), session.select(other).mask)
    layers["box"].add_rectangles([[30, 30], [90, 110]])
    boxed = apply(session, Box(30, 30, 110, 90))
    np.testing.assert_array_equal(masks(widget), boxed.mask)
    for _ in range(3):
        widget.undo.click()
    np.testing.assert_array_equal(masks(widget), one)
    assert len(layers["box"].data) == len(layers["background"].data) == 0
    assert len(layers["object"].data) == 1
    assert widget.undo.isEnabled()
    widget.undo.click()
    assert not masks(widget).any()
    assert not widget.undo.isEnabled()


def test_objects_keep_their_pixels(widget) -> None:
    layers = widget._viewer.layers
    widget.begin.click()
    layers["object"].add([60, 80])
    before = masks(widget)
    widget.next.click()
    assert len(layers["object"].data) == 0
    layers["object"].add([64, 84])
    np.testing.assert_array_equal(masks(widget, 1), before)
    wanted = session_of(widget).add_click(84, 64).mask
    np.testing.assert_array_equal(masks(widget, 2), np.where(before > 0, 0, wanted))


def test_a_point_outside_is_told_and_forgotten(widget) -> None:
    widget.begin.click()
    widget._viewer.layers["object"].add([500, 80])
    assert "expected" in widget.told.text()
    assert len(widget._viewer.layers["object"].data) == 0
    widget._viewer.layers["object"].add([60, 80])
    assert masks(widget).any()


def test_the_manifest_is_napari_s() -> None:
    from npe2 import PluginManifest

    manifest = PluginManifest.from_file(PLUGIN / "trtseg_napari" / "napari.yaml")
    assert manifest.contributions.widgets[0].command == "trtseg-napari.clicks"
    assert manifest.contributions.commands[0].python_name == "trtseg_napari.widget:Clicks"
