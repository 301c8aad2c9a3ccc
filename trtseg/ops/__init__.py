"""The operations between the networks, on arrays of NumPy, CUDA libraries and torch alike."""

from trtseg.ops.add_guidance import add_guidance
from trtseg.ops.best_map import best_map
from trtseg.ops.click_maps import click_maps
from trtseg.ops.compose_mask import compose_mask
from trtseg.ops.distance_map import distance_map
from trtseg.ops.distance_transform import distance_transform
from trtseg.ops.hypercolumn import hypercolumn
from trtseg.ops.jaccard import jaccard
from trtseg.ops.prepare_image import prepare_image

__all__ = [
    "add_guidance",
    "best_map",
    "click_maps",
    "compose_mask",
    "distance_map",
    "distance_transform",
    "hypercolumn",
    "jaccard",
    "prepare_image",
]
