"""What the runtime is told of a network."""

from __future__ import annotations

from typing import Any

import numpy as np

from trtseg.nn.network import LatentDiversity, normalisation

PARAMETERS = "parameters.npz"
# every encoder halves its image at most five times
MULTIPLE_PX = 32


def parameters_of(network: LatentDiversity) -> dict[str, np.ndarray]:
    """What lies outside of the graphs, float32: `guidance_weight` [C, G], `bias` [C] and, with an
    image term, `image_weight` [C, 3]."""
    found = {"guidance_weight": network.effective_guidance_weight(), "bias": network.bias}
    if network.image_weight is not None:
        found["image_weight"] = network.image_weight
    return {
        name: value.detach().cpu().numpy().astype(np.float32) for name, value in found.items()
    }


def manifest_of(network: LatentDiversity, name: str) -> dict[str, Any]:
    """The manifest's description of a network, without graphs, files and provenance."""
    config = network.config
    mean, scale = normalisation(config)
    return {
        "name": name,
        "kind": "latent-diversity",
        "network": config.to_dict(),
        "working_size": {"long_side_px": config.working_long_side_px, "multiple_px": MULTIPLE_PX},
        "image": {"mean": list(mean), "scale": list(scale)},
        "base": {
            "stride": config.base_stride,
            "channels": config.width,
            "levels": 0 if network.encoder is None else network.encoder.levels,
            "image_term": config.image_term,
        },
        "maps": [
            {"channels": width, "stride": config.base_stride * 2 ** (index + 1)}
            for index, width in enumerate(config.map_widths)
        ],
        "guidance": {
            "channels": config.guidance_channels,
            "click_map": config.click_map,
            "sigma_grid_px": config.sigma_grid_px,
            "distance_limit_px": config.distance_limit_px,
            "previous_mask": config.previous_mask,
            "region": config.region,
        },
        "candidates": config.candidates,
        "threshold": 0.5,
        "select_inputs": [] if network.select is None else list(config.select_inputs),
        "parameters": PARAMETERS,
    }
