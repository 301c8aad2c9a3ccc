from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from trtseg import Box, Click, Lasso, Stroke
from trtseg.runtime.maps.focus import (
    FOCUS_BELOW,
    covers,
    focus_region,
    object_box,
    resample,
    seam_weight,
)

WHOLE = (0, 0, 600, 800)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[int, int, int, int]:
    y0, x0 = draw(st.integers(0, 599)), draw(st.integers(0, 799))
    return y0, x0, draw(st.integers(y0 + 1, 600)), draw(st.integers(x0 + 1, 800))


@given(first=boxes(), second=boxes())
def test_the_object_always_lies_in_the_region(first: tuple, second: tuple) -> None:
    current = WHOLE
    for box in (first, second):
        region = focus_region(WHOLE, current, box, 384)
        assert all(0 <= region[i] <= box[i] for i in (0, 1))
        assert region[2] <= 600
        assert region[3] <= 800
        assert all(box[i] <= region[i] for i in (2, 3))
        sides = region[2] - region[0], region[3] - region[1]
        assert region == WHOLE or max(sides[0] / 600, sides[1] / 800) <= FOCUS_BELOW + 0.01
        # the image's aspect ratio, to a pixel
        assert abs(sides[0] / 600 - sides[1] / 800) <= 1 / 600 + 1e-9
        assert focus_region(WHOLE, region, box, 384) == region
        current = region


def test_a_crop_is_kept_while_it_serves() -> None:
    region = focus_region(WHOLE, WHOLE, (200, 300, 300, 400), 384)
    assert region != WHOLE
    assert focus_region(WHOLE, region, (195, 295, 300, 405), 384) == region
    grown = focus_region(WHOLE, region, (195, 295, 300, 460), 384)
    assert grown not in (region, WHOLE)
    assert focus_region(WHOLE, region, (100, 100, 500, 700), 384) == WHOLE
    assert focus_region(WHOLE, region, None, 384) == WHOLE


def test_large_objects_and_tiny_images_stay_whole() -> None:
    assert focus_region(WHOLE, WHOLE, (50, 50, 550, 750), 384) == WHOLE
    assert focus_region((0, 0, 1, 1), (0, 0, 1, 1), (0, 0, 1, 1), 384) == (0, 0, 1, 1)
    assert focus_region((0, 0, 60, 80), (0, 0, 60, 80), (5, 5, 9, 9), 384) == (0, 0, 60, 80)


def test_object_box_holds_mask_and_clicks() -> None:
    whole = (0, 0, 50, 60)
    assert object_box(None, (), whole) is None
    assert object_box(None, (Click(3.4, 5.6),), whole) == (6, 3, 7, 4)
    assert object_box((2, 2, 4, 4), (Click(10, 0, False),), whole) == (0, 2, 4, 11)


def test_object_box_holds_strokes_boxes_and_loops_as_far_as_they_are_inside() -> None:
    whole = (0, 0, 50, 60)
    assert object_box(None, (Stroke([(10, 20), (15, 22)], radius_px=2),), whole) == (18, 8, 25, 18)
    away = Stroke([(10, 20), (1e300, 20)], radius_px=0)
    assert object_box(None, (away,), whole) == (20, 10, 21, 60)
    assert object_box((40, 0, 41, 1), (Box(5, 6, 9, 12),), whole) == (6, 0, 41, 10)
    assert object_box(None, (Lasso([(-9, 3), (4, 3), (4, 8)]),), whole) == (3, 0, 9, 5)
    assert object_box(None, (Lasso([(70, 3), (74, 3), (74, 8)]),), whole) is None


@given(target=boxes())
def test_resampling_a_plane_is_exact_and_never_leaves_the_range(target: tuple) -> None:
    assume(target[2] - target[0] > 2 and target[3] - target[1] > 2)
    y, x = np.mgrid[:12, :16] * 50 + 24.5  # the cells' centres in pixels
    plane = (0.001 * y + 0.0007 * x).astype(np.float32)
    result = resample(plane, WHOLE, target)
    assert result.min() >= plane.min() - 1e-6
    assert result.max() <= plane.max() + 1e-6
    rows = target[0] + (np.arange(12) + 0.5) * (target[2] - target[0]) / 12 - 0.5
    columns = target[1] + (np.arange(16) + 0.5) * (target[3] - target[1]) / 16 - 0.5
    rows, columns = np.clip(rows, 24.5, 574.5), np.clip(columns, 24.5, 774.5)
    expected = 0.001 * rows[:, None] + 0.0007 * columns
    np.testing.assert_allclose(result, expected, atol=2e-6)
    np.testing.assert_array_equal(resample(plane, WHOLE, WHOLE), plane)


def test_resampling_one_cell() -> None:
    assert resample(np.full((1, 1), 0.3, np.float32), WHOLE, (1, 1, 5, 5)).item() == np.float32(0.3)


def test_covers_and_seam() -> None:
    inside = covers((12, 16), (100, 200, 400, 600), WHOLE)
    assert inside.sum() == 6 * 8
    assert inside[2:8, 4:12].all()
    assert covers((12, 16), WHOLE, (100, 200, 400, 600)).all()
    weight = seam_weight((96, 96), (0, 200, 300, 600), WHOLE)
    assert (weight[0, 20:-20] == 1).all(), "no seam at the image's own border"
    assert (weight[-1] < 0.1).all()
    assert (weight[:, 0] < 0.1).all()
    assert (weight[20:-20, 20:-20] == 1).all()
    assert (seam_weight((96, 96), WHOLE, WHOLE) == 1).all()
