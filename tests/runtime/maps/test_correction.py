"""Every clicked pixel has its label, and a click changes what it is about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import write_tiny

from trtseg import Box, Click, Segmenter, Stroke, ops
from trtseg.runtime.maps.correction import enforce, keep_local

REGION, GRID, SIZE = (0, 0, 120, 160), (30, 40), (120, 160)


def shown(values: np.ndarray, region: tuple = REGION) -> np.ndarray:
    size = region[2] - region[0], region[3] - region[1]
    return ops.compose_mask(values.astype(np.float32), size)[0] > 0


def held(mask: np.ndarray, clicks: list[Click]) -> list[bool]:
    return [mask[click.pixel] == click.positive for click in clicks]


def test_maps_that_obey_are_left_alone() -> None:
    maps = np.full((2, *GRID), 0.9, np.float32)
    values, obeyed = enforce(maps, [Click(5, 5), Stroke([(3, 3), (90, 90)])], REGION, SIZE, 0.5)
    assert values is maps
    assert obeyed == (True, True)
    values, obeyed = enforce(maps, [Box(2, 2, 9, 9)], REGION, SIZE, 0.5)
    assert values is maps


def test_what_disobeys_changes_near_the_click_alone() -> None:
    maps = np.stack([np.full(GRID, 0.1, np.float32), np.full(GRID, 0.8, np.float32)])
    values, obeyed = enforce(maps, [Click(81, 62)], REGION, SIZE, 0.5)
    assert obeyed == (False, True)
    np.testing.assert_array_equal(values[1], maps[1])
    assert shown(values[0])[62, 81]
    away = np.argwhere(values[0] != maps[0]) - (15, 20)
    assert len(away) > 0
    assert np.abs(away).max() <= 3
    np.testing.assert_array_equal(maps[0], np.float32(0.1))


def test_cells_that_nearly_agree_come_along() -> None:
    values = np.full((1, *GRID), 0.05, np.float32)
    values[0, :, 20:] = 0.45
    mask = shown(enforce(values, [Click(80, 60)], REGION, SIZE, 0.5)[0][0])
    xs = np.nonzero(mask)[1]
    assert 80 - xs.min() < xs.max() - 80


@settings(max_examples=150, deadline=None)
@given(
    clicks=st.lists(
        st.builds(Click, st.integers(0, 159), st.integers(0, 119), st.booleans()),
        min_size=1, max_size=12, unique_by=lambda click: click.pixel,
    ),
    seed=st.integers(0, 9),
    grid=st.sampled_from([GRID, (15, 20), (1, 1), (1, 8), (120, 160), (7, 5)]),
    dtype=st.sampled_from([np.float32, np.float16]),
)  # fmt: skip
def test_clicks_hold_whatever_the_networks_say(
    clicks: list[Click], seed: int, grid: tuple[int, int], dtype: type
) -> None:
    rng = np.random.default_rng(seed)
    maps = rng.random((2, *grid)).astype(dtype) ** 3
    values, _ = enforce(maps, clicks, REGION, SIZE, 0.5)
    assert values.dtype == dtype
    assert values.min() >= 0
    assert values.max() <= 1
    cells = {(int(c.y * grid[0] / 120), int(c.x * grid[1] / 160)) for c in clicks}
    if len(cells) == len(clicks) and grid[0] > 7:
        # no map of these cells can do everything for clicks that share one
        for each in values:
            assert all(held(shown(each), clicks))


def test_clicks_of_both_kinds_two_pixels_apart_hold() -> None:
    clicks = [Click(80, 60), Click(82, 60, False), Click(80, 62, False), Click(78, 59, False)]
    for value in (0.02, 0.5, 0.98):
        values, _ = enforce(np.full((1, *GRID), value, np.float32), clicks, REGION, SIZE, 0.5)
        assert all(held(shown(values[0]), clicks))


def test_the_newest_of_a_contradiction_counts() -> None:
    clicks = [Click(80, 60), Click(80, 60, False)]
    for value in (0.1, 0.9):
        values, _ = enforce(np.full((1, *GRID), value, np.float32), clicks, REGION, SIZE, 0.5)
        assert not shown(values[0])[60, 80]
    over = [Click(80, 60), Stroke([(60, 60), (100, 60)], False, 6)]
    values, _ = enforce(np.full((1, *GRID), 0.9, np.float32), over, REGION, SIZE, 0.5)
    assert not shown(values[0])[60, 60:101].any()
    values, _ = enforce(np.full((1, *GRID), 0.9, np.float32), over[::-1], REGION, SIZE, 0.5)
    mask = shown(values[0])
    assert mask[60, 80]
    assert not mask[60, 62:72].any()


def test_a_stroke_holds_over_its_length() -> None:
    stroke = Stroke([(20, 20), (120, 90)], radius_px=4)
    values, obeyed = enforce(np.zeros((1, *GRID), np.float32), [stroke], REGION, SIZE, 0.5)
    assert obeyed == (False,)
    mask = shown(values[0])
    for part in np.linspace(0, 1, 50):
        assert mask[round(20 + 70 * part), round(20 + 100 * part)]


def test_prompts_outside_of_a_crop_are_left_to_the_crop() -> None:
    region = (40, 40, 70, 80)
    maps = np.full((1, *GRID), 0.9, np.float32)
    values, obeyed = enforce(maps, [Click(10, 10, False)], region, SIZE, 0.5)
    assert values is maps
    assert obeyed == (True,)


def blobs(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    values = np.full(GRID, 0.1, np.float32)
    for y0, x0, y1, x1 in boxes:
        values[y0:y1, x0:x1] = 0.9
    return values


def test_only_what_a_click_touches_changes() -> None:
    before = blobs((5, 5, 15, 15))
    after = blobs((5, 5, 15, 22), (20, 30, 26, 36))
    values = keep_local(before, after, [Click(18 * 4, 10 * 4)], REGION, 0.5)
    np.testing.assert_array_equal(values >= 0.5, blobs((5, 5, 15, 22)) >= 0.5)
    values = keep_local(before, after, [Click(33 * 4, 23 * 4)], REGION, 0.5)
    np.testing.assert_array_equal(
        values >= 0.5, blobs((5, 5, 15, 15), (20, 30, 26, 36)) >= 0.5
    )
    both = [Click(33 * 4, 23 * 4), Stroke([(18 * 4, 10 * 4), (19 * 4, 10 * 4)])]
    assert keep_local(before, after, both, REGION, 0.5) is after
    assert keep_local(before, after, [Box(3, 3, 90, 90)], REGION, 0.5) is after


def test_a_click_on_what_is_right_changes_nothing() -> None:
    before, after = blobs((5, 5, 15, 15)), blobs((5, 5, 16, 15), (20, 30, 26, 36))
    values = keep_local(before, after, [Click(7 * 4, 7 * 4)], REGION, 0.5)
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("focus", ["auto", None])
def test_a_session_shows_what_was_clicked(
    tmp_path: Path, photo: np.ndarray, focus: str | None
) -> None:
    deaf = Segmenter.load(write_tiny(tmp_path / "deaf", click_weight=0), threads=1)
    session = deaf.session(deaf.encode(photo), focus=focus)
    rng = np.random.default_rng(3)
    made = []
    for _ in range(15):
        x, y = rng.integers(0, 150), rng.integers(0, 110)
        p = session.add_click(x, y, bool(rng.integers(2)))
        made.append(p.obeyed)
        assert session.corrections_respected == 1
        np.testing.assert_array_equal(p.candidates[p.selected], p.mask)
        np.testing.assert_array_equal(p.probability >= 0.5, p.mask > 0)
        for index in range(3):
            session.select(index)
            assert session.corrections_respected == 1
            session.undo()
    assert not all(made)


def test_the_next_click_builds_on_what_was_shown(segmenter: Segmenter, photo: np.ndarray) -> None:
    seen = []

    class Watch:
        def start(self) -> None:
            return None

        def adapt(self, weights: None, observation: object) -> None:
            seen.append(observation.previous)  # type: ignore[attr-defined]

        def engine(self, weights: None) -> None:
            return None

    session = segmenter.session(segmenter.encode(photo), focus=None, adapt=Watch())
    for x, y, positive in ((80, 60, True), (82, 61, False), (20, 20, True), (83, 62, True)):
        before = session.prediction
        session.add_click(x, y, positive)
        if before.selected >= 0:
            np.testing.assert_array_equal(seen[-1], before.grid_probabilities[before.selected])


def test_a_session_may_be_other_than_local(segmenter: Segmenter, photo: np.ndarray) -> None:
    encoded = segmenter.encode(photo)
    local, free = (segmenter.session(encoded, local=on, focus=None) for on in (True, False))
    for session in (local, free):
        session.add_click(30, 30)
        session.add_click(120, 90)
    a, b = local.prediction, free.prediction
    assert a.probability[90, 120] == b.probability[90, 120]
    first = local.undo()
    np.testing.assert_array_equal(a.probability[:40, :40], first.probability[:40, :40])
    assert (b.probability[:40, :40] != first.probability[:40, :40]).any()
    with pytest.raises(TypeError, match="local: expected a bool"):
        segmenter.session(encoded, local=None)  # type: ignore[arg-type]
