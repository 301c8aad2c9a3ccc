from __future__ import annotations

import numpy as np

from trtseg import Click
from trtseg.runtime.maps.choice import Preference

REGION = (0, 0, 40, 40)


def block(y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
    values = np.full((40, 40), 0.1, np.float32)
    values[y0:y1, x0:x1] = 0.9
    return values


SMALL, MEDIUM, LARGE = block(10, 10, 20, 20), block(8, 8, 26, 26), block(4, 4, 36, 36)
MAPS = np.stack((SMALL, MEDIUM, LARGE))


def test_the_most_similar_candidate_is_kept() -> None:
    clicks = (Click(15, 15), Click(16, 14))
    for index, chosen in enumerate(MAPS):
        assert Preference(REGION, chosen, 1).choose(MAPS, REGION, clicks, 0.5) == index


def test_a_click_outweighs_similarity() -> None:
    preference = Preference(REGION, SMALL, 1)
    clicks = (Click(15, 15), Click(24, 24))
    assert preference.choose(MAPS, REGION, clicks, 0.5) == 1
    clicks = (Click(15, 15), Click(33, 33))
    assert preference.choose(MAPS, REGION, clicks, 0.5) == 2
    preference = Preference(REGION, LARGE, 1)
    assert preference.choose(MAPS, REGION, (Click(15, 15), Click(30, 30, False)), 0.5) == 1


def test_where_all_violate_a_click_similarity_decides() -> None:
    clicks = (Click(15, 15), Click(15, 16, False))
    assert Preference(REGION, LARGE, 1).choose(MAPS, REGION, clicks, 0.5) == 2


def test_the_surroundings_of_a_new_click_may_change() -> None:
    """Two candidates differ from the choice: one beside the click, one elsewhere, by less."""
    chosen = block(10, 10, 20, 20)
    beside, elsewhere = chosen.copy(), chosen.copy()
    beside[20:24, 12:18] = 0.9
    elsewhere[10:14, 20:24] = 0.9
    candidates = np.stack((elsewhere, beside))
    elsewhere[21:23, 14:16] = 0.9  # both respect the click
    candidates = np.stack((elsewhere, beside))
    clicks = (Click(15, 15), Click(15, 22))
    assert Preference(REGION, chosen, 1).choose(candidates, REGION, clicks, 0.5) == 1


def test_the_choice_follows_into_a_crop() -> None:
    crop = (5, 5, 25, 25)
    close = np.stack([np.kron(m[5:25, 5:25], np.ones((2, 2), np.float32)) for m in MAPS])
    clicks = (Click(15, 15), Click(16, 14))
    for index, chosen in enumerate(MAPS):
        assert Preference(REGION, chosen, 1).choose(close, crop, clicks, 0.5) == index


def test_empty_maps_agree_and_the_first_wins() -> None:
    candidates = np.zeros((2, 40, 40), np.float32)
    assert Preference(REGION, candidates[0], 0).choose(candidates, REGION, (), 0.5) == 0
