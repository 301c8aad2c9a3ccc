"""How long a person waits: encoding an image, answering a click.

    python benchmarks/latency.py --output benchmarks/results/latency-cpu

writes OUTPUT.json, OUTPUT.md and OUTPUT.png, and prints the table. Everything is warm: buffers are
made and caches filled before the first measured call. The photo is the demo's, resized.
`adaptation` is a click that is learnt from, and what the end of an image then takes; it needs torch
and the model's importance, and says so where they are missing.
`grabcut` is OpenCV's, with one iteration a click, as its own interactive sample does. `peer` is
MobileSAM with random weights, see `peer.py`; where --peer-python names no environment that has it,
it is left out, with a note.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, time

import cv2
import numpy as np
from tqdm import tqdm

from trtseg import Segmenter, __version__
from trtseg.errors import BackendUnavailable, BundleError
from trtseg.runtime.image import load_image
from trtseg.runtime.onnxruntime import physical_cores

SIZES = {"VGA": (480, 640), "1080p": (1080, 1920), "4K": (2160, 3840)}
PERCENTILES = (50, 95, 99)
DATA = Path(__file__).parents[1] / "trtseg" / "data"
WARM_UP = 5
NAMES = {"peer": "MobileSAM (random weights)"}
Samples = dict[str, list[float]]


def main() -> int:
    """Measure, write, print."""
    args = parse()
    sizes = {name: SIZES[name] for name in args.sizes}
    rows, notes = [], []
    methods: dict[str, Callable[[np.ndarray, argparse.Namespace], Samples]] = {
        "trtseg": measure_trtseg,
        "adaptation": measure_adaptation,
        "grabcut": measure_grabcut,
        "peer": lambda image, args: measure_peer(image, args, notes),
    }
    photo = load_image(DATA / "coffee.jpg").rgb()
    with tqdm(total=len(sizes) * len(args.methods), file=sys.stderr) as progress:
        for size_name, (height, width) in sizes.items():
            image = cv2.resize(photo, (width, height), interpolation=cv2.INTER_CUBIC)
            for method in args.methods:
                progress.set_description(f"{method} {size_name}")
                try:
                    phases = methods[method](image, args)
                except (ModuleNotFoundError, BackendUnavailable, BundleError) as error:
                    notes.append(f"{method} {size_name}: left out, {error}")
                    phases = {}
                for phase, samples in phases.items():
                    rows.append(row(NAMES.get(method, method), size_name, phase, samples))
                progress.update()
    result = {"machine": machine(args), "notes": notes, "rows": rows}
    table = markdown(result)
    print(table)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    args.output.with_suffix(".md").write_text(table + "\n")
    plot(result, args.output.with_suffix(".png"))
    return 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, metavar="PATH",
                        help="without a suffix")
    parser.add_argument("--model", default="lite")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--device")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clicks", type=int, default=300, help="measured clicks per size")
    parser.add_argument("--encodes", type=int, default=60, help="measured encodes per size")
    parser.add_argument("--seconds", type=float, default=30,
                        help="end a phase after this long, with at least two samples")
    parser.add_argument("--peer-python", default=sys.executable, metavar="PROGRAM",
                        help="Python with `ultralytics`, for the peer (default: this one)")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    methods = ("trtseg", "adaptation", "grabcut", "peer")
    parser.add_argument("--methods", nargs="+", default=list(methods), choices=methods)
    return parser.parse_args()


def timed(call: Callable[[], object], count: int, seconds: float) -> list[float]:
    """Milliseconds of each call; stops early after `seconds`, but not before two calls."""
    samples: list[float] = []
    end = perf_counter() + seconds
    while len(samples) < count and (len(samples) < 2 or perf_counter() < end):
        start = perf_counter()
        call()
        samples.append((perf_counter() - start) * 1e3)
    return samples


def points(image: np.ndarray) -> list[tuple[float, float, bool]]:
    """Ten clicks around the middle, every third on the background."""
    height, width = image.shape[:2]
    angles = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    found = []
    for index, angle in enumerate(angles):
        reach = 0.45 if index % 3 == 2 else 0.15
        x, y = width * (0.5 + reach * np.cos(angle)), height * (0.5 + reach * np.sin(angle))
        found.append((float(x), float(y), index % 3 != 2))
    return found


def measure_trtseg(image: np.ndarray, args: argparse.Namespace) -> Samples:
    """Encode; clicks with their phases, into a caller's buffer."""
    segmenter = Segmenter.load(
        args.model, backend=args.backend, device=args.device, threads=args.threads
    )
    encoded = segmenter.encode(image, "RGB")
    for _ in range(WARM_UP):
        segmenter.encode(image, "RGB")
    phases = {"encode": timed(lambda: segmenter.encode(image, "RGB"), args.encodes, args.seconds)}
    out = np.empty(image.shape[:2], np.uint8)
    session = segmenter.session(encoded, focus=None)
    clicks = points(image)
    names = ("guidance_ms", "segment_ms", "select_ms", "compose_ms")
    parts: dict[str, list[float]] = {name: [] for name in names}
    number = 0

    def click() -> None:
        nonlocal number
        if number % len(clicks) == 0:
            session.reset()
        prediction = session.add_click(*clicks[number % len(clicks)], out=out)
        number += 1
        for name, values in parts.items():
            values.append(getattr(prediction.timing, name))

    timed(click, WARM_UP, args.seconds)
    phases["click"] = timed(click, args.clicks, args.seconds)
    for name, values in parts.items():
        phases[f"  {name.removesuffix('_ms')}"] = values[WARM_UP:]
    return phases


