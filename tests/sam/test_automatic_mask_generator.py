from __future__ import annotations

import json

import numpy as np
import pytest

from trtseg.runtime.session import outlines
from trtseg.sam import Sam, SamAutomaticMaskGenerator

LOOSE = {"points_per_side": 4, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}


@pytest.fixture(scope="module")
def records(sam: Sam, photo: np.ndarray) -> list[dict]:
    return SamAutomaticMaskGenerator(sam, **LOOSE).generate(photo)


def test_records_are_those_of_the_original(records: list[dict]) -> None:
    assert records
    for record in records:
        assert set(record) == {
            "segmentation", "area", "bbox", "predicted_iou", "point_coords", "stability_score",
            "crop_box",
        }  # fmt: skip
        mask = record["segmentation"]
        assert (mask.dtype, mask.shape) == (bool, (120, 160))
        assert record["area"] == mask.sum()
        rows, columns = np.nonzero(mask)
        x, y, width, height = record["bbox"]
        if len(rows):
            assert (x, y) == (columns.min(), rows.min())
            assert (x + width, y + height) == (columns.max(), rows.max())
        assert record["crop_box"] == [0, 0, 160, 120]
        (px, py), = record["point_coords"]
        assert (px % 40, py % 30) == (20, 15)
        assert 0 <= record["predicted_iou"] <= 1


def test_filters_drop_and_boxes_differ(
    sam: Sam, photo: np.ndarray, records: list[dict], caplog: pytest.LogCaptureFixture
) -> None:
    def generate(**options: float) -> list[dict]:
        return SamAutomaticMaskGenerator(sam, **{**LOOSE, **options}).generate(photo)

    good = sorted(record["predicted_iou"] for record in records)
    kept = generate(pred_iou_thresh=good[len(good) // 2])
    assert all(record["predicted_iou"] > good[len(good) // 2] for record in kept)
    stable = generate(stability_score_thresh=0.8)
    assert all(record["stability_score"] >= 0.8 for record in stable)
    assert len(generate(box_nms_thresh=0.2)) < len(records) <= len(generate(box_nms_thresh=1.0))
    assert generate(pred_iou_thresh=2.0) == []
    assert "no mask has a score above 2 and a stability of 0" in caplog.text


def test_masks_as_run_lengths(sam: Sam, photo: np.ndarray, records: list[dict]) -> None:
    def segmentations(mode: str) -> list[dict]:
        made = SamAutomaticMaskGenerator(sam, **LOOSE, output_mode=mode).generate(photo)
        return [record["segmentation"] for record in made]

    for record, plain, packed in zip(
        records, segmentations("uncompressed_rle"), segmentations("coco_rle"), strict=True
    ):
        mask = record["segmentation"]
        assert plain == {"size": [120, 160], "counts": outlines.run_lengths(mask)}
        assert packed == outlines.rle(mask)
        json.dumps([plain, packed])


def test_crops_look_again(sam: Sam, photo: np.ndarray) -> None:
    made = SamAutomaticMaskGenerator(
        sam, **LOOSE, crop_n_layers=1, crop_n_points_downscale_factor=2, crop_nms_thresh=1.0
    ).generate(photo)
    boxes = {tuple(record["crop_box"]) for record in made}
    assert (0, 0, 160, 120) in boxes
    # two crops a side share 512/1500 of the shorter side, 40 pixels
    assert boxes <= {(x, y, 100, 80) for x in (0, 60) for y in (0, 40)} | {(0, 0, 160, 120)}
    assert len(boxes) > 1
    for record in made:
        assert record["segmentation"].shape == (120, 160)
        x, y, width, height = record["crop_box"]
        outside = record["segmentation"].copy()
        outside[y : y + height, x : x + width] = False
        assert not outside.any()


def test_small_regions_go(sam: Sam, photo: np.ndarray) -> None:
    def regions(**options: int) -> int:
        made = SamAutomaticMaskGenerator(
            sam, **LOOSE, box_nms_thresh=1.0, crop_nms_thresh=1.0, **options
        ).generate(photo)
        return sum(len(outlines.polygons(r["segmentation"].astype(np.uint8))) for r in made)

    assert regions(min_mask_region_area=400) < regions()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points_per_side": None}, "points_per_side: expected it or point_grids"),
        ({"point_grids": [np.zeros((1, 2))]}, "points_per_side: expected it or point_grids"),
        ({"output_mode": "png"}, "output_mode: expected one of binary_mask,"),
        (
            {"points_per_side": None, "point_grids": [np.zeros((1, 2))], "crop_n_layers": 1},
            "point_grids: expected 2, got 1",
        ),
    ],
)
def test_bad_options_are_refused(sam: Sam, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamAutomaticMaskGenerator(sam, **options)
