from __future__ import annotations

import numpy as np
import pytest

from trtseg import Click, Stroke
from trtseg.runtime.engine import HostMemory
from trtseg.runtime.maps.candidates import CandidateMaps, Correction
from trtseg.runtime.maps.denial import denies, meant
from trtseg.runtime.maps.focus import image_box
from trtseg.runtime.maps.tidy import Tidy
from trtseg.types import Prompt

REGION = (0, 0, 80, 80)  # two pixels a cell


def block(y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
    values = np.full((40, 40), 0.1, np.float32)
    values[y0:y1, x0:x1] = 0.9
    return values


WHOLE = block(0, 0, 40, 40)


def background(row: int, column: int) -> Click:
    return Click(2 * column + 0.5, 2 * row + 0.5, False)


def denied(shown: np.ndarray, row: int, column: int) -> bool:
    return denies(background(row, column), shown, REGION, 0.5)


def test_a_click_in_the_middle_denies_and_one_near_the_edge_corrects() -> None:
    shown = block(4, 4, 30, 30)
    assert denied(shown, 17, 16)
    assert not denied(shown, 6, 17)  # near the edge
    assert not denied(shown, 35, 35)  # outside


def test_a_click_in_a_leak_corrects() -> None:
    shown = np.maximum(block(4, 4, 24, 24), block(10, 24, 16, 38))
    assert not denied(shown, 12, 34)
    assert denied(shown, 13, 13)


def test_all_of_the_grid_has_its_middle_too() -> None:
    assert denied(WHOLE, 20, 20)
    assert not denied(WHOLE, 0, 20)


def test_a_thin_mask_has_no_middle() -> None:
    assert not denied(block(10, 2, 13, 38), 11, 20)
    assert denied(block(10, 2, 17, 38), 13, 20)


def test_nothing_is_denied_by_nothing() -> None:
    assert not denied(block(0, 0, 0, 0), 20, 20)


def best(
    boxes: list[tuple[int, int, int, int]],
    scores: list[float],
    newest: tuple[Prompt, ...],
    earlier: tuple[Prompt, ...] = (Click(10, 10),),
) -> int | None:
    found = np.stack([block(*box) for box in boxes])
    correction = Correction(Tidy(0, 0), earlier, REGION, (80, 80), 0.5)
    maps = CandidateMaps(HostMemory(), found, 0, correction)
    values = np.stack(list(maps))
    return meant(maps, values, np.array(scores, np.float32), newest, REGION, 0.5)


@pytest.mark.parametrize(
    ("scores", "expected"), [([0.9, 0.5, 0.6, 0.1], 2), ([0.9, 0.6, 0.5, 0.1], 1)]
)
def test_the_best_candidate_that_agrees_with_every_prompt(scores: list, expected: int) -> None:
    boxes = [(0, 0, 40, 40), (2, 2, 9, 9), (1, 1, 12, 12), (9, 9, 18, 18)]
    assert best(boxes, scores, (background(20, 20),)) == expected


def test_what_an_earlier_click_was_forced_on_is_not_meant() -> None:
    boxes = [(0, 0, 40, 40), (25, 25, 38, 38), (1, 1, 12, 12)]
    assert best(boxes, [0.9, 0.8, 0.1], (background(20, 20),)) == 2


def test_what_a_newer_prompt_overruled_does_not_count() -> None:
    earlier = (Click(10, 10), Click(60, 60), Click(60, 60, False))
    boxes = [(0, 0, 29, 29), (1, 1, 12, 12)]
    assert best(boxes, [0.9, 0.8], (background(20, 20),), earlier) == 1


def test_every_new_prompt_counts() -> None:
    boxes = [(0, 0, 40, 40), (1, 1, 12, 12), (1, 1, 18, 18)]
    newest = (background(20, 20), Stroke(((28, 28), (30, 30))))
    assert best(boxes, [0.9, 0.8, 0.1], newest) == 2


def test_where_all_are_denied_there_is_none() -> None:
    assert best([(0, 0, 40, 40), (1, 1, 39, 39)], [0.5, 0.4], (background(20, 20),)) is None


def test_the_box_in_the_image_covers_the_mask() -> None:
    assert image_box(block(3, 5, 9, 11) >= 0.5, REGION) == (6, 10, 18, 22)
    assert image_box(block(3, 5, 9, 11) >= 0.5, (10, 20, 70, 60)) == (14, 25, 24, 31)
    assert image_box(np.zeros((4, 4), bool), REGION) is None
    # 389 / 176 * 176 is a little more than 389
    assert image_box(np.ones((176, 176), bool), (0, 0, 389, 389)) == (0, 0, 389, 389)
