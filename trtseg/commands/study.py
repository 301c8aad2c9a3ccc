"""`trtseg study run|list|render|configs`: the tables of the papers, and their page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from trtseg.commands.evaluate import add_work_options

if TYPE_CHECKING:
    from trtseg.evaluate.studies.study import Study

EXAMPLES = """\
examples:
  trtseg study list
  trtseg study run 1_methods --data DATA/eval --work WORK
  trtseg study run 1_methods --only grabcut "Graph cut" --data DATA/eval --work WORK
  trtseg study run 2_ablations --data DATA/eval --train-data DATA/train --work WORK
  trtseg study render

What exists is kept: interrupt and repeat at will."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments on `parser`."""
    parser.epilog = EXAMPLES
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    run = actions.add_parser("run", help="fill what is missing, write results, render the page")
    run.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    run.add_argument("--work", type=Path, required=True, help="run directories; kept to go on")
    run.add_argument("--models", type=Path,
                     help="bundles that are not in the package (WORK/models)")
    run.add_argument("--only", nargs="+", default=[], metavar="LABEL",
                     help="these methods and data sets alone")
    add_work_options(run)
    listed = actions.add_parser("list", help="the studies by name")
    render = actions.add_parser("render", help="write the page from the results")
    configs = actions.add_parser("configs", help="write the training configurations of a study")
    configs.add_argument("--output", type=Path, required=True, metavar="DIR")
    for own in (run, configs):
        own.add_argument("names", nargs="+", metavar="STUDY")
        own.add_argument("--train-data", type=Path, metavar="DIR",
                         help="images to train on; with them, `run` makes the models that are "
                         "not there")
    for own in (run, render, listed, configs):
        own.add_argument("--studies", type=Path, default=Path("studies"), metavar="DIR")
    for own in (run, render):
        own.add_argument("--results", type=Path, default=Path("docs", "results"), metavar="DIR")
        own.add_argument("--page", type=Path, default=Path("docs", "results.md"), metavar="FILE")


def run(args: argparse.Namespace) -> int:
    """Do what the action says."""
    files = _files(args.studies)
    return {"run": _run, "list": _list, "render": _render, "configs": _configs}[args.action](
        args, files
    )


def _files(folder: Path) -> dict[str, Path]:
    """The studies of a folder by name, in order.

    Raises:
        DatasetError: there is none.
    """
    from trtseg.errors import DatasetError

    files = {path.stem: path for path in sorted(folder.glob("*.json"))}
    for other in ("published", "data"):  # what the studies quote
        files.pop(other, None)
    if not files:
        raise DatasetError(
            f"{folder}: no studies; run this in a checkout of trtseg, where they are, or name "
            "their folder by --studies"
        )
    return files


def _read(name: str, files: dict[str, Path]) -> Study:
    from trtseg.evaluate.studies.study import read_study

    if name not in files:
        raise ValueError(f"{name}: no such study; there are {', '.join(files)}")
    return read_study(files[name])


def _run(args: argparse.Namespace, files: dict[str, Path]) -> int:
    from trtseg.commands.options.method import load_method
    from trtseg.evaluate.records import write_json
    from trtseg.evaluate.studies.models import make_models
    from trtseg.evaluate.studies.study import Paths, chosen, run_study

    models = args.models or args.work / "models"
    paths = Paths(args.data, models, args.work, Path("models"))
    studies = [_read(name, files) for name in args.names]
    for study in studies:
        print(study.name, file=sys.stderr)
        if args.train_data:
            make_models(
                study,
                args.studies,
                paths,
                data=args.train_data,
                only=sorted(chosen(study, args.only)[0]),
                threads=args.threads,
            )
        results = run_study(
            study,
            paths,
            only=args.only,
            load=load_method,
            workers=args.workers,
            cluster=args.cluster,
            threads=args.threads,
            progress=not args.quiet,
        )
        args.results.mkdir(parents=True, exist_ok=True)
        write_json(args.results / f"{study.name}.json", results)
    return _render(args, files)


def _list(args: argparse.Namespace, files: dict[str, Path]) -> int:
    for name in files:
        study = _read(name, files)
        print(f"{name}\t{len(study.methods)} x {len(study.data)}\t{study.title}")
    return 0


def _render(args: argparse.Namespace, files: dict[str, Path]) -> int:
    from trtseg.errors import DatasetError
    from trtseg.evaluate.records import read_json
    from trtseg.evaluate.studies.page import render_page

    found = [path for name in files if (path := args.results / f"{name}.json").exists()]
    if not found:
        raise DatasetError(f"{args.results}: no results; run the studies first")
    published = read_json(args.studies / "published.json")
    written = render_page([read_json(path) for path in found], published, args.page)
    print("\n".join(str(path) for path in written))
    return 0


def _configs(args: argparse.Namespace, files: dict[str, Path]) -> int:
    from trtseg.evaluate.records import write_json
    from trtseg.evaluate.studies.models import training_configs

    args.output.mkdir(parents=True, exist_ok=True)
    for name in args.names:
        configs = training_configs(_read(name, files), args.studies, args.train_data)
        for model, config in configs.items():
            write_json(args.output / f"{model}.json", config)
            print(args.output / f"{model}.json")
    return 0
