"""Validation's predictor computes what the runtime's pipeline computes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import grid_config

from trtseg import bundle
from trtseg.nn import engines
from trtseg.nn.config import NetworkConfig, lite_config
from trtseg.nn.network import LatentDiversity, normalisation
from trtseg.nn.predictor import MULTIPLE_PX, Predictor
from trtseg.runtime.image import as_picture
from trtseg.runtime.pipeline import Pipeline
from trtseg.types import Click

SMALL = {"width": 8, "dilations": (1, 2), "select_width": 8, "select_dilations": (1,)}
CONFIGS = {
    "grid": grid_config(**SMALL, working_long_side_px=96),
    "lite": lite_config(working_long_side_px=96),
    "paper": NetworkConfig(**SMALL, working_long_side_px=64),
    "without g": NetworkConfig(**SMALL, encoder="none", select="rank", working_long_side_px=64),
}


def pipeline(network):
    """The runtime over the same network, on torch."""
    config = network.config
    mean, scale = normalisation(config)
    manifest = bundle.Manifest(
        name="test",
        kind="latent-diversity",
        long_side_px=config.working_long_side_px,
        multiple_px=MULTIPLE_PX,
        mean=mean,
        scale=scale,
        base_stride=config.base_stride,
        channels=config.width,
        levels=0 if network.encoder is None else network.encoder.levels,
        maps=tuple(
            bundle.ImageMap(width, config.base_stride * 2 ** (index + 1))
            for index, width in enumerate(config.map_widths)
        ),
        image_term=config.image_term,
        guidance=bundle.Guidance(
            config.guidance_channels, config.click_map, config.sigma_grid_px,
            config.distance_limit_px, config.previous_mask, config.region,
        ),
        candidates=config.candidates,
        threshold=0.5,
        select_inputs=() if network.select is None else config.select_inputs,
        graphs={},
        raw={},
    )  # fmt: skip
    parameters = {
        "guidance_weight": network.effective_guidance_weight(),
        "bias": network.bias,
        "image_weight": network.image_weight,
    }
    arrays = {n: p.detach().numpy() for n, p in parameters.items() if p is not None}
    given = SimpleNamespace(manifest=manifest, parameters=arrays, fingerprint="test")
    return Pipeline(given, engines.load(network, device="cpu", half=False))


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_the_runtime(name):
    network = LatentDiversity(CONFIGS[name]).eval()
    image = np.random.default_rng(0).integers(0, 256, (70, 101, 3), np.uint8)
    runtime, ours = pipeline(network), Predictor(network)
    theirs = runtime.encode(as_picture(image), (0, 0, 70, 101))
    encoding = ours.encode(image)
    assert encoding.working_size == theirs.working_size
    np.testing.assert_allclose(encoding.levels[0][0].numpy(), theirs.base, rtol=1e-4, atol=1e-4)
    clicks, previous = [], None
    for click in (Click(30, 20), Click(90.5, 60, False), Click(100, 0)):
        clicks.append(click)
        host = None if previous is None else previous.numpy()
        candidates = runtime.click(theirs, clicks, host)
        maps, selected = ours.click(encoding, clicks, previous)
        np.testing.assert_allclose(maps.numpy(), candidates.probabilities, rtol=1e-3, atol=1e-4)
        assert selected == int(candidates.scores.argmax())
        previous = maps[selected]


def test_by_rank_and_in_bfloat16():
    network = LatentDiversity(CONFIGS["lite"])
    image = np.random.default_rng(0).integers(0, 256, (70, 101, 3), np.uint8)
    plain, fast = Predictor(network), Predictor(network, bf16=True, by_rank=True)
    maps, _ = plain.click(plain.encode(image), [Click(30, 20)], None)
    rough, selected = fast.click(fast.encode(image), [Click(30, 20)], None)
    assert selected == 0
    torch.testing.assert_close(rough, maps, rtol=0, atol=0.05)
    enlarged = Predictor.probability(maps, (70, 101))
    assert enlarged.shape == (6, 70, 101)
    assert enlarged.dtype == np.float32
