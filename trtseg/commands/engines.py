"""`trtseg engines`: what is in the engine cache, and whether it computes what it should."""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trtseg.errors import BackendUnavailable
from trtseg.runtime.tensorrt.plan_cache import CacheEntry, EngineCache, default_directory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "action",
        choices=("list", "verify", "prune", "compare"),
        help="list the engines; read and check each one; remove the least recently used; run the "
        "networks of a bundle beside ONNX Runtime in fp32 on the CPU",
    )
    parser.add_argument("bundle", nargs="?", help="compare: a shipped model or a bundle's path")
    parser.add_argument("--backend", choices=("tensorrt", "onnxruntime"), default="tensorrt",
                        help="compare: whose engines")
    parser.add_argument("--device", help="compare: as the backend names it")
    parser.add_argument("--precision", choices=("fp16", "fp32"), help="compare: of the engines")
    parser.add_argument(
        "--layers", action="store_true",
        help="compare: every layer, in their order, by engines that give them all; their times say "
        "nothing",
    )
    parser.add_argument(
        "--cache", metavar="FOLDER", help=f"another folder than {default_directory()}"
    )
    parser.add_argument(
        "--limit-mib", type=float, help="prune to this size (default: 8192; 0 removes all)"
    )
    parser.add_argument("--remove", action="store_true", help="verify: remove damaged engines")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Print to stdout; 1 when `verify` finds damage that it does not remove."""
    limit = args.limit_mib
    if limit is not None and (args.action != "prune" or not 0 <= limit < math.inf):
        raise ValueError(f"--limit-mib: expected a size of at least 0, with prune, got {limit:g}")
    if args.layers and args.action != "compare":
        raise ValueError(f"--layers: expected with compare, got {args.action}")
    if args.remove and args.action != "verify":
        raise ValueError(f"--remove: expected with verify, got {args.action}")
    if (args.bundle is None) == (args.action == "compare"):
        raise ValueError("bundle: expected with compare, and only there")
    if args.cache is not None and not Path(args.cache).is_dir():
        raise NotADirectoryError(f"--cache: expected a folder, got {args.cache!r}")
    if args.action == "compare":
        return _compare(args)
    if not Path(args.cache or default_directory()).is_dir():
        return _show([], [], args.json)  # looking must not make the folder
    cache = EngineCache(args.cache)
    if args.action == "prune":
        removed = cache.prune(args.limit_mib)
        rows = [{"path": str(path)} for path in removed]
        return _show(rows, [f"removed {path}" for path in removed], args.json)
    if args.action == "list":
        rows = [_row(entry, entry.problem) for entry in cache.entries()]
        return _show(rows, [_line(row) for row in rows], args.json)
    rows, damaged = [], 0
    for entry, problem in cache.verify():
        row = _row(entry, problem)
        if problem is not None:
            row["removed"] = args.remove and cache.remove_entry(entry)
            damaged += not row["removed"]
        rows.append(row)
    _show(rows, [_line(row) for row in rows], args.json)
    return 1 if damaged else 0


def _compare(args: argparse.Namespace) -> int:
    from trtseg import bundle as bundles
    from trtseg.benchmark.graphs import compare_graphs, with_layers
    from trtseg.runtime import onnxruntime

    bundle = bundles.read(args.bundle)
    if args.layers:
        bundle = with_layers(bundle)
    if args.backend == "tensorrt":
        from trtseg.runtime import tensorrt

        state = tensorrt.availability()
        if not state.usable:
            raise BackendUnavailable(state.reason)
        cache = None if args.cache is None else EngineCache(args.cache)
        engines = tensorrt.load(bundle, device=args.device, precision=args.precision, cache=cache)
    else:
        engines = onnxruntime.load(bundle, device=args.device, precision=args.precision)
    reference = onnxruntime.load(bundle, device="cpu", precision="fp32")
    found = compare_graphs(bundle, engines, reference, repeats=1 if args.layers else 20)
    width = 2 + max(len(each.output) for each in found)
    lines = [
        f"{engines.description} beside {reference.description}",
        f"{'graph':10}{'output':{width}}{'largest':>11}{'mean':>11}{'scale':>9}{'ms':>10}{'beside':>10}",
    ]
    for each in found:
        lines.append(
            f"{each.graph:10}{each.output:{width}}{each.largest:11.2e}{each.mean:11.2e}"
            f"{each.scale:9.3g}{each.ms:10.3f}{each.reference_ms:10.3f}"
        )
    return _show([asdict(each) for each in found], lines, args.json)


def _row(entry: CacheEntry, problem: str | None) -> dict[str, Any]:
    return {
        "path": str(entry.path),
        "size_bytes": entry.size_bytes,
        "used_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.used_at)),
        "key": None if entry.key is None else asdict(entry.key),
        "details": dict(entry.details),
        "problem": problem,
    }


def _line(row: dict[str, Any]) -> str:
    size = f"{row['size_bytes'] / 2**20:8.2f} MiB"
    removed = " (removed)" if row.get("removed") else ""
    if row["key"] is None:
        return f"{size}  {row['path']}: {row['problem']}{removed}"
    key = row["key"]
    text = (
        f"{size}  {key['graph']}  {key['precision']}  {key['flavour']} {key['version']}  "
        f"{key['gpu']} ({key['compute_capability']})  {key['profiles']}  used {row['used_at']}"
    )
    return text if row["problem"] is None else f"{text}: {row['problem']}{removed}"


def _show(rows: list[dict[str, Any]], lines: list[str], as_json: bool) -> int:
    print(json.dumps(rows, indent=1) if as_json else "\n".join(lines) or "no engines")
    return 0
