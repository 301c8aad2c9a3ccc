"""The options of every command that opens a server."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trtseg.commands.options.arguments import integer

if TYPE_CHECKING:
    from trtseg.serve.limits import Limits


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Declare --port, --state and the limits."""
    group = parser.add_argument_group("server")
    group.add_argument("--port", type=integer(0, 65535), default=0,
                       help="0, the default, takes a free one")  # fmt: skip
    group.add_argument("--state", type=Path, metavar="FOLDER",
                       help="where the work is kept (default: a folder of yours; TRTSEG_STATE "
                       "overrides it)")  # fmt: skip
    group.add_argument("--memory-mib", type=integer(64), metavar="MIB",
                       help="for photos and sessions; the least recently used leave it and come "
                       "back from the folder")  # fmt: skip
    group.add_argument("--upload-mib", type=integer(1), metavar="MIB", help="of one file at most")
    group.add_argument("--megapixels", type=integer(1), help="of one photo at most")


def limits(args: argparse.Namespace) -> Limits:
    """The limits that the options ask for."""
    from trtseg.serve.limits import Limits

    found = Limits()
    if args.memory_mib is not None:
        found = replace(found, memory_bytes=args.memory_mib * 2**20)
    if args.upload_mib is not None:
        found = replace(found, upload_bytes=args.upload_mib * 2**20)
    if args.megapixels is not None:
        found = replace(found, pixels=args.megapixels * 1_000_000)
    return found


def state_folder(args: argparse.Namespace) -> Path:
    """Where the work is kept."""
    from trtseg.serve.folder import default_folder

    return args.state if args.state is not None else default_folder()
