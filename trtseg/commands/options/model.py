"""The options of every command that loads a model."""

from __future__ import annotations

import argparse
import sys
from time import perf_counter

from trtseg.commands.build_progress import build_progress
from trtseg.commands.options.arguments import threads
from trtseg.runtime.segmenter import BACKENDS, Segmenter


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Declare --model, --backend, --device and --threads."""
    group = add_engine_options(parser)
    group.add_argument("--model", default="lite", help="a name or a bundle's path (default: lite)")


def add_engine_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Declare --backend, --device and --threads, for a command that is told its models elsewhere;
    returns the group."""
    group = parser.add_argument_group("model")
    group.add_argument("--backend", default="auto", choices=("auto", *BACKENDS))
    group.add_argument("--device", help="as the backend names it, for example cpu or cuda:0")
    group.add_argument("--threads", type=threads, help="of the CPU (default: one per core)")
    return group


def load_segmenter(args: argparse.Namespace) -> Segmenter:
    """The model that the options name; tells stderr what it loads and how long it took."""
    start = perf_counter()
    with build_progress(args.model) as progress:
        segmenter = Segmenter.load(
            args.model,
            backend=args.backend,
            device=args.device,
            threads=args.threads,
            progress=progress,
        )
    took = perf_counter() - start
    print(f"{segmenter.bundle.name} on {segmenter.engines.description}: loaded in {took:.2f} s",
          file=sys.stderr)  # fmt: skip
    return segmenter
