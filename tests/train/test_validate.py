"""Validation chooses the same spread of objects every time and measures by the protocol."""

import cv2
import numpy as np
import pytest
import torch

from trtseg.errors import DatasetError
from trtseg.nn.network import LatentDiversity
from trtseg.train.config import ValidationConfig
from trtseg.train.validate import choose_objects, validate


def test_the_choice_is_spread_over_images_and_repeats(data):
    config = ValidationConfig(paths=(str(data), str(data)), objects=10, min_area_fraction=0.01)
    chosen = choose_objects(config)
    assert [s.name for s in chosen] == [s.name for s in choose_objects(config)]
    assert len(chosen) == 10
    # five of each data set: all four images, and one of them twice
    for part in (chosen[:5], chosen[5:]):
        images = [sample.source.name for sample in part]
        assert len(set(images)) == 4
        assert images == sorted(images, key=images.index)  # those of one image are adjacent
        assert len({sample.name for sample in part}) == 5


def test_small_objects_are_left_out(data):
    labels = np.zeros((96, 128), np.uint8)
    labels[:40, :40], labels[60:70, 60:70] = 1, 2
    for path in (data / "masks").iterdir():
        cv2.imwrite(str(path), labels)
    config = ValidationConfig(paths=(str(data),), objects=8, min_area_fraction=0.05)
    assert {sample.label for sample in choose_objects(config)} == {1}
    with pytest.raises(DatasetError, match=r"data: no object of at least 50\.0%"):
        choose_objects(ValidationConfig(paths=(str(data),), min_area_fraction=0.5))


class Oracle(torch.nn.Module):
    """In the place of f: everywhere the same probabilities, one per candidate."""

    def __init__(self, *probabilities):
        super().__init__()
        self.values = torch.tensor(probabilities).view(1, -1, 1, 1)

    def forward(self, x):
        return self.values.expand(len(x), -1, *x.shape[2:]), x


class Chooser(torch.nn.Module):
    """In the place of g: fixed scores."""

    def __init__(self, *scores):
        super().__init__()
        self.values = torch.tensor([scores])

    def forward(self, inputs):
        return self.values.expand(len(inputs[0]), -1)


def test_selected_and_best_are_told_apart(config, data):
    for path in (data / "masks").iterdir():
        cv2.imwrite(str(path), np.ones((96, 128), np.uint8))  # the whole image is the object
    network = LatentDiversity(config().network)
    settings = ValidationConfig(paths=(str(data),), objects=3, clicks=2)
    network.segment, network.select = Oracle(0.2, 0.9, 0.4), None
    values = validate(network, settings)
    # a click that the mask does not obey counts where it is, at least
    assert values.pop("iou@1") < 0.5
    assert values == {"noc@85": 2.0, "noc@90": 2.0, "best_iou@1": 1.0}
    network.select = Chooser(0.0, 1.0, 0.5)
    values = validate(network, settings)
    assert values == {"noc@85": 1.0, "noc@90": 1.0, "iou@1": 1.0, "best_iou@1": 1.0}


def test_one_mask_is_the_best_one(config, data):
    network = LatentDiversity(config(network={"encoder": "none", "width": 4, "dilations": [1],
                                              "candidates": 1, "working_long_side_px": 64}).network)
    values = validate(network, ValidationConfig(paths=(str(data),), objects=2, clicks=1))
    assert values["iou@1"] == values["best_iou@1"]
