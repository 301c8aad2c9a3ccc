"""Training's guidance maps are those of the runtime and of the native operation."""

import numpy as np
import pytest
import torch

from trtseg import bundle, ops
from trtseg.nn.config import NetworkConfig
from trtseg.nn.layers.guidance import guidance_maps
from trtseg.runtime.engine import HostMemory
from trtseg.runtime.pipeline.guidance_maps import GuidanceMaps
from trtseg.runtime.prompts import on_grid
from trtseg.types import Click

SIZE = (96, 128)  # of image and working image: coordinates need no conversion
CLICKS = [
    [],
    [Click(3, 5)],
    [Click(3, 5), Click(80.25, 40.5, False), Click(127, 95), Click(3.4, 5.2)],
    [Click(-0.5, -0.5, False), Click(127.5, 95.5, False)],
]


def tensor(clicks):
    rows = [(c.y, c.x, float(c.positive)) for c in clicks] + [(0, 0, -1)] * 2
    return torch.tensor(rows, dtype=torch.float32)[None]


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("click_map", ["point", "gaussian"])
@pytest.mark.parametrize("clicks", CLICKS, ids=len)
def test_equals_the_runtime(stride, click_map, clicks):
    config = NetworkConfig(
        base_stride=stride, image_term=False, click_map=click_map, previous_mask=True,
        distance_limit_px=60.0,
    )  # fmt: skip
    grid = (SIZE[0] // stride, SIZE[1] // stride)
    previous = np.random.default_rng(0).random(grid).astype(np.float32)
    ours = guidance_maps(tensor(clicks), grid, config, torch.from_numpy(previous)[None])
    spec = bundle.Guidance(
        5, click_map, config.sigma_grid_px, config.distance_limit_px, True, False
    )
    theirs = GuidanceMaps(spec, grid, stride, HostMemory(), np.float32)
    region = (0, 0, *SIZE)
    theirs.update(on_grid(clicks, region, grid), previous)
    np.testing.assert_allclose(ours.numpy(), theirs.maps, rtol=1e-5, atol=1e-6)


def test_equals_the_native_maps():
    config = NetworkConfig(distance_limit_px=40.0)
    clicks = [Click(3, 5), Click(80.25, 40.5), Click(100, 90)]
    maps = guidance_maps(tensor(clicks), SIZE, config)[0].numpy()
    points = np.full((2, 3, 2), np.nan, np.float32)
    points[0] = [(c.y, c.x) for c in clicks]
    wanted = ops.click_maps(points, np.empty((4, *SIZE), np.float32), limit_px=40.0)
    np.testing.assert_allclose(maps, wanted, rtol=1e-5, atol=1e-6)
    assert (maps[3] == 1).all()  # no negative click


def test_no_clicks_at_all():
    maps = guidance_maps(torch.zeros(2, 0, 3), (8, 9), NetworkConfig())
    assert maps.shape == (2, 4, 8, 9)
    assert (maps[:, :2] == 0).all()
    assert (maps[:, 2:] == 1).all()


def test_batches_are_independent():
    config = NetworkConfig(click_map="gaussian", previous_mask=True)
    both = torch.cat([tensor(CLICKS[1]), tensor([Click(60, 60, False)])])
    together = guidance_maps(both, SIZE, config)
    for index in range(2):
        alone = guidance_maps(both[index : index + 1], SIZE, config)
        assert torch.equal(together[index], alone[0])
