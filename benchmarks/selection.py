"""What the selector is worth after one click: the shown mask, the first one and the best one.

    python benchmarks/selection.py DATA/eval/davis_dev DATA/eval/coco_val_dev

Mean overlap with the object, and the standard error of what the shown mask gains over the first.
The click is that of the standard protocol; the object is not looked at more closely.
"""

from __future__ import annotations

import argparse

import numpy as np
from tqdm import tqdm

from trtseg import Segmenter
from trtseg.evaluate.clicks import StandardClicker
from trtseg.evaluate.datasets import open_dataset
from trtseg.evaluate.metrics import iou


def overlaps(segmenter: Segmenter, sample: object) -> tuple[float, float, float]:
    """Of the mask that is shown after one click, of the first candidate and of the best one."""
    mask = np.asarray(sample.mask)  # type: ignore[attr-defined]
    click = StandardClicker(mask).next_click(np.zeros(mask.shape, bool))
    encoded = segmenter.encode(sample.image)  # type: ignore[attr-defined]
    prediction = segmenter.session(encoded, focus=None).add_click(click.x, click.y)
    found = [iou(candidate > 0, mask) for candidate in prediction.candidates]
    return found[prediction.selected], found[0], max(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--model", default="lite")
    parser.add_argument("--objects", type=int, default=60, help="spread evenly over a set")
    parser.add_argument("--min-area", type=float, default=0.01, help="of the image")
    args = parser.parse_args()
    segmenter = Segmenter.load(args.model)
    print("| set | objects | shown | first | best | shown - first |")
    print("|---|---:|---:|---:|---:|---:|")
    for path in args.data:
        dataset = open_dataset(path, min_area=args.min_area)
        chosen = np.unique(np.linspace(0, len(dataset) - 1, args.objects).round().astype(int))
        rows = np.array(
            [overlaps(segmenter, dataset[int(index)]) for index in tqdm(chosen, desc=path)]
        )
        gain = rows[:, 0] - rows[:, 1]
        error = gain.std(ddof=1) / len(gain) ** 0.5
        means = " | ".join(f"{value:.3f}" for value in rows.mean(0))
        print(f"| {path} | {len(rows)} | {means} | {gain.mean():+.3f} ± {error:.3f} |", flush=True)


if __name__ == "__main__":
    main()
