"""Configurations of networks that tests run."""

import json
from pathlib import Path

from trtseg.nn.config import NetworkConfig
from trtseg.nn.deeplab import DeepLabConfig

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def lite_config(**changes):
    """The network that ships."""
    return NetworkConfig.from_dict({**_network("lite"), **changes})


def small_config(**changes):
    """The sibling of CA's initial model that was trained."""
    return DeepLabConfig(**{**_network("deeplab_small"), **changes})


def _network(name):
    return json.loads((CONFIGS / f"{name}.json").read_text())["network"]


def grid_config(**changes):
    """No model that ships: layers of growing dilation over MobileNetV2, on a grid of stride 4."""
    values = {
        "encoder": "mobilenet_v2",
        "base_stride": 4,
        "image_term": False,
        "click_map": "gaussian",
        "previous_mask": True,
        "dilations": (1, 2, 4, 8, 16, 32, 1),
        "residual": True,
        "select_inputs": ("guidance", "masks", "features"),
        "select_width": 32,
        "select_dilations": (1, 2, 4, 8, 1),
        "select_stride": 2,
        "select_pooling": "disagreement",
        "select_by": "overlap",
        "working_long_side_px": 384,
    }
    return NetworkConfig(**{**values, **changes})
