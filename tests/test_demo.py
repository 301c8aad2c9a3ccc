"""Whether the shipped model does its job on photos that anybody can look at."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from trtseg import Segmenter, bundle, cli
from trtseg.evaluate.clicks import make_clicker
from trtseg.evaluate.metrics import iou
from trtseg.runtime.image import load_image

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT / "trtseg" / "data"
SHARED = Path(os.environ.get("TRTSEG_DATA", ROOT / "data"))
GRABCUT = SHARED / "eval" / "grabcut"
GRABCUT_PHOTOS = ["llama.png", "sheep.jpg", "elefant.png", "person3.jpg", "bush.jpg"]
ACCEPTED = 0.85
needs_lite = pytest.mark.skipif("lite" not in bundle.names(), reason="no lite model in the package")


@needs_lite
@pytest.mark.parametrize("scene", ["coffee", "chelsea"])
def test_the_demo_gives_an_acceptable_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scene: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo", "--photo", scene, "--mask", "mask.png"]) == 0
    truth = json.loads((PHOTOS / "demo.json").read_text())[scene]["mask"]
    expected = cv2.imread(str(PHOTOS / truth), cv2.IMREAD_UNCHANGED)
    mask = cv2.imread("mask.png", cv2.IMREAD_UNCHANGED)
    assert mask.shape == expected.shape
    assert iou(mask > 0, (expected > 0).astype(np.uint8)) > ACCEPTED


@needs_lite
@pytest.mark.skipif(not GRABCUT.is_dir(), reason="needs the GrabCut images, see TRTSEG_DATA")
@pytest.mark.parametrize("name", GRABCUT_PHOTOS)
def test_a_photo_takes_at_most_three_clicks(name: str) -> None:
    segmenter = Segmenter.load("lite")
    picture = load_image(GRABCUT / "images" / name)
    mask = cv2.imread(str(GRABCUT / "masks" / f"{Path(name).stem}.png"), cv2.IMREAD_UNCHANGED)
    session = segmenter.session(segmenter.encode(picture.pixels, picture.image_format))
    clicker, predicted, reached = make_clicker("standard", mask), None, []
    for _ in range(3):
        click = clicker.next_click(predicted)
        if click is None:
            break
        predicted = session.add_click(click.x, click.y, click.positive).mask > 0
        reached.append(iou(predicted, mask))
    assert max(reached) > ACCEPTED, reached
