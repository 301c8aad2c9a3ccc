"""X-AnyLabeling's own code for Segment Anything on the graphs of `export-sam`.

    pip install --no-deps x-anylabeling-cvhub      # or unpack its wheel, and name the folder
    export TRTSEG_X_ANYLABELING=/folder/with/anylabeling
    python -m pytest tests/integrations/test_x_anylabeling.py

Skips without it. Of the package one file is loaded, which needs no window.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import trtseg
from trtseg import Segmenter
from trtseg.cli import main

PHOTO = Path(trtseg.__file__).parent / "data" / "coffee.jpg"
PLACE = Path("services") / "auto_labeling" / "sam_onnx.py"
CUP, TABLE = (277, 215), (60, 60)  # pixels (x, y)


def package() -> Path:
    """The folder of the package."""
    named = os.environ.get("TRTSEG_X_ANYLABELING")
    if named:
        return Path(named) / "anylabeling"
    found = importlib.util.find_spec("anylabeling")
    if found is None or not found.submodule_search_locations:
        pytest.skip("X-AnyLabeling is not installed")
    return Path(found.submodule_search_locations[0])


@pytest.fixture
def their() -> Any:
    spec = importlib.util.spec_from_file_location("sam_onnx", package() / PLACE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_points_on_the_exported_graphs(their: Any, tmp_path: Path) -> None:
    assert main(["export-sam", "lite", str(tmp_path / "sam")]) == 0
    model = their.SegmentAnythingONNX(
        str(tmp_path / "sam" / "encoder.onnx"), str(tmp_path / "sam" / "decoder.onnx")
    )
    photo = cv2.cvtColor(cv2.imread(str(PHOTO)), cv2.COLOR_BGR2RGB)
    marks = [
        {"type": "point", "data": list(at), "label": label}
        for at, label in ((CUP, 1), (TABLE, 0))
    ]
    masks = model.predict_masks(model.encode(photo), marks)
    shown = masks[0][0] > 0  # the first mask is what it draws
    segmenter = Segmenter.load("lite")
    # it lays every photo into a frame of this size, black where the photo ends
    height, width = model.input_size
    scale = min(width / photo.shape[1], height / photo.shape[0])
    framed = cv2.warpAffine(photo, np.float32([[scale, 0, 0], [0, scale, 0]]), (width, height))
    session = segmenter.session(segmenter.encode(framed), focus=None)
    for (x, y), positive in ((CUP, True), (TABLE, False)):
        p = session.add_click(x * scale, y * scale, positive)
    ours = cv2.warpAffine(
        p.mask, np.float32([[1 / scale, 0, 0], [0, 1 / scale, 0]]), photo.shape[1::-1]
    )
    ours = ours > 127
    overlap = (shown & ours).sum() / (shown | ours).sum()
    assert shown[CUP[1], CUP[0]]
    # both clicks at once there, one after the other here, with the mask between them
    assert overlap > 0.8
