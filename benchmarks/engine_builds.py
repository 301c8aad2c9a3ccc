"""Every graph of some bundles as an engine of TensorRT for RTX: build times and sizes.

    python benchmarks/engine_builds.py lite random:full --json FILE

prints a Markdown table. It needs `tensorrt_rtx` and no GPU; in a checkout, the test fixture stands
in for it: `PYTHONPATH=tests python -m tensorrt_fixture python benchmarks/engine_builds.py ...`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trtseg.commands.bench import read_bundle
from trtseg.machine import describe
from trtseg.runtime.tensorrt.build import build_engine
from trtseg.runtime.tensorrt.build_options import BuildOptions
from trtseg.runtime.tensorrt.bundle_plans import SizeRange, default_sizes, requests
from trtseg.runtime.tensorrt.library import load_tensorrt

CAPABILITIES = ("8.6", "8.9", "12.0")


def _label(bounds: SizeRange) -> str:
    low, _, high = ("{}x{}".format(*size) for size in bounds)
    return low if low == high else f"{low} to {high}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundles", nargs="+", help="a model, a path, or random:full")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    tensorrt = load_tensorrt("rtx")
    rows = []
    print(f"{tensorrt.flavour} {tensorrt.version}, compute capability {', '.join(CAPABILITIES)}\n")
    print("| graph | precision | working size | layers | build | plan |")
    print("|---|---|---|---|---|---|")
    for name in args.bundles:
        bundle = read_bundle(name)
        sizes = {_label(bounds): bounds for bounds in default_sizes(bundle)}
        for precision in bundle.precisions("segment"):
            for label, bounds in sizes.items():
                for request in requests(
                    bundle,
                    flavour=tensorrt.flavour,
                    version=tensorrt.version,
                    gpu=None,
                    precision=precision,
                    sizes=[bounds],
                    options=BuildOptions(compute_capabilities=CAPABILITIES),
                    target="rtx",
                ):
                    built = build_engine(
                        request.onnx,
                        request.profiles,
                        name=request.key.graph,
                        options=request.options,
                        target="rtx",
                    )
                    row = {
                        "graph": request.key.graph,
                        "precision": precision,
                        "working_size": label,
                        "layers": built.layers,
                        "build_s": round(built.seconds, 2),
                        "plan_mib": round(len(built.plan) / 2**20, 2),
                        "warnings": list(built.warnings),
                    }
                    rows.append(row)
                    print(
                        f"| {row['graph']} | {precision} | {label} | {row['layers']} "
                        f"| {row['build_s']:.2f} s | {row['plan_mib']:.2f} MiB |"
                    )
    if args.json:
        result = {
            "builder": f"{tensorrt.flavour} {tensorrt.version}",
            "machine": describe(),
            "builds": rows,
        }
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
