"""What the selector is worth after one click: the shown mask, the first one and the best one.

    python benchmarks/selection.py DATA/eval/davis_dev DATA/eval/coco_val_dev

Mean overlap with the object, and what the shown mask gains over the first, with its 95 % bootstrap
interval. With `--against BUNDLE` it is what the shown mask gains over the one that another model
shows, for instance one that makes a single mask. The last row is over all objects. Objects are not
looked at more closely.
"""

from __future__ import annotations

import argparse

import numpy as np
from tqdm import tqdm

from trtseg import Segmenter
from trtseg.errors import TrtsegError
from trtseg.evaluate.clicks import PROTOCOLS, make_clicker
from trtseg.evaluate.datasets import Dataset, open_dataset
from trtseg.evaluate.metrics import iou


def overlaps(
    segmenters: list[Segmenter], dataset: Dataset, protocol: str, count: int
) -> np.ndarray:
    """[objects, models, 3]: of the shown mask, the first candidate and the best one."""
    chosen = range(len(dataset))
    if 0 < count < len(dataset):
        chosen = np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(int))
    rows, name, encoded = [], None, []
    for index in tqdm(chosen, desc=dataset.name):
        sample = dataset[int(index)]
        mask = np.asarray(sample.mask)
        clicker = make_clicker(protocol, mask, seed=0, name=sample.name)
        click = clicker.next_click(np.zeros(mask.shape, bool))
        if name != sample.source.name:  # an image's objects follow one another
            name, image = sample.source.name, sample.image
            encoded = [segmenter.encode(image) for segmenter in segmenters]
        row = []
        for segmenter, encoding in zip(segmenters, encoded, strict=True):
            prediction = segmenter.session(encoding, focus=None).add_click(click.x, click.y)
            found = [iou(candidate > 0, mask) for candidate in prediction.candidates]
            row.append((found[prediction.selected], found[0], max(found)))
        rows.append(row)
    return np.array(rows)


def line(name: str, rows: np.ndarray) -> str:
    """A row of the table."""
    ours = rows[:, 0]
    gain = ours[:, 0] - (rows[:, 1, 0] if rows.shape[1] > 1 else ours[:, 1])
    draws = np.random.default_rng(0).choice(gain, (2000, len(gain))).mean(1)
    low, high = np.quantile(draws, (0.025, 0.975))
    values = [f"{value:.3f}" for value in [*ours.mean(0), *rows[:, 1:, 0].mean(0)]]
    values.append(f"{gain.mean():+.3f} [{low:+.3f}, {high:+.3f}]")
    return f"| {name} | {len(rows)} | {' | '.join(values)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--model", default="lite")
    parser.add_argument("--against", metavar="BUNDLE", help="another model, on the same clicks")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="standard")
    parser.add_argument("--objects", type=int, default=0, help="spread evenly over a set; 0: all")
    parser.add_argument("--min-area", type=float, default=0.005, help="of the image")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    try:
        measure(args)
    except (TrtsegError, OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")


def measure(args: argparse.Namespace) -> None:
    """Print the table."""
    names = [args.model, args.against] if args.against else [args.model]
    segmenters = [Segmenter.load(name, threads=args.threads) for name in names]
    other = " other model | shown - other |" if args.against else " shown - first |"
    print(f"| set | objects | shown | first | best |{other}")
    print("|---|---:|---:|---:|---:|---:|" + ("---:|" if args.against else ""))
    found = []
    for path in args.data:
        dataset = open_dataset(path, min_area=args.min_area)
        found.append(overlaps(segmenters, dataset, args.protocol, args.objects))
        print(line(dataset.name, found[-1]), flush=True)
    if len(found) > 1:
        print(line("all", np.concatenate(found)))


if __name__ == "__main__":
    main()
