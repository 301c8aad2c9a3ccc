"""`trtseg export CHECKPOINT BUNDLE`: make a bundle of a trained model."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from trtseg.commands.options.arguments import integer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments on `parser`."""
    parser.add_argument("checkpoint", type=Path, help="checkpoint folder of `trtseg train`")
    parser.add_argument("bundle", type=Path,
                        help="bundle to write: a folder, or one file when it ends in .trtseg")
    parser.add_argument("--name", help="the model's name (default: that of the bundle)")
    parser.add_argument("--long-side", type=integer(1), metavar="PX",
                        help="longer side of the working image (default: as trained)")
    parser.add_argument("--score-calibration", type=float, nargs=2,
                        metavar=("CEILING", "EXPONENT"),
                        help="make scores CEILING * overlap^EXPONENT (default: as trained; "
                        "benchmarks/reliability.py finds them)")
    parser.add_argument("--data", type=Path, metavar="DIR",
                        help="images with masks for comparing FP16 and FP32 in NoC")
    parser.add_argument("--objects", type=integer(1), default=10,
                        help="how many of them (default 10)")
    parser.add_argument("--fp32-only", action="store_true",
                        help="no FP16 graphs, for a network whose values FP16 cannot hold")
    parser.add_argument("--accuracy", type=Path, metavar="JSON",
                        help="measured accuracy, kept in the manifest")
    parser.add_argument("--force", action="store_true",
                        help="replace an existing bundle, and write one that drifts")


def run(args: argparse.Namespace) -> int:
    """Export, verify, write; the report goes to stdout as JSON."""
    import dataclasses

    from trtseg.export.bundle import export_bundle, provenance
    from trtseg.nn.checkpoint import load_network, read_checkpoint
    from trtseg.nn.network import LatentDiversity
    from trtseg.parse import read_json

    if args.bundle.exists() and not args.force:
        raise FileExistsError(f"{args.bundle}: exists already; pass --force to replace it")
    changes: dict[str, Any] = {}
    if args.long_side:
        changes["working_long_side_px"] = args.long_side
    if args.score_calibration:
        changes["score_calibration"] = args.score_calibration
    trained = load_network(args.checkpoint)
    network = LatentDiversity(dataclasses.replace(trained.config, **changes)).eval()
    network.load_state_dict(trained.state_dict())
    report = export_bundle(
        network,
        args.bundle,
        name=args.name or args.bundle.stem,
        training=provenance(read_checkpoint(args.checkpoint)[1], args.checkpoint),
        accuracy=read_json(args.accuracy) if args.accuracy else None,
        data=args.data,
        objects=args.objects,
        fp16=not args.fp32_only,
        force=args.force,
        overwrite=args.force,
        progress=lambda message: print(f"{message} ...", file=sys.stderr),
    )
    print(json.dumps({"bundle": str(args.bundle), **report}, indent=1))
    return 0
