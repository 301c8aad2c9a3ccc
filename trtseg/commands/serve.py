"""`trtseg serve`: the page, the API and the annotation tools' protocols."""

from __future__ import annotations

import argparse
import ipaddress
import sys
from typing import TYPE_CHECKING

from trtseg.commands.options.model import add_model_options, load_segmenter
from trtseg.commands.options.server import add_server_options, limits, state_folder

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from trtseg.serve.workspace import Workspace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments on `parser`."""
    parser.epilog = "docs/serving.md has the API, the limits, and how to connect annotation tools."
    parser.add_argument("--host", default="127.0.0.1",
                        help="the address to listen on (default: %(default)s, this machine "
                        "alone; who reaches it and has the token reads and changes all "
                        "photos)")  # fmt: skip
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME",
                        help="a name under which others reach this machine; may be repeated")
    parser.add_argument("--token", help="that requests must carry (default: a random one)")
    parser.add_argument("--label-studio", metavar="URL", default="",
                        help="the Label Studio whose images may be fetched")
    parser.add_argument("--label-studio-key", metavar="KEY", default="",
                        help="an access token of it")
    add_server_options(parser)
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; the page's address goes to stdout."""
    from trtseg.serve.http.server import bind, serve
    from trtseg.serve.tools import cvat, label_studio, x_anylabeling

    try:
        ipaddress.ip_address(args.host)
    except ValueError:
        raise ValueError(f"--host: expected an address, got {args.host!r}") from None
    if args.token is not None and len(args.token) < 16:
        raise ValueError("--token: expected at least 16 letters")

    def tools(workspace: Workspace) -> list[BaseRoute]:
        return [
            *label_studio.routes(workspace, args.label_studio, args.label_studio_key),
            *x_anylabeling.routes(workspace),
            *cvat.routes(workspace),
        ]

    def ready(workspace: Workspace, url: str) -> None:
        print(url, flush=True)
        print(f"the work is kept in {workspace.folder.path}", file=sys.stderr)

    with bind(args.host, args.port) as listener:
        serve(load_segmenter(args), listener, state=state_folder(args), limits=limits(args),
              token=args.token, names=args.allow_host, more=tools,
              ready=ready)  # fmt: skip
    return 0
