"""One file of all images that a run trains on, small enough to carry to a machine with a GPU.

The images are reduced to one longer side, the largest that keeps the file under a limit, and kept
as WebP; the label maps, reduced by the nearest pixel, as lossless WebP. The file is in the
safetensors format: read by memory map, without pickle.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import save
from tqdm import tqdm

from trtseg.atomic import write_atomically
from trtseg.evaluate.datasets import LabelledImage
from trtseg.train.samples.images import LabelledImages
from trtseg.train.samples.packed import FORMAT

QUALITY = 70  # of the photographs, as WebP counts it
LOSSLESS = 101  # above 100 is OpenCV's name for it
SIDES = range(64, 1025, 16)
# images by which a side is chosen, before all are encoded
PROBED = 150

Encoded = tuple[bytes, list[bytes]]  # the image, its label map and that of its parts if it has one


def write_pack(
    images: LabelledImages, path: Path, limit_mib: float, *, threads: int = 1
) -> dict[str, float]:
    """Write all images of a run's sources, with the probabilities they are drawn by.

    Args:
        images: the sources.
        path: of the file; replaced where it is there.
        limit_mib: the file is at most so large.
        threads: that encode.

    Returns:
        "images", "parts", "side_px" (the longer side of those that were larger) and "mib".

    Raises:
        DatasetError: an image or a label map cannot be read.
        ValueError: the limit is too low for so many images.
        OSError: the file cannot be written.
    """
    members = list(itertools.chain.from_iterable(images.groups))
    parts = [images.parts.get(image.path) for image in members]
    pairs = list(zip(members, parts, strict=True))
    limit = int(limit_mib * 2**20)
    with ThreadPoolExecutor(threads) as pool:

        def encode(side: int, chosen: Sequence[tuple[LabelledImage, LabelledImage | None]],
                   told: bool = False) -> list[Encoded]:
            done = pool.map(lambda pair: _encode(pair[0], pair[1], side), chosen)
            return list(tqdm(done, f"{side} px", len(chosen), disable=not told, mininterval=5))

        side = _largest_side(encode, pairs, limit)
        while True:
            data = _file(images, encode(side, pairs, told=True), side)
            if len(data) <= limit:
                break
            if side == SIDES[0]:
                raise ValueError(
                    f"limit_mib: expected at least {len(data) / 2**20:.1f} for {len(members)} "
                    f"images, got {limit_mib:g}"
                )
            side -= SIDES.step
    write_atomically(path, data, 0o666)
    return {
        "images": len(members), "parts": sum(part is not None for part in parts),
        "side_px": side, "mib": round(len(data) / 2**20, 1),
    }


def _largest_side(encode, pairs, limit: int) -> int:
    """The largest of SIDES at which a sample promises to stay under the limit."""
    chosen = np.random.default_rng(0).permutation(len(pairs))[:PROBED]
    sample = [pairs[index] for index in chosen]
    allowed = limit * len(sample) / len(pairs)
    low, high = 0, len(SIDES) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if sum(map(_size, encode(SIDES[middle], sample))) <= allowed:
            low = middle
        else:
            high = middle - 1
    return SIDES[low]


def _size(encoded: Encoded) -> int:
    return len(encoded[0]) + sum(map(len, encoded[1]))


def _encode(image: LabelledImage, parts: LabelledImage | None, side: int) -> Encoded:
    pixels, labels = image.read_pair()
    maps = [labels]
    if parts is not None:
        maps.append(parts.read_labels())
        parts.check_size(pixels, maps[1])
    height, width = labels.shape
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if scale < 1:
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        # the other nearest neighbour of OpenCV is off by half a pixel
        maps = [cv2.resize(one, size, interpolation=cv2.INTER_NEAREST_EXACT) for one in maps]
    picture = _webp(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), QUALITY)
    return picture, [_webp(cv2.merge([one] * 3), LOSSLESS) for one in maps]


def _webp(pixels: np.ndarray, quality: int) -> bytes:
    return cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()


def _file(images: LabelledImages, encoded: Sequence[Encoded], side: int) -> bytes:
    """The file's bytes; label maps of parts come after those of all images."""
    with_parts = [number for number, (_, maps) in enumerate(encoded) if len(maps) > 1]
    maps = [one[1][0] for one in encoded] + [encoded[number][1][1] for number in with_parts]
    numbers = itertools.count()
    index = {
        "names": [image.name for group in images.groups for image in group],
        "groups": [
            (float(chance), [next(numbers) for _ in group])
            for chance, group in zip(images.chances, images.groups, strict=True)
        ],
        "side_px": side,
    }
    tensors = {
        "part_of": np.array(with_parts, np.int64),
        **_joined("image", [one[0] for one in encoded]),
        **_joined("label", maps),
    }
    return save(tensors, {"format": FORMAT, "index": json.dumps(index)})


def _joined(name: str, parts: Iterable[bytes]) -> dict[str, np.ndarray]:
    parts = list(parts)
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    return {f"{name}s": np.frombuffer(b"".join(parts), np.uint8), f"{name}_ends": ends}
