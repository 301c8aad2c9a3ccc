"""Against the package `segment-anything`: its signatures, and its predictor's example.

Its source is read, not imported: it needs torchvision, which nothing here does.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
from pathlib import Path

import numpy as np
import pytest
import torch

import trtseg.sam as ours
from trtseg.sam import SamPredictor, sam_model_registry
from trtseg.sam.transforms import ResizeLongestSide

ORIGINAL = importlib.util.find_spec("segment_anything")
needs_original = pytest.mark.skipif(ORIGINAL is None, reason="needs segment-anything")
CLASSES = {
    "SamPredictor": "predictor.py",
    "SamAutomaticMaskGenerator": "automatic_mask_generator.py",
    "ResizeLongestSide": "utils/transforms.py",
}


def source(name: str) -> ast.Module:
    assert ORIGINAL is not None
    assert ORIGINAL.submodule_search_locations is not None
    return ast.parse((Path(ORIGINAL.submodule_search_locations[0]) / name).read_text())


def parameters(function: ast.FunctionDef) -> list[tuple[str, object]]:
    """(name, default) of each parameter; `inspect.Parameter.empty` without a default."""
    arguments = function.args.args
    defaults = [eval(ast.unparse(node)) for node in function.args.defaults]
    missing = [inspect.Parameter.empty] * (len(arguments) - len(defaults))
    found = [(a.arg, d) for a, d in zip(arguments, missing + defaults, strict=True)]
    return [each for each in found if each[0] != "self"]


def of_ours(function: object) -> list[tuple[str, object]]:
    found = inspect.signature(function).parameters.values()
    return [(p.name, p.default) for p in found if p.name != "self"]


@needs_original
@pytest.mark.parametrize("name", CLASSES)
def test_methods_have_the_same_signatures(name: str) -> None:
    tree = source(CLASSES[name])
    original = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)
    methods = [
        node
        for node in original.body
        if isinstance(node, ast.FunctionDef)
        and (node.name == "__init__" or not node.name.startswith("_"))
    ]
    assert methods
    for method in methods:
        mine = inspect.getattr_static(getattr(ours, name), method.name)
        kinds = {getattr(d, "id", None) for d in method.decorator_list}
        assert isinstance(mine, property) == ("property" in kinds), method.name
        assert isinstance(mine, staticmethod) == ("staticmethod" in kinds), method.name
        if not isinstance(mine, property):
            assert of_ours(getattr(getattr(ours, name), method.name)) == parameters(method)


@needs_original
def test_the_package_gives_the_same_names() -> None:
    names = {
        alias.name
        for node in source("__init__.py").body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert names <= set(ours.__all__)
    tree = source("build_sam.py")
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            assert of_ours(getattr(ours, node.name)) == parameters(node)
    registry = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "sam_model_registry"
    )
    assert {ast.literal_eval(key) for key in registry.keys} == set(sam_model_registry)


def test_the_predictor_example_runs(tiny_path: Path, photo: np.ndarray) -> None:
    """What the original's predictor_example.ipynb does, on a smaller picture."""
    sam = sam_model_registry["vit_h"](checkpoint=str(tiny_path))
    sam.to(device="cpu")
    predictor = SamPredictor(sam)
    predictor.set_image(photo)
    height, width = photo.shape[:2]

    # one point, then several with the best mask so far
    input_point, input_label = np.array([[80, 60]]), np.array([1])
    masks, scores, logits = predictor.predict(
        point_coords=input_point, point_labels=input_label, multimask_output=True
    )
    assert masks.shape == (3, height, width)
    assert scores.shape == (3,)
    input_point, input_label = np.array([[80, 60], [100, 80]]), np.array([1, 0])
    mask_input = logits[np.argmax(scores), :, :]
    assert mask_input.shape == (256, 256)
    masks, _, _ = predictor.predict(
        point_coords=input_point, point_labels=input_label,
        mask_input=mask_input[None, :, :], multimask_output=False,
    )  # fmt: skip
    assert masks.shape == (1, height, width)

    # a box, and a box with a point
    input_box = np.array([40, 20, 120, 100])
    masks, _, _ = predictor.predict(
        point_coords=None, point_labels=None, box=input_box[None, :], multimask_output=False
    )
    assert masks.shape == (1, height, width)
    masks, _, _ = predictor.predict(
        point_coords=np.array([[100, 80]]), point_labels=np.array([0]), box=input_box,
        multimask_output=False,
    )  # fmt: skip
    assert masks[0].dtype == bool

    # a batch of boxes
    input_boxes = torch.tensor(
        [[10, 10, 60, 70], [40, 20, 120, 100], [5, 5, 155, 115], [90, 30, 150, 80]],
        device=predictor.device,
    )
    transformed_boxes = predictor.transform.apply_boxes_torch(input_boxes, photo.shape[:2])
    masks, _, _ = predictor.predict_torch(
        point_coords=None, point_labels=None, boxes=transformed_boxes, multimask_output=False
    )
    assert masks.shape == (4, 1, height, width)
    assert masks[0].cpu().numpy().dtype == bool

    # several images in one call
    resize_transform = ResizeLongestSide(sam.image_encoder.img_size)

    def prepare_image(image: np.ndarray) -> torch.Tensor:
        image = resize_transform.apply_image(image)
        return torch.as_tensor(image, device=sam.device).permute(2, 0, 1).contiguous()

    batched_input = [
        {
            "image": prepare_image(image),
            "boxes": resize_transform.apply_boxes_torch(boxes, image.shape[:2]),
            "original_size": image.shape[:2],
        }
        for image, boxes in ((photo, input_boxes), (photo[:90], input_boxes[:1]))
    ]
    batched_output = sam(batched_input, multimask_output=False)
    assert batched_output[0].keys() == {"masks", "iou_predictions", "low_res_logits"}
    assert batched_output[1]["masks"].shape == (1, 1, 90, width)
