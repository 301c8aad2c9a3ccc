"""`trtseg adapt-demo FOLDER`: simulated clicks over a folder, with and without adaptation."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from trtseg.commands.arguments import integer, threads
from trtseg.commands.output import check_targets

PLOTS = (".png", ".svg", ".pdf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments on `parser`."""
    parser.add_argument("folder", type=Path,
                        help="`images/` and `masks/`, or another layout of `trtseg evaluate`")
    parser.add_argument("-o", "--output", type=Path, default=Path("trtseg-adapt-demo.png"),
                        metavar="PNG", help="the plot to write (default: %(default)s)")
    parser.add_argument("--model", default="lite", help="name or path of the bundle")
    parser.add_argument("--mode", choices=("image", "sequence", "both"), default="both")
    parser.add_argument("--target", type=float, default=0.85, help="IoU that ends an object")
    parser.add_argument("--clicks", type=integer(1), default=20,
                        help="the user gives up after as many")
    parser.add_argument("--objects", type=integer(0), default=0, help="at most so many")
    parser.add_argument("--shift", choices=("none", "inverted", "thermal"), default="none",
                        help="show the images as another modality might")
    parser.add_argument("--budget-ms", type=float, help="limit of the learning at each click")
    parser.add_argument("--threads", type=threads, help="CPU threads")
    parser.add_argument("--force", action="store_true", help="replace an existing plot")


def run(args: argparse.Namespace) -> int:
    """Replay the clicks; table to stdout, plot to a file."""
    import tempfile
    from dataclasses import replace

    import torch

    from trtseg.adapt.experiment import Experiment, Records, Series, Source
    from trtseg.adapt.experiment_command import run_all
    from trtseg.adapt.experiment_report import markdown, plot_sequences, summarise
    from trtseg.adapt.importance import chosen_config
    from trtseg.adapt.subjects import bundle_subject
    from trtseg.runtime.segmenter import Segmenter

    check_targets([args.output], force=args.force, suffixes=PLOTS)
    if not 0 < args.target <= 1:
        raise ValueError(f"--target: expected an IoU in (0, 1], got {args.target:g}")
    if args.threads:
        torch.set_num_threads(args.threads)
    segmenter = Segmenter.load(args.model, threads=args.threads)
    config = chosen_config(segmenter.bundle)
    if args.budget_ms is not None:
        config = replace(config, image=replace(config.image, budget_ms=args.budget_ms))
    source = Source(str(args.folder.resolve()), shift=args.shift, objects=args.objects)
    experiment = Experiment(
        (source,),
        (Series("", config, ("fixed", args.mode)),),
        target=args.target,
        clicks=args.clicks,
    )
    with tempfile.TemporaryDirectory() as folder:
        records = Records(Path(folder) / "records.jsonl")
        try:
            run_all(experiment, Path("/"), records, bundle_subject(segmenter))
            status = 0
        except KeyboardInterrupt:
            print("interrupted: showing what is there", file=sys.stderr)
            status = 130
        print(markdown(experiment, summarise(experiment, records)))
        plot_sequences(experiment, records, args.output)
    print(args.output, file=sys.stderr)
    return status
