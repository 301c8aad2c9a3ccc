"""The shown map is corrected at once, the others when one is asked for: to the same maps."""

from __future__ import annotations

import gc
import pickle
import weakref

import numpy as np
import pytest

from trtseg import Segmenter
from trtseg.runtime.engine import HostMemory
from trtseg.runtime.maps.candidates import CandidateMaps, Correction
from trtseg.runtime.maps.tidy import Tidy
from trtseg.types import Click

CLICKS = [(80, 60, True), (95, 70, True), (82, 58, False), (30, 100, True)]


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
    for count, (x, y, positive) in enumerate(CLICKS, start=1):
        p = session.add_click(x, y, positive)
        assert len(tidied) == count
    assert len(p.grid_probabilities) == 3
    _ = p.candidates, p.candidate_probability(1)
    assert len(tidied) == len(CLICKS) + 2


@pytest.mark.parametrize("focus", [None, "auto"])
def test_it_does_not_matter_when_they_are_looked_at(
    segmenter: Segmenter, photo: np.ndarray, focus: str | None
) -> None:
    encoded = segmenter.encode(photo)
    early, late = (segmenter.session(encoded, focus=focus) for _ in range(2))
    seen, waiting = [], []
    for x, y, positive in CLICKS:
        seen.append(early.add_click(x, y, positive).grid_probabilities.copy())
        waiting.append(late.add_click(x, y, positive))
    late.undo()
    late.add_click(5, 5, False)
    for maps, prediction in zip(seen, waiting, strict=True):
        np.testing.assert_array_equal(prediction.grid_probabilities, maps)
    # chosen before it was looked at
    early.undo(), late.undo()
    other = (early.prediction.selected + 1) % 3
    np.testing.assert_array_equal(early.select(other).mask, late.select(other).mask)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_as_all_at_once(dtype: type) -> None:
    rng = np.random.default_rng(1)
    found = rng.random((4, 24, 31)).astype(dtype)
    correction = Correction(
        Tidy(), (Click(3, 4), Click(20, 11, positive=False)), (0, 0, 24, 31), (24, 31), 0.5
    )
    expected = [correction.apply(each, found.dtype) for each in found]
    maps = CandidateMaps(HostMemory(), found, 2, correction)
    assert len(maps) == 4
    assert maps.changed
    for index in (2, 3, 0, 1):
        np.testing.assert_array_equal(maps[index], expected[index][0])
        assert maps[index].dtype == dtype
        assert not maps[index].flags.writeable
        assert maps.obeyed(index) == expected[index][1]
    np.testing.assert_array_equal(np.array(list(maps)), np.array([each for each, _ in expected]))


def test_without_a_correction_they_are_as_found() -> None:
    found = np.zeros((1, 2, 3), np.float32)
    maps = CandidateMaps(HostMemory(), found, 0)
    np.testing.assert_array_equal(maps[0], found[0])
    assert maps.obeyed(0)
    assert not maps.changed


def test_a_prediction_keeps_no_model_and_travels(tiny_path, photo: np.ndarray) -> None:
    segmenter = Segmenter.load(tiny_path, threads=1)
    encoded = segmenter.encode(photo)
    session = segmenter.session(encoded)
    prediction = session.add_click(80, 60)
    gone = [weakref.ref(each) for each in (encoded, segmenter.pipeline, session)]
    del encoded, segmenter, session
    gc.collect()
    assert [each() for each in gone] == [None] * 3
    copy = pickle.loads(pickle.dumps(prediction))
    np.testing.assert_array_equal(copy.candidates, prediction.candidates)
