"""Configurations of networks that tests run and no model that ships has."""

from trtseg.nn.config import NetworkConfig


def grid_config(**changes):
    """A context aggregation network over MobileNetV2's levels on a grid of stride 4."""
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
