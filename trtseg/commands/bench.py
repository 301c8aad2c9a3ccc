"""`trtseg bench`: the latency of a model on this machine."""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trtseg import __version__
from trtseg import bundle as bundles
from trtseg.benchmark import report
from trtseg.benchmark.floor import Speed, Work, count_work, measure_speed
from trtseg.benchmark.machine import describe, peak_memory_mib
from trtseg.benchmark.measure import picture_of, time_stages, time_whole
from trtseg.bundle import Bundle
from trtseg.commands.arguments import integer, threads
from trtseg.commands.extras import require
from trtseg.commands.output import check_targets
from trtseg.errors import BackendUnavailable
from trtseg.runtime.atomic_file import write_atomically
from trtseg.runtime.engine import Engines
from trtseg.runtime.image import LONGEST_SIDE_PX
from trtseg.runtime.segmenter import Segmenter
from trtseg.runtime.session.observation import Adapter

EXAMPLES = """\
examples:
  trtseg bench lite
  trtseg bench lite --backend tensorrt --size 480x640 --size 1080x1920 --cuda-graphs both
  trtseg bench random:full --backend torch --device cuda --json full.json --plot full.png
  trtseg bench --compare before.json after.json"""
PLOTS = (".png", ".svg", ".pdf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "bundle",
        nargs="?",
        help="a shipped model, the path of a bundle, or random:lite, random:full (random weights, "
        "full is the paper's network on VGG-19; needs torch)",
    )
    parser.add_argument("--backend", choices=("auto", "onnxruntime", "tensorrt", "torch"),
                        default="onnxruntime")  # fmt: skip
    parser.add_argument("--device", help="as the backend names it")
    parser.add_argument("--precision", choices=("fp32", "fp16"))
    parser.add_argument("--threads", type=threads, help="of the CPU")
    parser.add_argument("--size", type=_size, action="append", metavar="HEIGHTxWIDTH",
                        help="image size; may be repeated (default: 480x640)")  # fmt: skip
    parser.add_argument("--clicks", type=integer(1), default=5, help="per object (default: 5)")
    parser.add_argument("--repeats", type=integer(1), default=20,
                        help="measured objects (default: 20)")  # fmt: skip
    parser.add_argument("--warmup", type=integer(0), default=3, help="objects before (default: 3)")
    parser.add_argument("--cuda-graphs", choices=("on", "off", "both"), default="on")
    parser.add_argument("--adapt", choices=("image",),
                        help="also time learning from every click (needs torch)")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result")
    parser.add_argument("--plot", type=Path, metavar="FILE",
                        help="draw it: PNG, SVG or PDF (needs matplotlib)")
    parser.add_argument("--force", action="store_true", help="replace these files")
    parser.add_argument("--compare", nargs=2, metavar=("A.json", "B.json"))


