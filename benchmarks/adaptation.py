"""What learning from a click costs: the steps, by layers and precision, and the way to the engine.

    python benchmarks/adaptation.py --output benchmarks/results/adaptation-cpu
    python benchmarks/adaptation.py --device cuda --grids vga --output OUTPUT

writes OUTPUT.json and OUTPUT.md, and prints the table. Weights are random, which does not change
the time. With --model, the routes of adapted weights into that model's engine are measured too.
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

from trtseg.adapt.config import AdaptConfig, Learning
from trtseg.adapt.latent import Tail
from trtseg.adapt.learn import Example, learn
from trtseg.adapt.weights import AdaptedWeights
from trtseg.machine import describe
from trtseg.nn.config import NetworkConfig, lite_config
from trtseg.nn.convolution import Convolution
from trtseg.nn.network import segment_network

# grid and network: of `lite` at a working size of 384 pixels, as in the experiments of
# docs/adaptation.md, and the paper's at full resolution
GRIDS: dict[str, tuple[tuple[int, int], Callable[[], NetworkConfig]]] = {
    "lite": ((72, 96), lite_config),
    "vga": ((480, 640), NetworkConfig),
}
STEPS = 10
CLICKS = 5


def main() -> int:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--grids", nargs="+", choices=GRIDS, default=["lite"])
    parser.add_argument("--layers", nargs="+", type=int, default=[1, 2, 3, 5, 0],
                        help="last layers that adapt; 0 for all")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", help="a bundle with importance beside it, to measure the routes")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    rows = []
    cases = [(g, n, bf16) for g in args.grids for n in args.layers for bf16 in (False, True)]
    for grid, layers, bf16 in tqdm(cases, file=sys.stderr):
        samples, parameters = measure_steps(grid, layers, bf16, args)
        rows.append({"what": f"{STEPS} steps", "grid": grid, "layers": layers or "all",
                     "precision": "bf16" if bf16 else "fp32", "parameters": parameters,
                     **summary(samples)})
    for grid in args.grids:
        rows += measure_gradients(grid, args)
    if args.model:
        rows += measure_routes(args)
    report = {"machine": machine(args), "rows": rows}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    table = markdown(rows)
    args.output.with_suffix(".md").write_text(table)
    print(table)
    return 0


def measure_steps(
    grid: str, layers: int, bf16: bool, args: argparse.Namespace
) -> tuple[list[float], int]:
    """Milliseconds of `STEPS` steps of image adaptation, and how many weights adapt."""
    (height, width), make = GRIDS[grid]
    config = make()
    torch.manual_seed(0)
    segment = segment_network(config).to(args.device).to(memory_format=torch.channels_last)
    segment.requires_grad_(False)
    count = layers or segment.depth
    tail = Tail(segment, count)
    first = segment.depth - count
    initial = {
        name: value.clone()
        for name, value in tail.named_parameters()
        if ".layers." not in name or int(name.split(".layers.")[1].split(".")[0]) >= first
    }
    x = torch.randn(1, config.width, height, width, device=args.device)
    x = x.contiguous(memory_format=torch.channels_last)
    device_type = torch.device(args.device).type

    def autocast() -> torch.autocast:
        return torch.autocast(device_type, torch.bfloat16, enabled=bf16)

    rng = np.random.default_rng(0)
    points = rng.uniform(0, 1, (CLICKS, 3)) * [height - 1, width - 1, 1]
    points[:, 2] = points[:, 2] > 0.5
    corrections = torch.tensor(points, dtype=torch.float32, device=args.device)
    importance = {name: torch.ones_like(value) for name, value in initial.items()}

    def once() -> None:
        with torch.no_grad(), autocast():
            features = segment.prefix(x, count)

        def forward(weights: Any) -> torch.Tensor:
            with autocast():
                return torch.func.functional_call(tail, dict(weights), (features,))[0, 0]

        learn(
            AdaptedWeights(initial), [Example(forward, corrections, None)], initial, importance,
            Learning(STEPS, 1e-6, 1.0, 1.0),
        )  # fmt: skip

    return timed(once, args), sum(value.numel() for value in initial.values())


def measure_gradients(grid: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The gradient of a 3x3 layer's weights, by torch and as `Convolution` takes it."""
    height, width = GRIDS[grid][0]
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
    height, width = (manifest.long_side_px * 3 // 4, manifest.long_side_px)
    grid = (height // manifest.base_stride, width // manifest.base_stride)
    segment = segmenter.engines.segment
    rows = []
    for route in ("onnxruntime", "torch"):
        learner = Learner(segmenter, AdaptConfig(layers=3), route=route)
        buffers = {"x": np.zeros((1, manifest.channels, *grid), np.float32)}
        shapes = segment.output_shapes({"x": buffers["x"].shape})
        buffers |= {o.name: np.empty(shapes[o.name], o.dtype) for o in segment.outputs}
        values = {name: value + 1e-4 for name, value in learner.initial.values.items()}
        engines: list[Any] = []

        def make(learner: Any = learner, values: Any = values, engines: Any = engines) -> None:
            engines[:] = [learner.engine(AdaptedWeights(values))]

        def answer(engines: Any = engines, buffers: Any = buffers) -> None:
            engines[0].bind(buffers).run()

        for what, call in (("engine made", make), ("first answer", answer)):
            rows.append({"what": f"{route}: {what}", "grid": manifest.name, "layers": 3,
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


def machine(args: argparse.Namespace) -> dict[str, object]:
    """What it ran on."""
    return {**describe(), "device": args.device, "threads": torch.get_num_threads()}


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
