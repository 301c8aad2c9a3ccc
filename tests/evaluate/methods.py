"""Methods whose answers are known, and data to try them on."""

from contextlib import contextmanager
from types import SimpleNamespace

import cv2
import numpy as np


class DiskSession:
    """Every click sets a disk; deterministic, and gets better with clicks in the right places."""

    def __init__(self, size, radius):
        self.mask = np.zeros(size, np.uint8)
        self.radius = radius

    def add_click(self, x, y, positive=True):
        rows, columns = np.ogrid[: self.mask.shape[0], : self.mask.shape[1]]
        inside = (rows - y) ** 2 + (columns - x) ** 2 <= self.radius**2
        self.mask = np.where(inside, 255 if positive else 0, self.mask).astype(np.uint8)
        return SimpleNamespace(mask=self.mask, candidates=np.stack([self.mask, 255 - self.mask]))


class DiskMethod:
    """A method for the runner. `fail_after` encodings it is interrupted, as by Ctrl-C."""

    def __init__(self, radius=6, fail_after=None):
        self.radius = radius
        self.fail_after = fail_after
        self.encoded = 0

    def describe(self):
        return {"kind": "test", "name": "disk", "radius": self.radius}

    def encode(self, image):
        if self.fail_after is not None and self.encoded >= self.fail_after:
            raise KeyboardInterrupt
        self.encoded += 1
        return image.shape[:2]

    @contextmanager
    def session(self, encoded):
        yield DiskSession(encoded, self.radius)


def write_folder(root, images=5, size=(48, 64), seed=0):
    """A data set of `images` images with two blobs each, and some void."""
    rng = np.random.default_rng(seed)
    for index in range(images):
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        labels = np.zeros(size, np.uint8)
        cv2.ellipse(labels, (18, 20 + index), (12, 9), 10 * index, 0, 360, 1, -1)
        cv2.rectangle(labels, (40, 10), (58, 38), 2, -1)
        labels[:, 0] = 255
        image[labels == 1] = (200, 40, 40)
        image[labels == 2] = (40, 40, 200)
        for folder, array in (("images", image), ("masks", labels)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(root / folder / f"{index:02d}.png"), array)
    return root
