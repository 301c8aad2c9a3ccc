"""Reading a data set that `trtseg.train.samples.pack` made one file of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from safetensors import SafetensorError, safe_open

from trtseg.errors import DatasetError
from trtseg.evaluate.datasets import LabelledImage

LAYOUT = "packed"
SUFFIX = ".safetensors"
FORMAT = "trtseg-pack-1"
# uint8 [bytes]: all encoded images, all encoded label maps; int64: where each ends; int64 [P]: the
# images of the last P label maps, which show parts
TENSORS = ("images", "image_ends", "labels", "label_ends", "part_of")


class PackedImage(LabelledImage):
    """An image and its objects within a pack.

    Args:
        name: of the image.
        path: of the pack, and the image's number in it.
        image, labels: encoded, uint8 [bytes].
    """

    def __init__(self, name: str, path: Path, image: np.ndarray, labels: np.ndarray) -> None:
        super().__init__(name, path, path)
        self._image, self._labels = image, labels

    def read_image(self) -> np.ndarray:
        return cv2.cvtColor(self._decode(self._image, "image"), cv2.COLOR_BGR2RGB)

    def read_labels(self) -> np.ndarray:
        # WebP has no grey images: three equal channels
        return np.ascontiguousarray(self._decode(self._labels, "label map")[..., 0])

    def _decode(self, data: np.ndarray, what: str) -> np.ndarray:
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
        if pixels is None:
            raise DatasetError(f"{self.path} ({self.name}): its {what} cannot be decoded")
        return pixels


class Pack:
    """What a pack holds; the encoded images are in memory once, decoded when asked for.

    Attributes:
        images: all of them.
        groups: probability and members (numbers of images) of each group they are drawn from.
        parts: label maps of objects' parts, by the image's path.

    Raises:
        DatasetError: the file is missing, damaged or no pack.
    """

    def __init__(self, path: Path) -> None:
        try:
            with safe_open(path, framework="numpy") as file:
                header = file.metadata() or {}
                if header.get("format") != FORMAT:
                    raise DatasetError(f"{path}: expected a pack of {FORMAT}, got another file")
                values = [file.get_tensor(name) for name in TENSORS]
            index = json.loads(header["index"])
            names = [str(name) for name in index["names"]]
            self.groups = [(float(chance), [int(i) for i in members])
                           for chance, members in index["groups"]]
            images, labels = _split(values[0], values[1]), _split(values[2], values[3])
            part_of = values[4].tolist()
            self.images = [
                PackedImage(name, path / str(number), images[number], labels[number])
                for number, name in enumerate(names)
            ]
            self.parts: dict[Path, LabelledImage] = {}
            for number, labelled in zip(part_of, labels[len(names) :], strict=True):
                whole = self.images[number]
                self.parts[whole.path] = PackedImage(
                    whole.name, whole.path, images[number], labelled
                )
            if len(images) != len(names) or not self.images:
                raise ValueError("as many names as images")
            for _, members in self.groups:
                for member in members:
                    self.images[member]
        except (OSError, SafetensorError) as error:
            raise DatasetError(f"{path}: cannot be read as a pack ({error})") from None
        except (KeyError, IndexError, TypeError, ValueError) as error:
            if isinstance(error, DatasetError):
                raise
            raise DatasetError(f"{path}: the pack's index is damaged ({error})") from None


def is_pack(path: str | Path, layout: str | None) -> bool:
    """Whether a source of images is a pack: told so, or by the file's name."""
    return layout == LAYOUT or (layout is None and Path(path).suffix == SUFFIX)


def _split(data: np.ndarray, ends: np.ndarray) -> Sequence[np.ndarray]:
    bounds = [0, *ends.tolist()]
    if sorted(bounds) != bounds or bounds[-1] != len(data):
        raise ValueError("ends that do not fit the data")
    return [data[begin:end] for begin, end in pairwise(bounds)]
