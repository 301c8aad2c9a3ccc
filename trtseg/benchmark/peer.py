"""How long a peer takes: MobileSAM (Zhang et al. 2023), which encodes once and then answers clicks.

    python -m venv peer && peer/bin/pip install ultralytics
    trtseg bench lite --peer peer/bin/python

`trtseg bench` runs this file with the interpreter of an environment of the peer's own, which brings
its own OpenCV and torch, and reads the result back; trtseg is not needed there. The weights are
random, which does not change the time: nothing is downloaded. As in its own predictor, the image is
encoded at 1024 x 1024 pixels, and a click is a pass of prompt encoder and mask decoder over all
clicks so far and the enlargement of the best of three masks to the image's size.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

SIDE_PX = 1024
WARM_UP = 2


def main() -> int:
    """Measure, and write a JSON file: `phases` and a `note`, or the module that is `missing`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", type=Path,
                        help=".npz: uint8 `image` [H, W, 3], RGB, and `clicks` [N, 3], x, y, label")
    parser.add_argument("result", type=Path, help="JSON to write")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--repeats", type=int, required=True,
                        help="measured encodes, and rounds through the clicks")
    args = parser.parse_args()
    try:
        network, note = load(args.threads, args.job.parent)
    except ModuleNotFoundError as error:
        args.result.write_text(json.dumps({"missing": error.name}))
        return 0
    with np.load(args.job, allow_pickle=False) as job:
        image, clicks = job["image"], job["clicks"]
    phases = measure(network, image, clicks, args.repeats)
    args.result.write_text(json.dumps({"phases": phases, "note": note}))
    return 0


def load(threads: int, folder: Path) -> tuple[Any, str]:
    """The network with random weights, and what it is; its settings go into the folder."""
    # It must neither ask the network for anything nor install packages by itself.
    os.environ |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
    os.environ["YOLO_CONFIG_DIR"] = str(folder)
    import torch
    import ultralytics
    from ultralytics.models.sam.build import build_mobile_sam

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = build_mobile_sam().eval()
    millions = sum(weight.numel() for weight in network.parameters()) / 1e6
    return network, (
        f"MobileSAM: {millions:.1f} million weights, random; ultralytics "
        f"{ultralytics.__version__}, torch {torch.__version__}"
    )


def measure(
    network: Any, image: np.ndarray, clicks: np.ndarray, repeats: int
) -> dict[str, list[float]]:
    """Milliseconds of encodes and of clicks.

    Args:
        network: of Segment Anything's parts: image_encoder, prompt_encoder, mask_decoder.
        image: uint8 [H, W, 3], RGB.
        clicks: float [N, 3], (x, y, label); made one after the other, then again from the first.
        repeats: encodes, and rounds through the clicks.
    """
    import torch

    scale = SIDE_PX / max(image.shape[:2])
    points = torch.from_numpy(clicks[None, :, :2] * scale).float()
    labels = torch.from_numpy(clicks[None, :, 2]).int()
    number = 0

    def click() -> None:
        nonlocal number
        until = number % len(clicks) + 1
        answer(network, encoded, points[:, :until], labels[:, :until], image.shape[:2])
        number += 1

    with torch.inference_mode():
        timed(lambda: encode(network, image), WARM_UP)
        encodes = timed(lambda: encode(network, image), repeats)
        encoded = encode(network, image)
        timed(click, WARM_UP)
        number = 0
        return {"encode": encodes, "click": timed(click, repeats * len(clicks))}


def encode(network: Any, image: np.ndarray) -> Any:
    """The longer side becomes `SIDE_PX`; the rest of the square is empty."""
    import cv2
    import torch

    height, width = fitted(image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    x = torch.from_numpy(small).permute(2, 0, 1).float()
    x = (x - network.pixel_mean) / network.pixel_std
    x = torch.nn.functional.pad(x, (0, SIDE_PX - width, 0, SIDE_PX - height))
    return network.image_encoder(x[None])


def answer(network: Any, encoded: Any, points: Any, labels: Any, size: tuple[int, ...]) -> Any:
    """The best of three masks, bool [H, W]."""
    import torch

    sparse, dense = network.prompt_encoder(points=(points, labels), boxes=None, masks=None)
    logits, scores = network.mask_decoder(
        image_embeddings=encoded,
        image_pe=network.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
    )
    best = logits[:, int(scores[0].argmax())][:, None]
    enlarge = torch.nn.functional.interpolate
    square = enlarge(best, (SIDE_PX, SIDE_PX), mode="bilinear", align_corners=False)
    height, width = fitted(size)
    mask = enlarge(square[..., :height, :width], size, mode="bilinear", align_corners=False)
    return (mask[0, 0] > 0).numpy()


def fitted(size: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) of an image whose longer side is `SIDE_PX`."""
    height, width = (round(side * SIDE_PX / max(size)) for side in size)
    return height, width


def timed(call: Callable[[], object], count: int) -> list[float]:
    """Milliseconds of each call."""
    samples: list[float] = []
    for _ in range(count):
        start = perf_counter()
        call()
        samples.append((perf_counter() - start) * 1e3)
    return samples


if __name__ == "__main__":
    sys.exit(main())
