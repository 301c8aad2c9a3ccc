"""One page of what `gpu_acceptance.sh` found: OUT/summary.json and OUT/summary.md, in the place
of the steps' own files.

    python benchmarks/gpu_summary.py OUT

The status is 1 where a step failed, or none ran.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from trtseg.benchmark.report import spreads
from trtseg.machine import describe

PARTS = ("bench-lite", "bench-full", "convolutions", "kernels")


def summary(out: Path) -> dict[str, Any]:
    """All steps, and the JSON of those that wrote some."""
    steps = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]
    results = {}
    for name in PARTS:
        path = out / f"{name}.json"
        if path.is_file():
            results[name] = json.loads(path.read_text())
    return {"machine": describe(), "steps": steps, "results": results}


def page(found: dict[str, Any]) -> str:
    """For people, in Markdown."""
    machine = found["machine"]
    lines = [
        "# GPU acceptance",
        "",
        f"{'; '.join(machine.get('gpus', ['no GPU']))}; {machine['processor']}; "
        f"trtseg {machine['trtseg']}",
        "",
        "| step | result | seconds |",
        "|---|---|---:|",
    ]
    for step in found["steps"]:
        told = {0: "passed", None: f"left out: {step['left_out']}", 124: "stopped: too slow"}
        result = told.get(step["status"], f"failed: status {step['status']}")
        lines.append(f"| {step['step']} | {result} | {step['seconds']} |")
    for name in ("bench-lite", "bench-full"):
        for run in found["results"].get(name, {}).get("runs", []):
            height, width = run["image_size"]
            lines += ["", f"{name}, {height}x{width}, CUDA graphs {run['cuda_graphs']}: "
                      f"{found['results'][name]['engine']}", "",
                      "| | p50, ms | p99, ms | floor, ms |", "|---|---:|---:|---:|"]  # fmt: skip
            for stage, spread in spreads(run):
                floor = run["floor_ms"].get(stage)
                lines.append(
                    f"| {stage} | {spread['p50']:.3f} | {spread['p99']:.3f} | "
                    f"{'' if floor is None else f'{floor:.3f}'} |"
                )
    layers = found["results"].get("convolutions")
    if layers:
        lines += ["", f"Ceilings: {layers['matmul_tflop_s']:.3f} TFLOP/s, "
                  f"{layers['copy_gb_s']:.0f} GB/s", "",
                  "| layer | convolution, ms | + bias + leaky ReLU, ms | TFLOP/s |",
                  "|---|---:|---:|---:|"]  # fmt: skip
        for row in layers["layers"]:
            lines.append(f"| {row['layer']} | {row['convolution_ms']:.3f} | "
                         f"{row['activated_ms']:.3f} | {row['tflop_s']:.1f} |")  # fmt: skip
    kernels = found["results"].get("kernels")
    if kernels:
        lines += ["", "| kernel | type | ms | GB/s | share of a copy |", "|---|---|---:|---:|---:|"]
        for row in kernels["rows"]:
            share = row["gb_per_s"] / row["copy_gb_per_s"]
            lines.append(
                f"| {row['op']} | {row['type']} | {row['ms']:.3f} | {row['gb_per_s']:.0f} | "
                f"{share:.0%} |"
            )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder that the steps wrote to")
    out = parser.parse_args().out
    found = summary(out)
    text = page(found)
    (out / "summary.json").write_text(json.dumps(found, indent=1) + "\n")
    (out / "summary.md").write_text(text)
    for name in ("steps.jsonl", *(f"{part}.json" for part in PARTS)):
        (out / name).unlink(missing_ok=True)  # all of it is in summary.json
    print(text)
    ran = [step for step in found["steps"] if step["status"] is not None]
    return 0 if ran and all(step["status"] == 0 for step in ran) else 1


if __name__ == "__main__":
    sys.exit(main())
