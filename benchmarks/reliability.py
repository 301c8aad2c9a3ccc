"""Can a model's own score be believed? Expected overlap of the shown mask against the true one.

    python benchmarks/reliability.py DATA/eval/grabcut DATA/eval/davis_dev DATA/eval/coco_val_dev \\
        --figure reliability.svg

Prints a row for each number of clicks: what the model expects and what is true on average, the
calibration error (|expected - true| of tenths of the scores, weighted by how many masks are in
them), and the rank correlation of the two. The figure has a line for each number of clicks.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import curve_fit
from scipy.stats import spearmanr
from tqdm import tqdm

from trtseg import Segmenter
from trtseg.errors import TrtsegError
from trtseg.evaluate.clicks import StandardClicker
from trtseg.evaluate.datasets import open_dataset
from trtseg.evaluate.metrics import iou

CLICKS = (1, 2, 3, 5)
TENTHS = np.linspace(0, 1, 11)


def expected_and_true(segmenter: Segmenter, path: Path, objects: int) -> np.ndarray:
    """[objects, clicks, 2] of the objects of a data set that fill half a percent of their image."""
    dataset = open_dataset(path, min_area=0.005)
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(objects, len(dataset))).round())
    rows = []
    for index in tqdm(chosen.astype(int), desc=dataset.name):
        sample = dataset[int(index)]
        session = segmenter.session(segmenter.encode(sample.image))
        clicker, mask, row = StandardClicker(sample.mask), np.zeros(sample.mask.shape, bool), []
        for count in range(1, max(CLICKS) + 1):
            click = clicker.next_click(mask)
            if click is not None:  # otherwise nothing is wrong: the mask stays
                prediction = session.add_click(click.x, click.y, click.positive)
                mask = prediction.mask > 0
            if count in CLICKS:
                row.append((prediction.scores[prediction.selected], iou(mask, sample.mask)))
        rows.append(row)
    return np.array(rows)


def tenths(pairs: np.ndarray) -> list[tuple[float, float, int]]:
    """(mean expected, mean true, masks) of every tenth of the scores that has any."""
    place = np.clip(np.digitize(pairs[:, 0], TENTHS) - 1, 0, 9)
    return [(*pairs[place == tenth].mean(0), int((place == tenth).sum()))
            for tenth in range(10) if (place == tenth).any()]  # fmt: skip


def row(clicks: int, pairs: np.ndarray) -> str:
    """A row of the table."""
    bins = tenths(pairs)
    error = sum(abs(expected - true) * count for expected, true, count in bins) / len(pairs)
    rank = spearmanr(*pairs.T).statistic
    expected, true = pairs.mean(0)
    return f"| {clicks} | {len(pairs)} | {expected:.2f} | {true:.2f} | {error:.2f} | {rank:.2f} |"


def calibration(found: np.ndarray, before: Sequence[float]) -> tuple[float, float]:
    """(ceiling, exponent) in place of `before`, by least squares over all numbers of clicks."""
    expected, true = found.reshape(-1, 2).T
    overlap = (expected / before[0]) ** (1 / before[1])
    (ceiling, exponent), _ = curve_fit(
        lambda x, ceiling, exponent: ceiling * x**exponent, overlap, true, (0.9, 2.0),
        bounds=([0.01, 0.01], [1, 100]),
    )  # fmt: skip
    return ceiling, exponent


def draw(found: np.ndarray, path: Path) -> None:
    """Expected against true overlap, a line for each number of clicks."""
    from matplotlib.figure import Figure

    figure = Figure((4.6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1, label="as expected")
    for place, clicks in enumerate(CLICKS):
        bins = np.array([each for each in tenths(found[:, place]) if each[2] >= 5]).reshape(-1, 3)
        label = f"{clicks} click" + "s" * (clicks > 1)
        axes.plot(bins[:, 0], bins[:, 1], marker="o", markersize=4, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="overlap that the model expects",
             ylabel="overlap with the object (mean)")  # fmt: skip
    axes.grid(color="0.92")
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", nargs="+", type=Path, help="images with masks")
    parser.add_argument("--model", default="lite")
    parser.add_argument("--objects", type=int, default=100, help="of each set, at most")
    parser.add_argument("--fit", action="store_true",
                        help="print what to give `trtseg export --score-calibration`")
    parser.add_argument("--figure", type=Path, metavar="FILE")
    args = parser.parse_args()
    try:
        segmenter = Segmenter.load(args.model)
        parts = [expected_and_true(segmenter, path, args.objects) for path in args.data]
    except (TrtsegError, OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    found = np.concatenate(parts)
    print("| clicks | masks | expected | true | calibration error | rank correlation |")
    print("|---:|---:|---:|---:|---:|---:|")
    for place, clicks in enumerate(CLICKS):
        print(row(clicks, found[:, place]))
    if args.fit:
        config = segmenter.bundle.manifest.raw["network"]
        before = config.get("score_calibration", (1, 1))
        print("--score-calibration {:.3f} {:.3f}".format(*calibration(found, before)))
    if args.figure:
        draw(found, args.figure)


if __name__ == "__main__":
    main()
