"""`trtseg pack CONFIG OUT`: one file of all images that a run trains on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from trtseg.commands.options.arguments import integer, threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments on `parser`."""
    parser.add_argument("config", type=Path, help="the run's configuration, JSON")
    parser.add_argument("output", type=Path, metavar="OUT",
                        help="file to write, ending in .safetensors; a source's path may name it")
    parser.add_argument("--limit-mib", type=integer(1), default=60, metavar="MIB",
                        help="reduce the images until the file is at most so large (default "
                        "%(default)s)")
    parser.add_argument("--threads", type=threads, default=1,
                        help="images that are encoded at once (default 1)")
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def run(args: argparse.Namespace) -> int:
    """Pack; what came out goes to stdout as JSON."""
    from trtseg.commands.output import check_targets
    from trtseg.train.config import read_config
    from trtseg.train.samples.images import LabelledImages
    from trtseg.train.samples.pack import write_pack
    from trtseg.train.samples.packed import SUFFIX

    check_targets([args.output], force=args.force, suffixes=(SUFFIX,))
    images = LabelledImages(read_config(args.config).data)
    print(json.dumps(write_pack(images, args.output, args.limit_mib, threads=args.threads)))
    return 0