def measure_adaptation(image: np.ndarray, args: argparse.Namespace) -> Samples:
    """Clicks that are learnt from (IA), the learning alone, and the end of an image (SA)."""
    import torch

    from trtseg.adapt import Sequence

    torch.set_num_threads(args.threads or physical_cores())
    segmenter = Segmenter.load(
        args.model, backend=args.backend, device=args.device, threads=args.threads
    )
    sequence = Sequence(segmenter, "both")
    encoded = segmenter.encode(image, "RGB")
    out = np.empty(image.shape[:2], np.uint8)
    clicks: list[float] = []
    learning: list[float] = []
    first, *others = points(image)
    with sequence.image(encoded, focus=None) as session:

        def click() -> None:
            # the first click corrects nothing; it is made again when the others have been used
            if len(session.clicks) in (0, 1 + len(others)):
                session.reset()
                session.add_click(*first, out=out)
            prediction = session.add_click(*others[len(session.clicks) - 1], out=out)
            clicks.append(prediction.timing.total_ms)
            learning.append(prediction.timing.adapt_ms)

        warm = len(timed(click, 2, args.seconds))
        timed(click, min(args.clicks, 50), args.seconds)
        ends = timed(lambda: sequence.learn_from(session), 10, args.seconds)
    return {"IA click": clicks[warm:], "  learning": learning[warm:], "SA image": ends}


