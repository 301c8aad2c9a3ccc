"""A tiny data set, and configurations whose runs take a second."""

import cv2
import numpy as np
import pytest
import torch

from trtseg.train.config import parse_config

NETWORK = {
    "encoder": "none", "width": 8, "dilations": [1, 2, 4], "candidates": 3,
    "previous_mask": True, "select_width": 8, "select_dilations": [1, 2],
    "working_long_side_px": 96,
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    """Other users of the machine must not make the tests slow, nor the sums differ."""
    threads, cv_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    cv2.setNumThreads(cv_threads)


def write_image(root, name, seed):
    """A noisy picture with an ellipse (1) over a rectangle (2), and a void border."""
    rng = np.random.default_rng(seed)
    height, width = 96, 128
    labels = np.zeros((height, width), np.uint8)
    cv2.rectangle(labels, (60, 20), (115, 70), 2, -1)
    centre = (int(rng.integers(30, 60)), int(rng.integers(35, 60)))
    cv2.ellipse(labels, centre, (24, 18), 0, 0, 360, 1, -1)
    colours = rng.integers(0, 256, (3, 3))
    image = (colours[labels] + rng.normal(0, 10, (height, width, 3))).clip(0, 255)
    labels[:3] = 255
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / "images" / f"{name}.png"), image.astype(np.uint8))
    cv2.imwrite(str(root / "masks" / f"{name}.png"), labels)


@pytest.fixture
def data(tmp_path):
    """A folder with four images of two objects."""
    for index in range(4):
        write_image(tmp_path / "data", f"{'ab'[index % 2]}_{index}", index)
    return tmp_path / "data"


@pytest.fixture
def config(data):
    """A run of 4 + 3 steps; keywords replace entries of the JSON."""

    def make(**changes):
        return parse_config(
            {
                "network": NETWORK,
                "data": {"path": str(data)},
                "crop": {"size": 64, "object_side": [20, 60], "objects": 2},
                "clicks": {"corrections": 2},
                "stages": [
                    {"trains": "segment", "steps": 4, "learning_rate": 1e-3, "warmup": 2,
                     "cooldown": 0.5},
                    {"trains": "select", "steps": 3, "learning_rate": 1e-3},
                ],
                "batch": 2,
                "ema": 0.9,
                **changes,
            }
        )

    return make
