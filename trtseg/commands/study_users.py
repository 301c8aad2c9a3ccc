"""`trtseg study-users`: people click until a mask is reached, under methods they are not told."""

from __future__ import annotations

import argparse
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtseg.commands.options.arguments import integer
from trtseg.commands.options.model import add_engine_options, load_segmenter
from trtseg.commands.options.server import add_server_options, limits

if TYPE_CHECKING:
    from trtseg.serve.workspace import Workspace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments on `parser`."""
    parser.epilog = "studies/users/shipped.json shows what a configuration may say."
    parser.add_argument("config", type=Path, metavar="CONFIG", help="photos, masks and methods")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER",
                        help="logs and report; a study that was interrupted goes on here")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--simulate", type=integer(1, 10_000), metavar="N",
                      help="let N programs take part in place of people, then write the report")
    what.add_argument("--report", action="store_true", help="write the report of what there is")
    parser.add_argument("--no-browser", action="store_true", help="print the address alone")
    add_server_options(parser)
    add_engine_options(parser)
    parser.set_defaults(model="lite")  # of the page itself; the methods name theirs


def run(args: argparse.Namespace) -> int:
    """Serve the study's page, or simulate it, or report; the written path or address on stdout."""
    from trtseg.serve.users import report
    from trtseg.serve.users.study import UserStudy, read_config

    config = read_config(args.config)
    logs = args.output / "participants"
    if not args.report:
        study = UserStudy(config, args.config.parent, logs, lambda name: _method(name, args))
    if args.simulate is not None:
        from trtseg.serve.users.simulate import simulate

        for number in range(1, args.simulate + 1):
            simulate(study, number)
            print(f"participant {number} of {args.simulate}", file=sys.stderr)
    elif not args.report:
        _serve(args, study)
        return 0
    report.write(config, logs, args.output)
    print(args.output / "report.md")
    return 0


def _serve(args: argparse.Namespace, study: Any) -> None:
    from trtseg.serve.http.server import bind, serve
    from trtseg.serve.users.routes import routes

    def ready(workspace: Workspace, url: str) -> None:
        url = url.replace("/?", "/page/study.html?")
        print(url, flush=True)
        if not args.no_browser and not webbrowser.open(url):
            print("no browser could be opened; open the address above", file=sys.stderr)

    state = args.state if args.state is not None else args.output / "work"
    with bind("127.0.0.1", args.port) as listener:
        serve(load_segmenter(args), listener, state=state, limits=limits(args),
              more=lambda workspace: routes(study), ready=ready)  # fmt: skip


def _method(name: str, args: argparse.Namespace) -> Any:
    from trtseg.evaluate.methods import BASELINES, ModelMethod, RefinedMethod
    from trtseg.runtime.segmenter import Segmenter

    if name in BASELINES:
        return BASELINES[name]()
    model = name.removesuffix("+graph-cut")
    method = ModelMethod(
        Segmenter.load(model, threads=args.threads, backend=args.backend, device=args.device)
    )
    return method if model == name else RefinedMethod(method)
