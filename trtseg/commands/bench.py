"""`trtseg bench`: the latency of a model on this machine."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from trtseg import __version__
from trtseg import bundle as bundles
from trtseg.atomic import write_atomically
from trtseg.benchmark import peer as peer_script
from trtseg.benchmark import report
from trtseg.benchmark.floor import Speed, Work, count_work, measure_speed
from trtseg.benchmark.layers import onnxruntime_layers, tensorrt_layers
from trtseg.benchmark.measure import (
    Spread,
    clicks_on,
    picture_of,
    time_adaptation,
    time_concurrent,
    time_stages,
    time_whole,
)
from trtseg.bundle import Bundle
from trtseg.commands.options.arguments import integer, threads
from trtseg.commands.options.extras import require
from trtseg.commands.output import check_targets
from trtseg.errors import BackendUnavailable
from trtseg.machine import describe, peak_memory_mib, physical_cores
from trtseg.runtime.engine import Engine, Engines
from trtseg.runtime.image import LONGEST_SIDE_PX
from trtseg.runtime.onnxruntime import PROVIDERS
from trtseg.runtime.segmenter import Segmenter

if TYPE_CHECKING:
    from trtseg.runtime.tensorrt.execution import TensorRTEngine

EXAMPLES = """\
examples:
  trtseg bench lite
  trtseg bench lite --backend tensorrt --size 480x640 --size 1080x1920 --cuda-graphs both
  trtseg bench random:full --backend torch --device cuda --json full.json --plot full.png
  trtseg bench lite --concurrency 4 --adapt --peer peer/bin/python
  trtseg bench --compare before.json after.json"""
PLOTS = (".png", ".svg", ".pdf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "bundle",
        nargs="?",
        help="a shipped model, the path of a bundle, or random:full (the paper's network on VGG-19 "
        "with random weights; needs torch)",
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
    parser.add_argument("--adapt", action="store_true",
                        help="also time clicks that are learnt from, and the end of an image "
                        "(needs torch)")
    parser.add_argument("--concurrency", type=integer(1), metavar="N",
                        help="also time N sessions that click at the same time")
    parser.add_argument("--peer", metavar="PYTHON",
                        help="also time MobileSAM on the same images and clicks: the interpreter "
                        "of an environment that has ultralytics")
    parser.add_argument("--layers", action="store_true",
                        help="also time every layer (ONNX Runtime on the CPU, or TensorRT)")
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
    on_cpu = args.backend == "onnxruntime" and args.device in (None, "cpu")
    if args.layers and not on_cpu and args.backend != "tensorrt":
        raise ValueError("--layers: expected --backend onnxruntime on the CPU, or tensorrt")
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
    bundle = read_bundle(args.bundle)
    graphs = {"on": [True], "off": [False], "both": [True, False]}[args.cuda_graphs]
    runs: list[dict[str, Any]] = []
    speed: Speed | None = None
    description, peer = "", None
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
            if args.peer is not None and use_graphs == graphs[0]:
                found["peer"], peer = _measure_peer(size, args)
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
                     "threads": args.threads},
        "floor": asdict(speed),
        "peer": peer,
        "runs": runs,
    }  # fmt: skip


def _measure_size(
    segmenter: Segmenter, size: tuple[int, int], speed: Speed, args: argparse.Namespace
) -> dict[str, Any]:
    image = picture_of(size)
    whole = time_whole(segmenter, image, clicks=args.clicks, repeats=args.repeats,
                       warmup=args.warmup)  # fmt: skip
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
    added: dict[str, Any] = {}
    if args.adapt:
        from trtseg.adapt import Sequence

        spreads = time_adaptation(Sequence(segmenter, "both"), image, clicks=args.clicks,
                                  repeats=args.repeats, warmup=args.warmup)  # fmt: skip
        added["adaptation"] = {name: asdict(spread) for name, spread in spreads.items()}
    if args.concurrency is not None:
        found = time_concurrent(segmenter, image, threads=args.concurrency, clicks=args.clicks,
                                repeats=args.repeats)  # fmt: skip
        added["concurrent"] = {**found, "click": asdict(found["click"])}
    if args.layers:
        added["layers_ms"] = _layers(segmenter, size, args)
    return {
        "image_size": list(size),
        "working_size": list(segmenter.pipeline.working_size(*size)),
        **cold,
        "whole": {name: asdict(spread) for name, spread in whole.items()},
        "stages": {name: asdict(spread) for name, spread in stages.items()},
        "work": {stage: asdict(done) for stage, done in work.items()},
        "floor_ms": floors,
        "memory_mib": memory,
        **added,
    }


def _measure_peer(size: tuple[int, int], args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Spreads of a peer's encode and click, and what it is.

    Raises:
        BackendUnavailable: it could not be run; the message says why.
    """
    clicks = [(c.x, c.y, float(c.positive)) for c in clicks_on(size, args.clicks)]
    with tempfile.TemporaryDirectory() as folder:
        job, result = Path(folder) / "job.npz", Path(folder) / "result.json"
        np.savez(job, image=picture_of(size), clicks=np.array(clicks))
        options = {"threads": args.threads or physical_cores(), "repeats": args.repeats}
        command = [args.peer, peer_script.__file__, str(job), str(result)]
        command += [f"--{name}={value}" for name, value in options.items()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise BackendUnavailable(f"{args.peer}: {error.strerror}") from None
        if done.returncode or not result.is_file():
            last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
            raise BackendUnavailable(f"{args.peer}: {last[0]}")
        answer = json.loads(result.read_text())
    if "missing" in answer:
        raise BackendUnavailable(
            f"{args.peer} has no {answer['missing']}: pip install ultralytics in an environment "
            "of its own, and name its interpreter with --peer"
        )
    return {name: asdict(Spread.of(times)) for name, times in answer["phases"].items()}, (
        answer["note"]
    )


def _networks(
    segmenter: Segmenter, size: tuple[int, int]
) -> Iterator[tuple[str, str, Engine, dict[str, tuple[int, ...]]]]:
    """(stage, role, engine, input shapes) of those that the model has."""
    pipeline, engines = segmenter.pipeline, segmenter.engines
    working = pipeline.working_size(*size)
    if engines.encoder is not None:
        yield "encoder", "encoder", engines.encoder, {"image": (1, 3, *working)}
    segment_shapes = pipeline.stages.segment_shapes(working)
    yield "f", "segment", engines.segment, segment_shapes
    if engines.select is not None:
        made = engines.segment.output_shapes(segment_shapes)
        grid = pipeline.grid(working)
        yield "g", "select", engines.select, {
            spec.name: made.get(spec.name, (1, spec.shape[1] or 1, *grid))
            for spec in engines.select.inputs
        }


def _work(segmenter: Segmenter, size: tuple[int, int]) -> dict[str, Work]:
    """By stage; empty where onnx, which reads the graphs, is not installed."""
    try:
        return {
            stage: count_work(segmenter.bundle, role, engine, shapes)
            for stage, role, engine, shapes in _networks(segmenter, size)
        }
    except ModuleNotFoundError as error:
        print(f"no floor: {error.name} is not installed", file=sys.stderr)
        return {}


def _layers(
    segmenter: Segmenter, size: tuple[int, int], args: argparse.Namespace
) -> dict[str, list[list[Any]]]:
    """[node, operator, milliseconds] by stage."""

    def rows(role: str, engine: Engine, shapes: dict[str, tuple[int, ...]]) -> Iterable[Any]:
        if args.backend == "tensorrt":
            return tensorrt_layers(cast("TensorRTEngine", engine), shapes, repeats=args.repeats)
        return onnxruntime_layers(
            segmenter.bundle.graph(role, args.precision or "fp32"), engine, shapes,
            providers=[PROVIDERS["cpu"]], threads=args.threads or physical_cores(),
            repeats=args.repeats,
        )  # fmt: skip

    return {
        stage: [list(row) for row in rows(role, engine, shapes)]
        for stage, role, engine, shapes in _networks(segmenter, size)
    }


def read_bundle(name: str) -> Bundle:
    """A model by name or path, or "random:full": the paper's, never trained."""
    if name != "random:full":
        return bundles.read(name)
    from trtseg.export.random import random_full

    print(f"exporting {name} ...", file=sys.stderr)
    return random_full()


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
    return Segmenter.load(bundle, backend=args.backend, **options).engines


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
