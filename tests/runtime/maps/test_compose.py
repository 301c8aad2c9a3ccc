"""Masks from maps, and the boxes that say what they cover and what has changed."""

import numpy as np
import pytest

from trtseg.runtime.engine import HostMemory
from trtseg.runtime.maps.compose import box_of, changes, compose

SIZE = (61, 47)


def blob(random: np.random.Generator) -> np.ndarray:
    """A map of the whole image that is object in one rectangle, or nowhere."""
    values = np.zeros(SIZE, np.float32)
    y, x = sorted(random.integers(0, 62, 2)), sorted(random.integers(0, 48, 2))
    values[y[0] : y[1], x[0] : x[1]] = 1
    return values


@pytest.mark.parametrize("seed", range(40))
def test_what_has_changed_is_the_box_of_the_difference(seed: int) -> None:
    """From region to region, as a session that zooms in and out composes."""
    random = np.random.default_rng(seed)
    memory = HostMemory()
    previous = np.zeros(SIZE, np.uint8)
    previous_box = None
    for _ in range(8):
        y, x = sorted(random.integers(0, 62, 2)), sorted(random.integers(0, 48, 2))
        region = (0, 0, *SIZE)
        if random.random() < 0.6 and y[0] < y[1] and x[0] < x[1]:
            region = (int(y[0]), int(x[0]), int(y[1]), int(x[1]))
        values = blob(random)[region[0] : region[2], region[1] : region[3]].copy()
        out = np.full(SIZE, 7, np.uint8)
        box = compose(memory, values, region, 0.5, out)
        changed = changes(out, previous, box, previous_box)
        wanted = np.zeros(SIZE, np.uint8)
        wanted[region[0] : region[2], region[1] : region[3]] = np.where(values > 0.5, 255, 0)
        np.testing.assert_array_equal(out, wanted)
        assert box == box_of(wanted)
        assert changed == box_of((wanted != previous).astype(np.uint8))
        previous, previous_box = out, box


def test_beyond_the_two_masks_nothing_is_read() -> None:
    """Of a large image that is most of it."""
    mask, previous = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    mask[10:20, 10:20] = previous[12:25, 8:18] = 255
    previous[50:] = 255  # no part of its box: not looked at
    assert changes(mask, previous, (10, 10, 20, 20), (12, 8, 25, 18)) == (10, 8, 25, 20)
    assert changes(mask, previous, None, (12, 8, 25, 18)) == (12, 8, 25, 18)
    assert changes(mask, previous, (10, 10, 20, 20), None) == (10, 10, 20, 20)
    assert changes(mask, previous, None, None) is None
    assert changes(mask, mask, (10, 10, 20, 20), (10, 10, 20, 20)) is None
