"""What learning from a click is made of: a layer's gradient, and the way of weights to the engine.

    python benchmarks/adaptation.py --output benchmarks/results/adaptation-cpu
    python benchmarks/adaptation.py --device cuda --grids vga --output OUTPUT

writes OUTPUT.json and OUTPUT.md, and prints the table. Weights are random, which does not change
the time. With --model, the routes of adapted weights into that model's engine are measured too;
`trtseg bench MODEL --adapt` has the whole click.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from trtseg.adapt.config import AdaptConfig
from trtseg.adapt.weights import AdaptedWeights
from trtseg.machine import describe
from trtseg.nn.layers.convolution import Convolution

# of the paper's network on every fourth pixel of 384, and at full resolution
GRIDS = {"small": (72, 96), "vga": (480, 640)}


def main() -> int:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--grids", nargs="+", choices=GRIDS, default=["small"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", help="a bundle with importance beside it, to measure the routes")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    rows = []
    for grid in tqdm(args.grids, file=sys.stderr):
        rows += measure_gradients(grid, args)
    if args.model:
        rows += measure_routes(args)
    machine = {**describe(), "device": args.device, "threads": torch.get_num_threads()}
    report = {"machine": machine, "rows": rows}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    table = markdown(rows)
    args.output.with_suffix(".md").write_text(table)
    print(table)
    return 0


def measure_gradients(grid: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The gradient of a 3x3 layer's weights, by torch and as `Convolution` takes it."""
    height, width = GRIDS[grid]
    channels, rows = 64, []
    for dilation in (1, 4, 32):
        torch.manual_seed(0)
        x, gradient = (
            torch.randn(1, channels, height, width, device=args.device)
            .contiguous(memory_format=torch.channels_last)
            for _ in range(2)
        )
        plain = torch.nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        ours = Convolution(channels, channels, dilation)
        for name, layer in (("torch", plain), ("products", ours)):
            layer.to(args.device, memory_format=torch.channels_last)
            out = layer(x)

            def once(out: Any = out, layer: Any = layer, toward: Any = gradient) -> None:
                torch.autograd.grad(out, layer.weight, toward, retain_graph=True)

            rows.append({"what": f"weight gradient, dilation {dilation}: {name}", "grid": grid,
                         "layers": 1, "precision": "fp32", "parameters": layer.weight.numel(),
                         **summary(timed(once, args))})
    return rows


def measure_routes(args: argparse.Namespace) -> list[dict[str, Any]]:
    """From adapted weights to the first answer of an engine that holds them."""
    from trtseg.adapt.adapter import Learner
    from trtseg.runtime.segmenter import Segmenter

    segmenter = Segmenter.load(args.model, threads=args.threads)
    manifest = segmenter.bundle.manifest
    width, multiple = manifest.long_side_px, manifest.multiple_px
    height = width * 3 // 4 // multiple * multiple
    segment = segmenter.engines.segment
    channels = {"x": (manifest.channels, manifest.base_stride)}
    for index, each in enumerate(manifest.maps):
        channels[f"map_{index}"] = each.channels, each.stride
    inputs = {
        name: np.zeros((1, count, height // stride, width // stride), np.float32)
        for name, (count, stride) in channels.items()
    }
    rows = []
    for route in ("onnxruntime", "torch"):
        learner = Learner(segmenter, AdaptConfig(), route=route)
        shapes = segment.output_shapes({name: each.shape for name, each in inputs.items()})
        outputs = {o.name: np.empty(shapes[o.name], o.dtype) for o in segment.outputs}
        buffers = {**inputs, **outputs}
        values = {name: value + 1e-4 for name, value in learner.initial.values.items()}
        engines: list[Any] = []

        def make(learner: Any = learner, values: Any = values, engines: Any = engines) -> None:
            engines[:] = [learner.engine(AdaptedWeights(values))]

        def answer(engines: Any = engines, buffers: Any = buffers) -> None:
            engines[0].bind(buffers).run()

        for what, call in (("engine made", make), ("first answer", answer)):
            rows.append({"what": f"{route}: {what}", "grid": manifest.name, "layers": None,
                         "precision": "fp32", "parameters": None, **summary(timed(call, args))})
    return rows


def timed(call: Callable[[], None], args: argparse.Namespace) -> list[float]:
    """Milliseconds of each repetition, after one that warms up."""
    samples = []
    for index in range(args.repeats + 1):
        if torch.device(args.device).type == "cuda":
            torch.cuda.synchronize()
        begin = perf_counter()
        call()
        if torch.device(args.device).type == "cuda":
            torch.cuda.synchronize()
        if index:
            samples.append((perf_counter() - begin) * 1e3)
    return samples


def summary(samples: list[float]) -> dict[str, float]:
    """Median and extremes."""
    return {"median_ms": round(statistics.median(samples), 2), "best_ms": round(min(samples), 2),
            "worst_ms": round(max(samples), 2)}


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table."""
    names = ("what", "grid", "layers", "precision", "parameters", "median_ms", "best_ms",
             "worst_ms")
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        cells = ["-" if row[name] is None else str(row[name]) for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
