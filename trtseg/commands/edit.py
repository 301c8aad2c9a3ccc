"""`trtseg edit`: photos in the browser."""

from __future__ import annotations

import argparse
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from trtseg.atomic import read_file
from trtseg.commands.options.model import add_model_options, load_segmenter
from trtseg.commands.options.server import add_server_options, limits, state_folder

if TYPE_CHECKING:
    from trtseg.serve.workspace import Workspace

SHIPPED = Path(__file__).parents[1] / "data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments on `parser`."""
    parser.epilog = "The work is kept: the same photo opened again shows its objects. End it by ^C."
    parser.add_argument("photos", nargs="*", type=Path, metavar="PHOTO",
                        help="to open; by default the photos that ship with trtseg")  # fmt: skip
    parser.add_argument("--no-browser", action="store_true", help="print the address alone")
    add_server_options(parser)
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Serve the photos on this machine alone and open the page; the address goes to stdout."""
    from trtseg.serve.http.server import bind, serve
    from trtseg.serve.refusals import Refusal

    photos = args.photos or [SHIPPED / name for name in ("coffee.jpg", "chelsea.jpg")]
    allowed = limits(args)
    files = [(path.name, read_file(path, allowed.upload_bytes)) for path in photos]

    def ready(workspace: Workspace, url: str) -> None:
        opened = []
        for name, content in files:
            try:
                opened.append(workspace.add_photo(content, name))
            except Refusal as error:
                raise ValueError(f"{name}: {error}") from None
        url += f"&photo={opened[0].id}"
        print(url, flush=True)
        if not args.no_browser and not webbrowser.open(url):
            print("no browser could be opened; open the address above", file=sys.stderr)

    with bind("127.0.0.1", args.port) as listener:
        serve(load_segmenter(args), listener, state=state_folder(args), limits=allowed,
              ready=ready)  # fmt: skip
    return 0
