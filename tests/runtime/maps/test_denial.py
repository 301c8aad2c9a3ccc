from __future__ import annotations

import numpy as np
import pytest

from trtseg import Click, Stroke
from trtseg.runtime.maps.denial import denies, meant
from trtseg.runtime.maps.focus import image_box

REGION = (0, 0, 80, 80)  # two pixels a cell


def block(y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
    values = np.full((40, 40), 0.1, np.float32)
    values[y0:y1, x0:x1] = 0.9
    return values


def denied(shown: np.ndarray, row: int, column: int, positive: bool = False) -> bool:
    return denies(Click(2 * column + 0.5, 2 * row + 0.5, positive), shown, REGION, 0.5)


def test_a_click_in_the_middle_denies_and_one_near_the_edge_corrects() -> None:
    shown = block(4, 4, 30, 30)
    assert denied(shown, 17, 16)
    assert not denied(shown, 6, 17)  # near the edge
    assert not denied(shown, 35, 35)  # outside
    assert not denied(shown, 17, 16, positive=True)
    assert not denies(Stroke(((30, 30), (40, 40)), positive=False), shown, REGION, 0.5)


def test_a_click_in_a_leak_corrects() -> None:
    shown = np.maximum(block(4, 4, 24, 24), block(10, 24, 16, 38))
    assert not denied(shown, 12, 34)
    assert denied(shown, 13, 13)


def test_all_of_the_grid_has_its_middle_too() -> None:
    everything = block(0, 0, 40, 40)
    assert denied(everything, 20, 20)
    assert not denied(everything, 0, 20)


def test_nothing_is_denied_by_nothing() -> None:
    assert not denied(block(0, 0, 0, 0), 20, 20)


@pytest.mark.parametrize(
    ("scores", "expected"), [([0.9, 0.5, 0.6, 0.1], 2), ([0.9, 0.6, 0.5, 0.1], 1)]
)
def test_the_best_candidate_in_which_every_prompt_holds(scores: list, expected: int) -> None:
    whole, small, larger, other = (0, 0, 40, 40), (2, 2, 9, 9), (1, 1, 12, 12), (9, 9, 30, 30)
    maps = np.stack([block(*box) for box in (whole, small, larger, other)])
    prompts = (Click(10, 10), Click(40, 40, False))
    assert meant(maps, np.array(scores, np.float32), prompts, REGION, 0.5) == expected


def test_where_all_are_denied_there_is_none() -> None:
    maps = np.stack([block(0, 0, 40, 40), block(1, 1, 39, 39)])
    prompts = (Click(10, 10), Click(40, 40, False))
    assert meant(maps, np.array([0.5, 0.4], np.float32), prompts, REGION, 0.5) is None


def test_the_box_in_the_image_covers_the_mask() -> None:
    assert image_box(block(3, 5, 9, 11) >= 0.5, REGION) == (6, 10, 18, 22)
    assert image_box(block(3, 5, 9, 11) >= 0.5, (10, 20, 70, 60)) == (14, 25, 24, 31)
    assert image_box(np.zeros((4, 4), bool), REGION) is None
