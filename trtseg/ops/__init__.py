"""The operations between the networks, on arrays of NumPy, CUDA libraries and torch alike.

Torch's tensors are taken as they lie, by DLPack or the CUDA array interface, without their history:
no operation records a gradient.
"""

from trtseg.ops.add_guidance import add_guidance
from trtseg.ops.best_map import best_map
from trtseg.ops.click_maps import click_maps
from trtseg.ops.compose_mask import compose_mask
from trtseg.ops.distance_transform import distance_transform
from trtseg.ops.guided_upsample import guided_upsample
from trtseg.ops.hypercolumn import hypercolumn
from trtseg.ops.jaccard import jaccard, jaccard_gradient
from trtseg.ops.prepare_image import prepare_image

__all__ = [
    "add_guidance",
    "best_map",
    "click_maps",
    "compose_mask",
    "distance_transform",
    "guided_upsample",
    "hypercolumn",
    "jaccard",
    "jaccard_gradient",
    "prepare_image",
]