def run(args: argparse.Namespace) -> int:
    """Measure, print the table, write what was asked for."""
    if args.compare:
        print(report.compare(*(report.read(path) for path in args.compare)))
        return 0
    if args.bundle is None:
        raise ValueError("bench: expected a bundle, or --compare A.json B.json")
    targets = [path for path in (args.json, args.plot) if path is not None]
    check_targets(targets, force=args.force, suffixes=None)
    if args.plot is not None:
        check_targets([args.plot], force=args.force, suffixes=PLOTS)
        require("matplotlib")
    result = measure(args)
    print(report.table(result))
    if args.json:
        text = json.dumps(result, indent=1) + "\n"
        write_atomically(args.json, text.encode(), 0o666)
    if args.plot:
        report.plot(result, args.plot)
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The whole result, as `--json` writes it."""
    bundle = _bundle(args.bundle)
    graphs = {"on": [True], "off": [False], "both": [True, False]}[args.cuda_graphs]
    runs: list[dict[str, Any]] = []
    speed: Speed | None = None
    description = ""
    for use_graphs in graphs:
        start = time.perf_counter()
        engines = _engines(bundle, args, use_graphs)
        load_s = time.perf_counter() - start
        description = engines.description
        on_gpu = hasattr(engines.memory, "cupy")
        if not on_gpu and use_graphs != graphs[0]:
            break  # the same thing again
        speed = speed or measure_speed(engines.memory, engines.segment.inputs[0].dtype)
        segmenter = Segmenter(bundle, engines)
        for size in args.size or [(480, 640)]:
            print(f"measuring {size[0]}x{size[1]} ...", file=sys.stderr)
            found = _measure_size(segmenter, size, speed, args)
            runs.append({"cuda_graphs": ("on" if use_graphs else "off") if on_gpu else "none",
                         "load_s": load_s, **found})  # fmt: skip
    assert speed is not None
    return {
        "format": report.FORMAT,
        "trtseg": __version__,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": describe(),
        "model": {"name": bundle.name, "fingerprint": bundle.fingerprint,
                  "long_side_px": bundle.manifest.long_side_px},
        "engine": description,
        "settings": {"clicks": args.clicks, "repeats": args.repeats, "warmup": args.warmup,
                     "threads": args.threads, "adapt": args.adapt},
        "floor": asdict(speed),
        "runs": runs,
    }  # fmt: skip


def _adapter(segmenter: Segmenter, name: str | None) -> Adapter | None:
    if name is None:
        return None
    from trtseg.adapt import ClickAdapter

    return ClickAdapter(segmenter)


def _measure_size(
    segmenter: Segmenter, size: tuple[int, int], speed: Speed, args: argparse.Namespace
) -> dict[str, Any]:
    image = picture_of(size)
    whole = time_whole(segmenter, image, clicks=args.clicks, repeats=args.repeats,
                       warmup=args.warmup, adapt=_adapter(segmenter, args.adapt))
    cold = {name: whole.pop(name) for name in ("first_encode_ms", "first_click_ms")}
    stages = time_stages(segmenter, image, repeats=args.repeats, warmup=args.warmup)
    work = _work(segmenter, size)
    floors = {stage: done.floor_ms(speed) for stage, done in work.items()}
    if "encoder" in floors:
        floors["encode"] = floors["encoder"]
    if "f" in floors:
        floors["click"] = floors["f"] + floors.get("g", 0.0)
    memory = {"plan of one image and session": segmenter.memory_plan(*size).total() / 2**20}
    peak = peak_memory_mib()
    if peak is not None:
        memory["peak of the process"] = peak
    device: Any = segmenter.engines.memory
    if hasattr(device, "used_bytes"):
        memory["arrays on the GPU"] = device.used_bytes() / 2**20
    return {
        "image_size": list(size),
        "working_size": list(segmenter.pipeline.working_size(*size)),
        **cold,
        "whole": {name: asdict(spread) for name, spread in whole.items()},
        "stages": {name: asdict(spread) for name, spread in stages.items()},
        "work": {stage: asdict(done) for stage, done in work.items()},
        "floor_ms": floors,
        "memory_mib": memory,
    }


def _work(segmenter: Segmenter, size: tuple[int, int]) -> dict[str, Work]:
    """By stage; empty where onnx, which reads the graphs, is not installed."""
    pipeline, engines = segmenter.pipeline, segmenter.engines
    working = pipeline.working_size(*size)
    grid = pipeline.grid(working)
    segment_shapes = pipeline.stages.segment_shapes(working)
    found = {}
    try:
        if engines.encoder is not None:
            found["encoder"] = count_work(
                segmenter.bundle, "encoder", engines.encoder, {"image": (1, 3, *working)}
            )
        found["f"] = count_work(segmenter.bundle, "segment", engines.segment, segment_shapes)
        if engines.select is not None:
            made = engines.segment.output_shapes(segment_shapes)
            shapes = {
                spec.name: made.get(spec.name, (1, spec.shape[1] or 1, *grid))
                for spec in engines.select.inputs
            }
            found["g"] = count_work(segmenter.bundle, "select", engines.select, shapes)
    except ModuleNotFoundError as error:
        print(f"no floor: {error.name} is not installed", file=sys.stderr)
        return {}
    return found


def _bundle(name: str) -> Bundle:
    if not name.startswith("random:"):
        return bundles.read(name)
    from trtseg.export.random import write_random

    with tempfile.TemporaryDirectory() as folder:
        print(f"exporting {name} ...", file=sys.stderr)
        return bundles.read(write_random(name.removeprefix("random:"), Path(folder) / "bundle"))


def _engines(bundle: Bundle, args: argparse.Namespace, cuda_graphs: bool) -> Engines:
    options = {"device": args.device, "threads": args.threads, "precision": args.precision}
    if args.backend == "torch":
        return _torch_engines(bundle, args, cuda_graphs)
    if args.backend == "tensorrt":
        from trtseg.runtime import tensorrt

        state = tensorrt.availability()
        if not state.usable:
            raise BackendUnavailable(state.reason)
        return tensorrt.load(bundle, **options, cuda_graphs=cuda_graphs)
    return Segmenter.load(bundle.path, backend=args.backend, **options).engines


def _torch_engines(bundle: Bundle, args: argparse.Namespace, cuda_graphs: bool) -> Engines:
    import torch

    from trtseg.nn import engines as torch_engines
    from trtseg.nn.bundle_weights import load_network

    network = load_network(bundle)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    half = (args.precision or ("fp32" if device == "cpu" else "fp16")) == "fp16"
    return torch_engines.load(network, device=device, half=half, cuda_graphs=cuda_graphs)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH, got {text!r}")
    height, width = int(match[1]), int(match[2])
    if max(height, width) > LONGEST_SIDE_PX:
        raise argparse.ArgumentTypeError(f"expected sides up to {LONGEST_SIDE_PX}, got {text!r}")
    return height, width
