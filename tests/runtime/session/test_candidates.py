"""Candidates are corrected when they are looked at, and to the same maps as all at once."""

from __future__ import annotations

import numpy as np
import pytest

from trtseg import Segmenter
from trtseg.runtime.engine import HostMemory
from trtseg.runtime.maps.tidy import Tidy
from trtseg.runtime.session.candidates import CandidateMaps


@pytest.fixture
def tidied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for each map that is tidied."""
    seen: list[int] = []
    apply = Tidy.apply

    def counted(self, probability, *rest):
        seen.append(1)
        return apply(self, probability, *rest)

    monkeypatch.setattr(Tidy, "apply", counted)
    return seen


def test_a_click_corrects_the_map_that_it_shows(
    segmenter: Segmenter, photo: np.ndarray, tidied: list[int]
) -> None:
    session = segmenter.session(segmenter.encode(photo), edges=False)
    for count, (x, y) in enumerate([(80, 60), (95, 70)], start=1):
        p = session.add_click(x, y)
        assert len(tidied) == count
    assert len(p.grid_probabilities) == 3
    assert len(tidied) == 2 + 2
    _ = p.candidates, p.candidate_probability(1)
    session.select((p.selected + 1) % 3)
    assert len(tidied) == 2 + 2


def test_each_is_corrected_once_and_alone() -> None:
    found = np.stack([np.full((2, 3), value, np.float32) for value in (0.1, 0.2, 0.3)])
    asked = []

    def correct(index: int, values: np.ndarray) -> tuple[np.ndarray, bool]:
        asked.append(index)
        return (values + 0.5, False) if index == 1 else (values, True)

    maps = CandidateMaps(HostMemory(), found, correct)
    assert (len(maps), asked) == (3, [])
    np.testing.assert_array_equal(maps[1], found[1] + 0.5)
    assert not maps[1].flags.writeable
    assert (maps.obeyed(1), maps.changed(1), asked) == (False, True, [1])
    assert (maps.obeyed(0), maps.changed(0), asked) == (True, False, [1, 0])
    np.testing.assert_array_equal(np.array(list(maps))[[0, 2]], found[[0, 2]])
    assert asked == [1, 0, 2]


def test_without_a_correction_they_are_as_found() -> None:
    found = np.zeros((1, 2, 3), np.float32)
    maps = CandidateMaps(HostMemory(), found)
    np.testing.assert_array_equal(maps[0], found[0])
    assert maps.obeyed(0)
    assert not maps.changed(0)