def measure_grabcut(image: np.ndarray, args: argparse.Namespace) -> Samples:
    """One iteration of OpenCV's GrabCut per click, its models kept from click to click."""
    height, width = image.shape[:2]
    bgr = np.ascontiguousarray(image[..., ::-1])
    mask = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    cv2.ellipse(mask, (width // 2, height // 2), (width // 3, height // 3), 0, 0, 360,
                cv2.GC_PR_FGD, -1)  # fmt: skip
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    clicks = points(image)
    radius = max(3, width // 100)

    def step(mode: int, index: int) -> None:
        x, y, positive = clicks[index % len(clicks)]
        value = cv2.GC_FGD if positive else cv2.GC_BGD
        cv2.circle(mask, (round(x), round(y)), radius, value, -1)
        cv2.grabCut(bgr, mask, None, background, foreground, 1, mode)

    step(cv2.GC_INIT_WITH_MASK, 0)
    number = iter(range(1, 10**9))
    samples = timed(
        lambda: step(cv2.GC_EVAL, next(number)), min(args.clicks, 50), args.seconds
    )
    return {"click": samples}


def measure_peer(image: np.ndarray, args: argparse.Namespace, notes: list[str]) -> Samples:
    """MobileSAM, in the environment that `--peer-python` names; see `peer.py`.

    Its version is noted, once.

    Raises:
        BackendUnavailable: it could not be run there; the message says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        job, result = Path(folder) / "job.npz", Path(folder) / "result.json"
        np.savez(job, image=image, clicks=np.array(points(image)))
        options = {
            "threads": args.threads or physical_cores(),
            "clicks": args.clicks,
            "encodes": args.encodes,
            "seconds": args.seconds,
        }
        script = Path(__file__).with_name("peer.py")
        command = [args.peer_python, *map(str, (script, job, result))]
        command += [f"--{name}={value}" for name, value in options.items()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise BackendUnavailable(f"{args.peer_python}: {error.strerror}") from None
        if done.returncode or not result.is_file():
            last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
            raise BackendUnavailable(f"{args.peer_python} peer.py: {last[0]}")
        answer = json.loads(result.read_text())
    if "missing" in answer:
        raise BackendUnavailable(
            f"{args.peer_python} has no {answer['missing']}: pip install ultralytics in an "
            "environment of its own, and name its interpreter with --peer-python"
        )
    if answer["note"] not in notes:
        notes.append(answer["note"])
    return answer["phases"]


def row(method: str, size: str, phase: str, samples: list[float]) -> dict[str, object]:
    """One line of the table."""
    values = np.percentile(samples, PERCENTILES)
    return {
        "method": method,
        "size": size,
        "phase": phase,
        "samples": len(samples),
        **{f"p{p}_ms": round(float(v), 3) for p, v in zip(PERCENTILES, values, strict=True)},
        "all_ms": [round(value, 3) for value in samples],
    }


def machine(args: argparse.Namespace) -> dict[str, object]:
    """What the numbers were measured on."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = lines[0].partition(":")[2].strip() if lines else cpu
    versions = {}
    for package in ("numpy", "onnxruntime", "opencv-python-headless", "torch"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    segmenter = Segmenter.load(
        args.model, backend=args.backend, device=args.device, threads=args.threads
    )
    return {
        "trtseg": __version__,
        "model": segmenter.bundle.name,
        "fingerprint": segmenter.bundle.fingerprint[:16],
        "engines": segmenter.engines.description,
        "cpu": cpu,
        "physical_cores": physical_cores(),
        "threads": args.threads or physical_cores(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
        "time": int(time()),
    }


def markdown(result: dict) -> str:
    """The table for people."""
    facts = result["machine"]
    lines = [
        f"{facts['model']} on {facts['engines']}; {facts['cpu']}, {facts['threads']} threads; "
        f"warm; milliseconds",
        "",
        "| method | image | phase | p50 | p95 | p99 | samples |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for each in result["rows"]:
        phase = each["phase"].replace("  ", "&nbsp;&nbsp;")
        numbers = " | ".join(f"{each[f'p{p}_ms']:.1f}" for p in PERCENTILES)
        lines.append(
            f"| {each['method']} | {each['size']} | {phase} | {numbers} | {each['samples']} |"
        )
    return "\n".join([*lines, *(f"\n{note}" for note in result["notes"])])


def plot(result: dict, path: Path) -> None:
    """Median and 95th percentile of what a person waits for, on a logarithmic axis."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = [each for each in result["rows"] if not each["phase"].startswith(" ")]
    labels = [f"{each['method']} {each['phase']}, {each['size']}" for each in rows]
    middles = np.array([each["p50_ms"] for each in rows])
    highs = np.array([each["p95_ms"] for each in rows])
    figure, axes = plt.subplots(figsize=(8, 0.45 * len(rows) + 1.2), layout="constrained")
    at = np.arange(len(rows))[::-1]
    axes.barh(at, middles, xerr=[np.zeros_like(middles), highs - middles], color="#1e90ff",
              error_kw={"elinewidth": 1})  # fmt: skip
    for y, value in zip(at, highs, strict=True):
        axes.text(value * 1.08, y, f"{value:.0f}", va="center", fontsize=8)
    axes.set_yticks(at, labels)
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds: median (bar) and 95th percentile (number)")
    axes.axvline(50, color="#888", linewidth=1, linestyle=":")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
