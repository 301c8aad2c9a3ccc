"""The command `trtseg evaluate`, also `python -m trtseg.evaluate`."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from trtseg.commands.arguments import Parser, threads
from trtseg.errors import TrtsegError
from trtseg.evaluate.clicks import PROTOCOLS
from trtseg.evaluate.configuration import ADAPTATIONS, DataSpec, EvaluationConfig
from trtseg.evaluate.curves import error_figure, iou_figure, render, sequence_figure
from trtseg.evaluate.methods import BASELINES, load_method
from trtseg.evaluate.records import RunDirectory, merge, write_file, write_json
from trtseg.evaluate.report import html_report
from trtseg.evaluate.runner import evaluate, make_header
from trtseg.evaluate.summary import objects_csv, summarise, table

_EPILOG = """\
data sets: PATH[:LAYOUT[:SUBSET]] with the layouts folder, grabcut, berkeley, davis, sbd, voc and
coco; without a layout it is detected.

output: run.json, objects/ (one file per object), results.json, objects.csv, curves as PNG and SVG,
and report.html with the worst and the median cases. After an interruption, the same command with
--resume continues.

several machines: run each with its own --shard 1/3, 2/3, 3/3 and --output, bring the folders
together, and --merge them.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to a parser (or subparser)."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument(
        "--model",
        default="lite",
        metavar="NAME",
        help=f"a model, the path of a bundle, or a baseline: {', '.join(BASELINES)} (lite)",
    )
    parser.add_argument("--data", nargs="+", default=[], metavar="PATH[:LAYOUT[:SUBSET]]")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where results go")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="standard")
    parser.add_argument("--clicks", type=int, default=20, metavar="N", help="at most (20)")
    parser.add_argument(
        "--target", type=_targets, default=(0.85, 0.90), metavar="Q,Q", help="IoUs (0.85,0.90)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of protocols that draw (0)")
    parser.add_argument(
        "--min-area", type=float, default=0.0, metavar="F", help="leave out smaller objects (0)"
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="N objects, evenly spread over each set"
    )
    parser.add_argument(
        "--stop-at-target",
        action="store_true",
        help="end an object at the highest target: faster, same NoC, but no IoU@k",
    )
    parser.add_argument("--adapt", choices=ADAPTATIONS, default="none")
    parser.add_argument("--no-focus", action="store_true", help="no closer look at small objects")
    parser.add_argument(
        "--refine", action="store_true", help="a graph cut refines the model's masks"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (1)")
    parser.add_argument("--threads", type=threads, metavar="N", help="per worker's model")
    parser.add_argument("--shard", type=_shard, default=(0, 1), metavar="I/N")
    parser.add_argument(
        "--merge", nargs="+", type=Path, metavar="DIR", help="bring shards together"
    )
    parser.add_argument("--resume", action="store_true", help="continue what --output holds")
    parser.add_argument("--force", action="store_true", help="replace what --output holds")
    parser.add_argument("--no-report", action="store_true", help="no curves, no report.html")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _targets(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers like 0.85,0.90, got {text}") from None
    return tuple(value / 100 if value > 1 else value for value in values)


def _shard(text: str) -> tuple[int, int]:
    try:
        index, count = (int(part) for part in text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected I/N, got {text}") from None
    if not 1 <= index <= count:
        raise argparse.ArgumentTypeError(f"expected I/N with 1 <= I <= N, got {text}")
    return index - 1, count


def run(args: argparse.Namespace) -> int:
    """Run the command; 0 is success, 2 bad input, 130 an interruption."""
    try:
        return _run(args)
    except (TrtsegError, ValueError, OSError) as error:
        print(f"trtseg evaluate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "trtseg evaluate: interrupted; the same command with --resume continues",
            file=sys.stderr,
        )
        return 130


def _run(args: argparse.Namespace) -> int:
    if args.output is None:
        raise ValueError("--output: expected a directory for the results")
    directory = RunDirectory(args.output)
    if args.output.exists() and any(args.output.iterdir()):
        _make_room(directory, args.resume, args.force)
    if args.merge:
        merge(args.merge, args.output)
        finish(directory, with_report=not args.no_report)
        return 0
    config = EvaluationConfig(
        model=args.model,
        data=tuple(DataSpec.parse(text) for text in args.data),
        protocol=args.protocol,
        clicks=args.clicks,
        targets=args.target,
        seed=args.seed,
        min_area=args.min_area,
        limit=args.limit,
        stop_at_target=args.stop_at_target,
        adapt=args.adapt,
        focus=not args.no_focus,
        refine=args.refine,
    )
    if args.workers < 1:
        raise ValueError(f"--workers: expected at least 1, got {args.workers}")
    datasets = config.open_data()
    method = load_method(
        config.model,
        threads=args.threads,
        adapt=config.adapt,
        focus=config.focus,
        refine=config.refine,
    )
    directory.start(make_header(config, method, datasets))
    evaluate(
        config,
        directory,
        method=method,
        workers=args.workers,
        threads=args.threads,
        shard=args.shard,
        progress=not args.quiet,
    )
    finish(directory, with_report=not args.no_report)
    return 0


def _make_room(directory: RunDirectory, resume: bool, force: bool) -> None:
    if not directory.header_path.exists():
        raise ValueError(
            f"{directory.path}: not empty, and holds no evaluation: "
            "--resume does not write into it, --force does not delete it"
        )
    if force:
        shutil.rmtree(directory.path)
    elif not resume:
        raise ValueError(f"{directory.path}: not empty; --resume continues, --force replaces it")


def finish(directory: RunDirectory, *, with_report: bool = True) -> None:
    """Write results.json, objects.csv, curves and the report, and print the table.

    Raises:
        BackendUnavailable: matplotlib is missing and a report was asked for.
    """
    summary = summarise(directory)
    write_json(directory.path / "results.json", summary)
    write_file(directory.path / "objects.csv", objects_csv(directory).encode())
    print(table(summary))
    results = summary["results"]
    if not with_report or not results:
        return
    highest = max(summary["config"]["targets"])
    figures = {
        "iou": iou_figure(results),
        "jaccard_error": error_figure(results),
        "noc_over_sequence": sequence_figure(results, highest),
    }
    for name, figure in figures.items():
        for kind in ("png", "svg"):
            write_file(directory.path / f"{name}.{kind}", render(figure, kind))
    write_file(directory.path / "report.html", html_report(directory, summary).encode())


def main(arguments: list[str] | None = None) -> int:
    """`python -m trtseg.evaluate`."""
    parser = Parser(
        prog="trtseg evaluate", description="Measure a method with simulated clicks."
    )
    add_arguments(parser)
    return run(parser.parse_args(arguments))
