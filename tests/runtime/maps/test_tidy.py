"""Crumbs and pinholes, on maps and in sessions."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from trtseg import Click, Segmenter, ops
from trtseg.runtime.maps.tidy import Tidy

GRID, SIZE = (24, 32), (120, 160)
WHOLE = (0, 0, *SIZE)
CELL_PX = 25


def scene() -> np.ndarray:
    """An object of 12 x 14 cells with holes of 1 and 30 cells, and islands of 4 and 20."""
    probability = np.full(GRID, 0.1, np.float32)
    probability[2:14, 2:16] = 0.9
    probability[3, 3] = 0.2
    probability[6:11, 6:12] = 0.3
    probability[18:20, 4:6] = 0.8
    probability[16:20, 24:29] = 0.7
    return probability


def parts(probability: np.ndarray) -> tuple[int, int]:
    """(islands, holes) of the mask at the image's size."""
    mask, _ = ops.compose_mask(probability, SIZE)
    islands = cv2.connectedComponents(mask, connectivity=8)[0] - 1
    ground = np.pad(255 - mask, 1, constant_values=255)
    return islands, cv2.connectedComponents(ground, connectivity=4)[0] - 2


def click(row: int, column: int, positive: bool) -> Click:
    return Click(column * 5 + 2, row * 5 + 2, positive)


def test_small_islands_go_and_small_holes_are_filled() -> None:
    probability = scene()
    before = probability.copy()
    assert parts(probability) == (3, 2)
    tidied = Tidy().apply(probability, WHOLE, [click(4, 4, True)], 0.5)
    # a tenth of the object's 137 cells is more than 4 and less than 20
    assert parts(tidied) == (2, 1)
    np.testing.assert_array_equal(probability, before)
    kept = np.abs(tidied - probability) < 1e-6
    assert (~kept).sum() == 5
    assert tidied[18, 4] == pytest.approx(0.2)
    assert tidied[3, 3] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("drop_cells", "fill_cells", "expected"),
    [(0, 0, (3, 2)), (4.1, 0, (2, 2)), (20.1, 0, (1, 2)), (1e9, 0, (1, 2)),
     (0, 1.1, (3, 1)), (0, 30.1, (3, 0)), (20.1, 30.1, (1, 0))],
)  # fmt: skip
def test_sizes_are_those_of_the_image(
    drop_cells: float, fill_cells: float, expected: tuple[int, int]
) -> None:
    tidy = Tidy(drop_cells * CELL_PX, fill_cells * CELL_PX)
    assert parts(tidy.apply(scene(), WHOLE, [], 0.5)) == expected


def test_what_was_clicked_stays() -> None:
    clicks = [click(18, 4, True), click(3, 3, False)]
    tidied = Tidy(1e9, 1e9).apply(scene(), WHOLE, clicks, 0.5)
    assert (tidied[18:20, 4:6] >= 0.5).all()
    assert tidied[3, 3] < 0.5
    assert parts(tidied) == (2, 1)


def test_a_clean_map_is_left_as_it_is() -> None:
    for probability in (np.zeros(GRID, np.float32), np.ones(GRID, np.float16)):
        assert Tidy().apply(probability, WHOLE, [], 0.5) is probability
    ground = np.full(GRID, 0.9, np.float32)
    ground[:, 10:12] = 0.1  # background that meets the border is no hole
    assert Tidy(0, None).apply(ground, WHOLE, [], 0.5) is ground


def test_an_island_in_a_hole_goes_with_it() -> None:
    probability = np.full(GRID, 0.9, np.float32)
    probability[8:13, 8:13] = 0.1
    probability[10, 10] = 0.9
    tidied = Tidy().apply(probability, WHOLE, [], 0.5)
    assert parts(tidied) == (1, 0)


@pytest.mark.parametrize(
    ("values", "error"),
    [((-1, None), ValueError), ((None, np.nan), ValueError), (("9", 0), TypeError),
     ((True, 0), TypeError)],
)  # fmt: skip
def test_bad_sizes_are_refused(values: tuple, error: type[Exception]) -> None:
    with pytest.raises(error, match="_px: expected"):
        Tidy(*values)


def test_all_that_a_prediction_shows_is_tidy(segmenter: Segmenter, photo: np.ndarray) -> None:
    encoded = segmenter.encode(photo)
    plain = segmenter.session(encoded, drop_islands_px=0, fill_holes_px=0)
    tidy = segmenter.session(encoded, drop_islands_px=1e9, fill_holes_px=1e9)
    clicks = [(80, 60, True), (20, 30, True), (90, 66, False)]
    for count, click in enumerate(clicks, 1):
        before, p = plain.add_click(*click), tidy.add_click(*click)
        np.testing.assert_array_equal(p.mask > 0, p.probability >= 0.5)
        np.testing.assert_array_equal(p.candidates[p.selected], p.mask)
        if count == 1:  # the next click builds on what was shown
            for shown, raw in zip(p.grid_probabilities, before.grid_probabilities, strict=True):
                expected = Tidy(1e9, 1e9).apply(raw, WHOLE, p.prompts, 0.5)
                np.testing.assert_array_equal(shown, expected)
    with pytest.raises(ValueError, match="fill_holes_px: expected >= 0"):
        segmenter.session(encoded, fill_holes_px=-1)
