"""Islands, holes and overlap of masks after one click, by what is dropped and filled.

    python benchmarks/tidy.py path/to/coco_val_dev --objects 40

Prints one line for each share of the largest part below which islands go, and holes are filled.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from trtseg import Segmenter
from trtseg.evaluate.clicks import StandardClicker
from trtseg.evaluate.datasets import open_dataset
from trtseg.evaluate.metrics import iou
from trtseg.runtime.maps import tidy

SHARES = ((0.0, 0.0), (0.02, 0.02), (0.05, 0.05), (0.1, 0.05), (0.2, 0.1), (0.3, 0.2))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="images with masks")
    parser.add_argument("--model", default="lite")
    parser.add_argument("--objects", type=int, default=40)
    args = parser.parse_args()
    dataset, segmenter = open_dataset(args.data), Segmenter.load(args.model)
    rows: dict[tuple[float, float], list[tuple[int, int, float]]] = {each: [] for each in SHARES}
    for index in np.linspace(0, len(dataset) - 1, min(args.objects, len(dataset))).astype(int):
        sample = dataset[int(index)]
        encoded = segmenter.encode(sample.image)
        click = StandardClicker(sample.mask).next_click(np.zeros(sample.mask.shape, bool))
        assert click is not None
        for tidy.ISLAND, tidy.HOLE in SHARES:
            mask = segmenter.session(encoded).add_click(click.x, click.y, click.positive).mask
            ground = np.pad(255 - mask, 1, constant_values=255)
            islands = cv2.connectedComponents(mask, connectivity=8)[0] - 1
            holes = cv2.connectedComponents(ground, connectivity=4)[0] - 2
            rows[tidy.ISLAND, tidy.HOLE].append((islands, holes, iou(mask > 0, sample.mask)))
    print("island share, hole share: islands, holes, IoU, means over objects")
    for (island, hole), values in rows.items():
        means = np.mean(values, axis=0)
        print(f"{island:g}, {hole:g}: {means[0]:.2f}, {means[1]:.2f}, {means[2]:.4f}")


if __name__ == "__main__":
    main()
