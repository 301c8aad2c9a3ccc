"""Segment Anything's names over the runtime: a program written for it changes one import.

`from trtseg.sam import sam_model_registry, SamPredictor, SamAutomaticMaskGenerator` in place of
`from segment_anything import ...`. Signatures, shapes, dtypes, frames and records are those of
`segment-anything` 1.0; the masks are this package's. What differs:

- `sam_model_registry[...](checkpoint)` takes a bundle's name or path; any key, and no checkpoint,
  gives the model that ships.
- The embedding is this model's: another number of channels, on another grid.
- Bad input raises TypeError or ValueError where the original asserts; RuntimeError stays.

torch is imported when a tensor is asked for (`set_torch_image`, `predict_torch`,
`get_image_embedding`, `features`, `device`, a call of the model), never before.
"""

from trtseg.sam.automatic_mask_generator import SamAutomaticMaskGenerator
from trtseg.sam.model import (
    Sam,
    build_sam,
    build_sam_vit_b,
    build_sam_vit_h,
    build_sam_vit_l,
    sam_model_registry,
)
from trtseg.sam.predictor import SamPredictor
from trtseg.sam.transforms import ResizeLongestSide

__all__ = [
    "ResizeLongestSide",
    "Sam",
    "SamAutomaticMaskGenerator",
    "SamPredictor",
    "build_sam",
    "build_sam_vit_b",
    "build_sam_vit_h",
    "build_sam_vit_l",
    "sam_model_registry",
]
