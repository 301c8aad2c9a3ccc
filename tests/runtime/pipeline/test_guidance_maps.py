from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtseg import Click
from trtseg.bundle import Guidance
from trtseg.runtime.engine import HostMemory
from trtseg.runtime.pipeline.guidance_maps import GuidanceMaps
from trtseg.runtime.prompts import GridPrompts, on_grid
from trtseg.types import Box, Prompt

GRID = (24, 32)
REGION = (10, 20, 106, 148)  # 96 x 128 pixels: four to a cell

clicks = st.lists(
    st.builds(Click, st.floats(20, 147), st.floats(10, 105), st.booleans()), max_size=6
)


def spec(click_map: str = "gaussian", channels: int = 5) -> Guidance:
    return Guidance(channels, click_map, 2.0, 40.0, channels > 4, channels > 5)


def points(some: list[Prompt]) -> GridPrompts:
    return on_grid(some, REGION, GRID)


def fresh(click_map: str, channels: int = 5) -> GuidanceMaps:
    return GuidanceMaps(spec(click_map, channels), GRID, 4, HostMemory(), np.float32)


def expected(some: list[Click], click_map: str) -> np.ndarray:
    """The definition, in float64."""
    maps = np.zeros((4, *GRID))
    y, x = np.mgrid[: GRID[0], : GRID[1]]
    for kind, positive in enumerate((True, False)):
        nearest = np.full(GRID, 10.0)
        for click in some:
            if click.positive == positive:
                cy, cx = (click.y - 10 + 0.5) / 4 - 0.5, (click.x - 20 + 0.5) / 4 - 0.5
                nearest = np.minimum(nearest, np.hypot(y - cy, x - cx))
                if click_map == "point":
                    maps[kind, min(int(cy + 0.5), 23), min(int(cx + 0.5), 31)] = 1
        maps[2 + kind] = nearest / 10
        if click_map == "gaussian":
            maps[kind] = np.exp(-(nearest**2) / 8)
    return maps


@given(some=clicks, click_map=st.sampled_from(["point", "gaussian"]))
def test_maps_are_their_definition(some: list[Click], click_map: str) -> None:
    guidance = fresh(click_map)
    guidance.update(points(some), None)
    # float32 coordinates and distances of at most 10
    np.testing.assert_allclose(guidance.maps[0, :4], expected(some, click_map), atol=2e-5)
    assert (guidance.maps[0, 4] == 0).all()


@given(lists=st.lists(clicks, max_size=5), click_map=st.sampled_from(["point", "gaussian"]))
def test_maps_do_not_depend_on_what_was_drawn_before(
    lists: list[list[Click]], click_map: str
) -> None:
    reused = fresh(click_map)
    for some in lists:
        for count in range(len(some) + 1):  # click by click, and back to none
            reused.update(points(some[:count]), None)
            scratch = fresh(click_map)
            scratch.update(points(some[:count]), None)
            np.testing.assert_array_equal(reused.maps, scratch.maps)


def test_the_previous_mask_is_the_last_channel() -> None:
    previous = np.random.default_rng(0).random(GRID, np.float32)
    guidance = fresh("point")
    guidance.update(points([]), previous)
    np.testing.assert_array_equal(guidance.maps[0, 4], previous)
    assert (guidance.maps[0, :2] == 0).all()
    assert (guidance.maps[0, 2:4] == 1).all()
    without = fresh("point", channels=4)
    without.update(points([]), previous)
    assert without.maps.shape == (1, 4, *GRID)


def test_a_box_is_the_last_channel() -> None:
    box = Box(60, 50, 98, 88)
    guidance = fresh("point", channels=6)
    guidance.update(points([box]), None)
    # ten columns and rows of four pixels, the boundary's cells among them
    inside = guidance.maps[0, 5] > 0
    rows, columns = np.nonzero(inside)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 19, 10, 19)
    assert inside.sum() == 100
    guidance.update(points([]), None)
    assert (guidance.maps[0, 5] == 0).all()


def test_training_draws_the_same_maps() -> None:
    torch = pytest.importorskip("torch")
    from networks import grid_config

    from trtseg.nn.layers.guidance import guidance_maps

    some = [Click(30, 40), Click(100.25, 77.5), Click(60, 20, False)]
    for click_map in ("gaussian", "point"):
        config = grid_config(click_map=click_map, distance_limit_px=40.0)
        rows = [[c.y - 10, c.x - 20, float(c.positive)] for c in some]
        trained = guidance_maps(torch.tensor([rows]), GRID, config)[0].numpy()
        guidance = fresh(click_map)
        guidance.update(points(some), None)
        np.testing.assert_allclose(guidance.maps[0], trained, atol=1e-6)
