"""Tight boxes, strokes along the middle and single clicks: IoU of the first answer.

    python benchmarks/prompts.py path/to/grabcut path/to/coco_val_dev --objects 40 [--json FILE]

Of objects over 1 % of their image. A box is the tightest around the object, and compared with the
rectangle that it fills; a stroke is the longest path of the object's medial axis, a click is the
first one of the standard protocol. What a model does not take is left out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from skimage.morphology import medial_axis

from trtseg import Segmenter
from trtseg.evaluate.clicks import make_clicker
from trtseg.evaluate.datasets import open_dataset
from trtseg.evaluate.metrics import bootstrap_interval, iou

MIN_AREA = 0.01
SHORTENED = 0.1  # of the path at each end, which a hand leaves out
STEP = 4  # pixels of the path from point to point


def farthest(cells: set[tuple[int, int]], start: tuple[int, int]) -> list[tuple[int, int]]:
    """The path from a cell to the one that is farthest along them, by breadth first search."""
    came: dict[tuple[int, int], tuple[int, int] | None] = {start: None}
    line = [start]
    for y, x in line:
        for step in ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)):
            cell = y + step[0], x + step[1]
            if cell in cells and cell not in came:
                came[cell] = (y, x)
                line.append(cell)
    path, cell = [], line[-1]
    while cell is not None:
        path.append(cell)
        cell = came[cell]  # type: ignore[assignment]
    return path


def middle_line(inside: np.ndarray) -> list[tuple[float, float]]:
    """(x, y) along the medial axis of an object's largest part, end to end but for the ends."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8))
    largest = labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    cells = {(int(y), int(x)) for y, x in np.argwhere(medial_axis(largest, rng=0))}
    path = farthest(cells, farthest(cells, min(cells))[0])
    cut = int(SHORTENED * len(path))
    return [(float(x), float(y)) for y, x in path[cut : len(path) - cut : STEP]]


def measure(segmenter: Segmenter, sample: Any) -> dict[str, float]:
    """IoU by kind of prompt."""
    inside, encoded = sample.mask == 1, segmenter.encode(sample.image)
    click = make_clicker("standard", sample.mask).next_click()
    assert click is not None
    answers = {"click": segmenter.session(encoded).add_click(click.x, click.y)}
    if segmenter.accepts("stroke"):
        answers["stroke"] = segmenter.session(encoded).add_stroke(middle_line(inside))
    found = {kind: iou(answer.mask, sample.mask) for kind, answer in answers.items()}
    x, y, width, height = cv2.boundingRect(inside.astype(np.uint8))
    rectangle = np.zeros(inside.shape, bool)
    rectangle[y : y + height, x : x + width] = True
    found["rectangle"] = iou(rectangle, sample.mask)
    if segmenter.accepts("box"):
        # the centre of pixel 0 is 0: a box around the pixels' edges
        box = x - 0.5, y - 0.5, x + width - 0.5, y + height - 0.5
        limits = np.array(inside.shape[::-1] * 2) - 1
        session = segmenter.session(encoded)
        found["box"] = iou(session.add_box(*np.clip(box, 0, limits)).mask, sample.mask)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, nargs="+", help="images with masks")
    parser.add_argument("--model", default="lite", help="a model, or the path of a bundle")
    parser.add_argument("--objects", type=int, default=40, help="of each set (40)")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    args = parser.parse_args()
    segmenter, sets = Segmenter.load(args.model), {}
    for path in args.data:
        dataset = open_dataset(path, min_area=MIN_AREA)
        chosen = np.linspace(0, len(dataset) - 1, min(args.objects, len(dataset))).astype(int)
        rows = [measure(segmenter, dataset[int(index)]) for index in chosen]
        values = {kind: np.array([row[kind] for row in rows]) for kind in rows[0]}
        means: dict[str, Any] = {kind: round(of.mean(), 4) for kind, of in values.items()}
        for better, than in (("box", "rectangle"), ("stroke", "click")):
            if better in values:
                low, high = bootstrap_interval(values[better] - values[than])
                means[f"{better} - {than}"] = [round(low, 4), round(high, 4)]
        sets[dataset.name] = {"objects": len(rows), **means}
        print(dataset.name, json.dumps(sets[dataset.name]), flush=True)
    if args.json is not None:
        document = {"model": segmenter.bundle.name, "sets": sets}
        args.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        print(f"written: {args.json}")


if __name__ == "__main__":
    main()
