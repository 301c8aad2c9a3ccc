"""A benchmark's result as a table and as a plot, and two results side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trtseg.parse import read_json

FORMAT = 1
LAYERS = 12  # shown of each network; a result holds all


def read(path: str | Path) -> dict[str, Any]:
    """A result that `trtseg bench --json` wrote.

    Raises:
        ValueError: no such result.
        OSError: the file cannot be read.
    """
    result = read_json(path)
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise ValueError(f"{path}: not a benchmark result of format {FORMAT}")
    return result


def table(result: Mapping[str, Any]) -> str:
    """Lines for people."""
    machine, model = result["machine"], result["model"]
    lines = [
        f"{model['name']} on {result['engine']}",
        f"{machine['processor']}, {machine['cores']} cores, "
        f"load {machine.get('load_average', 'unknown')}",
        *machine.get("gpus", []),
    ]
    floor = result.get("floor")
    if floor:
        lines.append(
            f"device: copies {floor['copy_gb_s']:.1f} GB/s, multiplies "
            f"{floor['matrix_tflop_s']:.3f} TFLOP/s"
        )
    for run in result["runs"]:
        height, width = run["image_size"]
        lines += [
            "",
            f"image {height}x{width}, working size {run['working_size'][0]}x"
            f"{run['working_size'][1]}, CUDA graphs {run['cuda_graphs']}",
            f"{'':18}{'p50':>10}{'p95':>10}{'p99':>10}{'floor':>10}{'ratio':>8}   ms",
        ]
        for name, spread in spreads(run):
            bound = run.get("floor_ms", {}).get(name)
            tail = f"{bound:10.3f}{spread['p50'] / bound:8.1f}" if bound else ""
            lines.append(
                f"{name:18}{spread['p50']:10.3f}{spread['p95']:10.3f}{spread['p99']:10.3f}{tail}"
            )
        lines.append(
            f"cold: encode {run['first_encode_ms']:.1f} ms, click {run['first_click_ms']:.1f} ms"
        )
        if "concurrent" in run:
            lines.append(f"{run['concurrent']['threads']} sessions at once: "
                         f"{run['concurrent']['clicks_per_s']:.1f} clicks a second")  # fmt: skip
        for stage, rows in run.get("layers_ms", {}).items():
            lines.append(f"layers of {stage}, the slowest first, ms")
            slowest = sorted(rows, key=lambda row: -row[2])[:LAYERS]
            lines += [f"{ms:9.3f}  {operator:10} {node}" for node, operator, ms in slowest]
        for name, value in run["memory_mib"].items():
            lines.append(f"memory, {name}: {value:.1f} MiB")
    if result.get("peer"):
        lines += ["", f"peer: {result['peer']}"]
    return "\n".join(lines)


def spreads(run: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, float]]]:
    """(name, spread) of everything that was timed: the whole, its stages, and what was added."""
    yield from run["whole"].items()
    yield from run["stages"].items()
    yield from run.get("adaptation", {}).items()
    if "concurrent" in run:
        yield f"click, {run['concurrent']['threads']} at once", run["concurrent"]["click"]
    for name, spread in run.get("peer", {}).items():
        yield f"peer {name}", spread


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Medians of both, by what was timed at the same image size.

    The machines' differences come first: numbers of two machines are no comparison of code.
    """
    lines = []
    for name in ("processor", "gpus", "cores", "packages", "load_average"):
        one, two = (result["machine"].get(name) for result in (first, second))
        if one != two:
            lines.append(f"differs: {name}: {one} | {two}")
    for name in ("name", "fingerprint"):
        if first["model"][name] != second["model"][name]:
            lines.append(f"differs: model {name}: {first['model'][name]} | "
                         f"{second['model'][name]}")  # fmt: skip
    lines += [f"A: {first['engine']}", f"B: {second['engine']}"]
    runs = {(tuple(run["image_size"]), run["cuda_graphs"]): run for run in second["runs"]}
    for run in first["runs"]:
        other = runs.get((tuple(run["image_size"]), run["cuda_graphs"]))
        if other is None:
            continue
        height, width = run["image_size"]
        lines += [
            "",
            f"image {height}x{width}, CUDA graphs {run['cuda_graphs']}",
            f"{'p50, ms':18}{'A':>10}{'B':>10}{'B / A':>8}",
        ]
        theirs = dict(spreads(other))
        for name, spread in spreads(run):
            if name in theirs:
                one, two = spread["p50"], theirs[name]["p50"]
                ratio = f"{two / one:8.2f}" if one else ""
                lines.append(f"{name:18}{one:10.3f}{two:10.3f}{ratio}")
    return "\n".join(lines)


def plot(result: Mapping[str, Any], path: str | Path) -> None:
    """Stages of encode and click as bars, one pair for each image size; PNG, SVG or PDF.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: a file ending that matplotlib does not know.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.5 + 0.8 * len(result["runs"])), layout="constrained")
    axes = figure.subplots()
    colours: dict[str, Any] = {}
    labels = []
    for row, run in enumerate(result["runs"]):
        start = 0.0
        for name, spread in run["stages"].items():
            bar = axes.barh(row, spread["p50"], left=start, color=colours.get(name))
            if name not in colours:
                colours[name] = bar[0].get_facecolor()
                bar.set_label(name)
            start += spread["p50"]
        for name, mark in (("encode", "|"), ("click", "x")):
            axes.plot(run["whole"][name]["p50"], row, mark, color="black", markersize=10,
                      label=f"{name}, whole" if row == 0 else None)  # fmt: skip
        height, width = run["image_size"]
        labels.append(f"{height}x{width}\ngraphs {run['cuda_graphs']}")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("milliseconds, median")
    axes.set_title(f"{result['model']['name']}, {result['engine']}", fontsize=9)
    axes.legend(fontsize=7, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    figure.savefig(path)
