from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trtseg.runtime.session.outlines import from_rle, polygons, rle

masks = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40),
                   elements=st.sampled_from([0, 255]))  # fmt: skip


@given(mask=masks)
def test_run_lengths_are_cocos(mask: np.ndarray) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    expected = coco.encode(np.asfortranarray(mask > 0).astype(np.uint8))
    assert rle(mask) == {"size": expected["size"], "counts": expected["counts"].decode()}


@given(mask=masks)
def test_run_lengths_are_read_back(mask: np.ndarray) -> None:
    counts = str(rle(mask)["counts"])
    np.testing.assert_array_equal(from_rle(mask.shape, counts), mask > 0)
    with pytest.raises(ValueError, match="counts: expected run lengths that fill"):
        from_rle((mask.shape[0] + 1, mask.shape[1]), counts)


@given(counts=st.text(st.characters(max_codepoint=130), max_size=30))
def test_other_texts_are_refused(counts: str) -> None:
    try:
        found = from_rle((7, 5), counts)
    except ValueError as error:
        told = str(error)
    else:
        told = "counts: expected"
        assert rle(found)["size"] == [7, 5]
    assert told.startswith("counts: expected")


def test_run_lengths_of_long_runs() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    mask = np.zeros((3000, 2000), np.uint8)
    mask[17:2900, 100:1900] = 255
    expected = coco.encode(np.asfortranarray(mask > 0).astype(np.uint8))
    assert rle(mask)["counts"] == expected["counts"].decode()


@given(mask=masks)
def test_exact_polygons_fill_back_to_the_mask(mask: np.ndarray) -> None:
    drawn = np.zeros_like(mask)
    parts = polygons(mask, tolerance_px=0)
    for part in parts:
        cv2.fillPoly(drawn, [part.outline.astype(np.int32)], 255)
    for part in parts:
        for hole in part.holes:  # its outline runs through object pixels
            inside = cv2.fillPoly(np.zeros_like(mask), [hole.astype(np.int32)], 255)
            cv2.polylines(inside, [hole.astype(np.int32)], True, 0)
            drawn[inside > 0] = mask[inside > 0]  # a hole may hold parts of its own
    np.testing.assert_array_equal(drawn, mask)


def test_a_ring_has_a_hole_and_simplifying_bounds_the_error() -> None:
    y, x = np.mgrid[:200, :300]
    radius = np.hypot(y - 100, x - 150)
    mask = ((radius < 80) & (radius > 30)).astype(np.uint8) * 255
    mask[5:10, 5:10] = 255
    found = polygons(mask, tolerance_px=1.5)
    assert len(found) == 2
    assert len(found[0].holes) == 1
    assert found[1].holes == ()
    assert len(found[0].outline) < 60
    np.testing.assert_allclose(np.hypot(*(found[0].outline - (150, 100)).T), 80, atol=2)
    np.testing.assert_allclose(np.hypot(*(found[0].holes[0] - (150, 100)).T), 30, atol=2)


def test_the_part_with_the_longest_outline_comes_first() -> None:
    mask = np.zeros((200, 240), np.uint8)
    cv2.circle(mask, (30, 30), 14, 255, -1)  # many points, a short outline
    mask[60:190, 60:220] = 255
    first, second = polygons(mask)
    assert len(first.outline) < len(second.outline)
    assert first.outline[:, 0].max() == 219


def test_nothing_has_no_outline() -> None:
    assert polygons(np.zeros((5, 5), np.uint8)) == []
    for tolerance in (-1, np.nan, np.inf):
        with pytest.raises(ValueError, match="tolerance_px: expected >= 0"):
            polygons(np.zeros((5, 5), np.uint8), tolerance)
