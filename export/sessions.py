"""FP16 against FP32 where it matters: whole sessions of simulated clicks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CLICKS = 5
# cells whose FP16 and FP32 masks feed back into later clicks differ more than a single run
DRAWN_SIZE = (240, 320)


def drawn_scenes(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blobs on a textured ground: image uint8 [H, W, 3] and mask uint8 [H, W] in {0, 1}."""
    height, width = DRAWN_SIZE
    for seed in range(count):
        rng = np.random.default_rng(seed)
        texture = rng.integers(0, 256, (15, 20, 3), np.uint8)
        image = cv2.resize(texture, (width, height), interpolation=cv2.INTER_CUBIC) // 2
        mask = np.zeros((height, width), np.uint8)
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        radii = 70 + 25 * np.sin(3 * angles + rng.uniform(0, 6)) + rng.uniform(-8, 8, 24)
        centre = np.array([width, height]) / 2 + rng.uniform(-30, 30, 2)
        outline = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        cv2.fillPoly(mask, [outline.astype(np.int32)], 1)
        image[mask == 1] = image[mask == 1] // 2 + rng.integers(60, 128, 3, dtype=np.uint8)
        yield image, mask


def _samples(
    data: str | os.PathLike[str] | None, count: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if data is None:
        yield from drawn_scenes(count)
        return
    from trtseg.evaluate.datasets import open_dataset

    dataset = open_dataset(Path(data))
    for index in np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int):
        sample = dataset[int(index)]
        yield sample.image, sample.mask


def compare_sessions(
    manifest: Mapping[str, Any],
    files: Mapping[str, bytes],
    data: str | os.PathLike[str] | None,
    objects: int,
) -> dict[str, float]:
    """Run the standard click protocol with FP32 and with FP16 graphs on the CPU.

    The FP32 session's clicks are given to both, so that the masks can be compared.

    Returns:
        "objects"; mean NoC@85 of each precision over at most `CLICKS` clicks; "probability", the
        mean absolute difference of the probability maps, its largest over all clicks.
    """
    from trtseg import bundle
    from trtseg.evaluate.clicks import StandardClicker
    from trtseg.evaluate.metrics import iou, noc
    from trtseg.runtime import onnxruntime
    from trtseg.runtime.segmenter import Segmenter

    with tempfile.TemporaryDirectory() as folder:
        path = bundle.write(Path(folder) / "candidate", manifest, files)
        read = bundle.read(path)
        segmenters = {
            precision: Segmenter(read, onnxruntime.load(read, precision=precision))
            for precision in ("fp32", "fp16")
        }
        ious: dict[str, list[np.ndarray]] = {"fp32": [], "fp16": []}
        worst, count = 0.0, 0
        for image, mask in _samples(data, objects):
            count += 1
            # a session that ends early, without an error left, stays at its last IoU
            values = {precision: np.zeros(CLICKS) for precision in segmenters}
            sessions = {
                precision: segmenter.session(segmenter.encode(image), focus=None)
                for precision, segmenter in segmenters.items()
            }
            clicker = StandardClicker(mask)
            predicted = np.zeros(mask.shape, bool)
            for index in range(CLICKS):
                click = clicker.next_click(predicted)
                if click is None:
                    break
                results = {
                    precision: session.add_click(click.x, click.y, click.positive)
                    for precision, session in sessions.items()
                }
                difference = results["fp32"].probability - results["fp16"].probability
                worst = max(worst, float(np.abs(difference).mean()))
                for precision, result in results.items():
                    values[precision][index:] = iou(result.mask, mask)
                predicted = results["fp32"].mask > 0
            for precision, row in values.items():
                ious[precision].append(row)
        return {
            "objects": count,
            "fp32_noc85": noc(np.stack(ious["fp32"]), 0.85),
            "fp16_noc85": noc(np.stack(ious["fp16"]), 0.85),
            "probability": worst,
        }
