"""`python -m trtseg.evaluate.studies configs|run|render`: the tables of the papers, and a page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from trtseg.errors import DatasetError, TrtsegError
from trtseg.evaluate.records import read_json, write_json
from trtseg.evaluate.results_page import render_page
from trtseg.evaluate.study import Paths, chosen, read_study, run_study
from trtseg.evaluate.study_models import make_models, training_configs

_ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 is success, 2 bad input, 130 an interruption (run it again to go on)."""
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        return args.action(args)
    except (TrtsegError, ValueError, OSError) as error:
        print(f"trtseg.evaluate.studies: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("trtseg.evaluate.studies: interrupted; run it again to go on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trtseg.evaluate.studies",
        description="Run the studies (what exists is kept) and render their page.",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    configs = actions.add_parser("configs", help="write the training configurations of a study")
    configs.set_defaults(action=_configs)
    configs.add_argument("names", nargs="+", metavar="STUDY")
    configs.add_argument("--output", type=Path, required=True, metavar="DIR")
    run = actions.add_parser("run", help="fill what is missing, write results, render the page")
    run.set_defaults(action=_run)
    run.add_argument("names", nargs="*", metavar="STUDY", help="by name; all when none is given")
    run.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    run.add_argument("--work", type=Path, required=True, help="run directories; kept to go on")
    run.add_argument(
        "--models", type=Path, help="bundles that are not in the package (WORK/models)"
    )
    run.add_argument(
        "--only", nargs="+", default=[], metavar="LABEL", help="these methods and data sets alone"
    )
    run.add_argument("--workers", type=int, default=1)
    run.add_argument("--threads", type=int)
    run.add_argument("--quiet", action="store_true", help="no progress bar")
    render = actions.add_parser("render", help="write the page from the results")
    render.set_defaults(action=_render)
    for own in (configs, run):
        own.add_argument(
            "--train-data",
            type=Path,
            metavar="DIR",
            help="images to train on; with them, `run` makes the models that are not there",
        )
    for own in (configs, run, render):
        own.add_argument("--studies", type=Path, default=_ROOT / "studies", metavar="DIR")
    for own in (run, render):
        own.add_argument("--results", type=Path, default=_ROOT / "docs" / "results", metavar="DIR")
        own.add_argument("--page", type=Path, default=_ROOT / "docs" / "results.md", metavar="FILE")
    return parser


def _configs(args: argparse.Namespace) -> int:
    files = _named(args)
    for name in args.names:
        args.output.mkdir(parents=True, exist_ok=True)
        study = read_study(files[name])
        configs = training_configs(study, files[name].parent, args.train_data)
        for model, config in configs.items():
            write_json(args.output / f"{model}.json", config)
            print(args.output / f"{model}.json")
    return 0


def _named(args: argparse.Namespace) -> dict[str, Path]:
    files = study_files(args.studies)
    unknown = sorted(set(args.names) - files.keys())
    if unknown:
        raise ValueError(f"{unknown[0]}: no such study; there are {', '.join(files)}")
    return files


def _run(args: argparse.Namespace) -> int:
    files = _named(args)
    paths = Paths(args.data, args.models or args.work / "models", args.work)
    for name in args.names or files:
        print(name, file=sys.stderr)
        study = read_study(files[name])
        if args.train_data:
            make_models(
                study,
                files[name].parent,
                paths,
                data=args.train_data,
                only=sorted(chosen(study, args.only)[0]),
                threads=args.threads,
            )
        results = run_study(
            study,
            paths,
            only=args.only,
            workers=args.workers,
            threads=args.threads,
            progress=not args.quiet,
        )
        args.results.mkdir(parents=True, exist_ok=True)
        write_json(args.results / f"{name}.json", results)
    return _render(args)


def _render(args: argparse.Namespace) -> int:
    files = study_files(args.studies)
    found = [args.results / f"{name}.json" for name in files]
    found = [path for path in found if path.exists()]
    if not found:
        raise DatasetError(f"{args.results}: no results; run the studies first")
    published = read_json(args.studies / "published.json")
    written = render_page([read_json(path) for path in found], published, args.page)
    print("\n".join(str(path) for path in written))
    return 0


def study_files(folder: Path) -> dict[str, Path]:
    """The studies of a folder by name, in order.

    Raises:
        DatasetError: there is none.
    """
    files = {path.stem: path for path in sorted(folder.glob("*.json"))}
    files.pop("published", None)
    if not files:
        raise DatasetError(f"{folder}: no studies")
    return files


if __name__ == "__main__":  # workers import this module again
    sys.exit(main())
