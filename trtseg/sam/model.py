"""The model object that Segment Anything's programs hold, and the registry that builds it."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from trtseg.runtime.segmenter import Segmenter
from trtseg.sam.predictor import SamPredictor, torch_module
from trtseg.sam.transforms import IMAGE_PX


class Sam:
    """A segmenter with the attributes of Segment Anything's module.

    Attributes:
        segmenter: what runs; shared by every predictor on this model.
        image_encoder: has `img_size`, the longer side of the frame of points and images.
        mask_threshold: a pixel is object where its logit is above.
        image_format: of the images that `preprocess` of the original expects.
    """

    mask_threshold: float = 0.0
    image_format: str = "RGB"

    def __init__(self, segmenter: Segmenter, device: str = "cpu") -> None:
        """Wrap a segmenter.

        Args:
            segmenter: see `Segmenter.load`.
            device: where the tensors live that are given out.
        """
        self.segmenter, self._device = segmenter, device
        self.image_encoder = SimpleNamespace(img_size=IMAGE_PX)

    @property
    def device(self) -> Any:
        """The torch.device on which tensors are given out."""
        return torch_module().device(self._device)

    def to(self, device: Any) -> Sam:
        """Load the model for another device ("cuda", "cpu", a torch.device); returns itself.

        Raises:
            BackendUnavailable: nothing here runs on that device.
            ValueError: there is no such device.
        """
        name = str(device)
        if name != self._device:
            path = self.segmenter.bundle.path
            self.segmenter, self._device = Segmenter.load(path, device=name), name
        return self

    def eval(self) -> Sam:
        """Nothing to do; returns itself."""
        return self

    def __call__(
        self, batched_input: list[dict[str, Any]], multimask_output: bool
    ) -> list[dict[str, Any]]:
        """Masks for several images, each with a batch of prompts.

        Args:
            batched_input: one dict per image: `image` [3, H, W], in the frame whose longer side
                is 1024; `original_size` (height, width); and as for `SamPredictor.predict_torch`
                `point_coords`, `point_labels`, `boxes`, `mask_inputs`, where wanted.
            multimask_output: see `SamPredictor.predict`.

        Returns:
            One dict per image: `masks` bool [B, C, H, W], `iou_predictions` [B, C] and
            `low_res_logits` [B, C, 256, 256], tensors.

        Raises:
            As `SamPredictor.set_torch_image` and `predict_torch`.
        """
        found = []
        for record in batched_input:
            predictor = SamPredictor(self)
            predictor.set_torch_image(record["image"][None], record["original_size"])
            masks, scores, logits = predictor.predict_torch(
                record.get("point_coords"),
                record.get("point_labels"),
                record.get("boxes"),
                record.get("mask_inputs"),
                multimask_output,
            )
            found.append({"masks": masks, "iou_predictions": scores, "low_res_logits": logits})
        return found


def build_sam(checkpoint: str | os.PathLike[str] | None = None) -> Sam:
    """A model of this package; the one that ships without `checkpoint`.

    Args:
        checkpoint: a bundle's name or path (weights of Segment Anything are not read).

    Raises:
        BundleError: there is no such bundle.
        BackendUnavailable: no backend works here.
        EngineError: a network cannot be loaded.
    """
    return Sam(Segmenter.load("lite" if checkpoint is None else checkpoint))


build_sam_vit_h = build_sam_vit_l = build_sam_vit_b = build_sam

# The sizes of Segment Anything's own models say nothing here: every name builds the same.
sam_model_registry: dict[str, Callable[..., Sam]] = {
    "default": build_sam,
    "vit_h": build_sam_vit_h,
    "vit_l": build_sam_vit_l,
    "vit_b": build_sam_vit_b,
}
