"""Contours with and without the image's edges: boundary IoU, clicks, islands, holes, and the cost.

    python benchmarks/edges.py path/to/davis_dev path/to/coco_val_dev --objects 30 [--json FILE]

Simulated clicks by the standard protocol, with `edges` of a session on and off, on the same
objects. Boundary IoU (Cheng et al. 2021) has rims of 2 % of the diagonal, and of 2 pixels. An
object ends at an IoU of 0.95; what is reported after more clicks is then its last mask. Numbers
after one click compare the same click; later ones have clicks of their own. Brackets hold 95 %
bootstrap intervals of the difference over the objects. The cost is the processor's time to show a
mask, over all threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from trtseg import Segmenter
from trtseg.evaluate.clicks import make_clicker
from trtseg.evaluate.datasets import Dataset, open_dataset
from trtseg.evaluate.metrics import bootstrap_interval, boundary_iou, clicks_to_reach, iou
from trtseg.evaluate.protocol import record_object
from trtseg.machine import describe

AFTER = (1, 3, 5)  # clicks
TARGETS = (0.90, 0.95)
COST_SIZES = {"640x480": (480, 640), "4000x3000": (3000, 4000)}
REPEAT = 20


def islands_and_holes(mask: np.ndarray) -> tuple[int, int]:
    """How many parts a mask has, and how many holes."""
    inside = (mask > 0).astype(np.uint8)
    ground = np.pad(1 - inside, 1, constant_values=1)
    islands = cv2.connectedComponents(inside, connectivity=8)[0] - 1
    return islands, cv2.connectedComponents(ground, connectivity=4)[0] - 2


def measure(segmenter: Segmenter, sample: Any, encoded: Any, edges: bool, clicks: int) -> list:
    """The numbers of one object, in the order of `columns`."""
    run = record_object(
        segmenter.session(encoded, edges=edges),
        sample,
        make_clicker("standard", sample.mask),
        clicks,
        stop_at=max(TARGETS),
        keep_masks=True,
    )
    found: list[float] = [float(clicks_to_reach(np.array([run.ious]), q)[0]) for q in TARGETS]
    for k in AFTER:
        mask = run.masks[min(k, len(run.masks)) - 1]
        found += [iou(mask, sample.mask), boundary_iou(mask, sample.mask),
                  boundary_iou(mask, sample.mask, 2), *islands_and_holes(mask)]  # fmt: skip
    return found


def columns() -> list[str]:
    """Names of what is measured."""
    per_click = ("iou", "boundary_iou", "boundary_iou_2px", "islands", "holes")
    after = [f"{name}@{k}" for k in AFTER for name in per_click]
    return [f"noc{q * 100:g}" for q in TARGETS] + after


def compare(segmenter: Segmenter, dataset: Dataset, objects: int, clicks: int) -> dict[str, Any]:
    """Means without and with edges, and the intervals of the differences, by column."""
    rows: list[tuple[list, list]] = []
    for index in np.linspace(0, len(dataset) - 1, min(objects, len(dataset))).astype(int):
        sample = dataset[int(index)]
        encoded = segmenter.encode(sample.image)
        off, on = (measure(segmenter, sample, encoded, edges, clicks) for edges in (False, True))
        rows.append((off, on))
    values = np.array(rows, float)
    result: dict[str, Any] = {"objects": len(rows)}
    for place, name in enumerate(columns()):
        off, on = values[:, 0, place], values[:, 1, place]
        low, high = bootstrap_interval(on - off)
        result[name] = {
            "off": round(off.mean(), 4), "on": round(on.mean(), 4),
            "difference": [round(low, 4), round(high, 4)],
        }  # fmt: skip
    return result


def cost(segmenter: Segmenter, photo: np.ndarray) -> dict[str, Any]:
    """Milliseconds of the processor to show a mask after undo: medians, without and with edges."""
    found = {}
    for name, size in COST_SIZES.items():
        image = cv2.resize(photo, size[::-1], interpolation=cv2.INTER_LINEAR)
        encoded = segmenter.encode(image)
        for edges in (False, True):
            session = segmenter.session(encoded, focus=None, edges=edges)
            session.add_click(size[1] / 2, size[0] / 2)
            session.add_click(size[1] / 2 + 8, size[0] / 2)
            out, times = np.empty(size, np.uint8), []
            for _ in range(REPEAT):
                for show in (session.undo, session.redo):
                    start = time.process_time()
                    show(out=out)
                    times.append((time.process_time() - start) * 1e3)
            found.setdefault(name, {})["on" if edges else "off"] = round(
                statistics.median(times), 2
            )
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, nargs="*", help="images with masks")
    parser.add_argument("--model", default="lite", help="a model, or the path of a bundle")
    parser.add_argument("--objects", type=int, default=30, help="of each set (30)")
    parser.add_argument("--clicks", type=int, default=20, help="at most (20)")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    args = parser.parse_args()
    segmenter = Segmenter.load(args.model)
    sets = {}
    for path in args.data:
        dataset = open_dataset(path)
        sets[dataset.name] = compare(segmenter, dataset, args.objects, args.clicks)
        print(f"{dataset.name}, {sets[dataset.name]['objects']} objects: off, on, difference")
        for name, row in sets[dataset.name].items():
            if isinstance(row, dict):
                low, high = row["difference"]
                print(f"  {name:<20}{row['off']:>9.4f}{row['on']:>9.4f}  [{low:+.4f}, {high:+.4f}]")
    photo = cv2.imread(str(Path(__file__).resolve().parents[1] / "trtseg" / "data" / "coffee.jpg"))
    costs = cost(segmenter, photo)
    for name, row in costs.items():
        print(f"{name}: {row['off']} ms of the processor to show a mask, {row['on']} with edges")
    if args.json is not None:
        document = {
            "model": segmenter.bundle.name,
            "fingerprint": segmenter.bundle.fingerprint,
            "machine": describe(),
            "clicks": args.clicks,
            "cost_ms": costs,
            "sets": sets,
        }
        args.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        print(f"written: {args.json}")


if __name__ == "__main__":
    main()
