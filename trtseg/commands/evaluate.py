"""The command `trtseg evaluate`, also `python -m trtseg.evaluate`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trtseg.commands.arguments import Parser, threads
from trtseg.errors import TrtsegError
from trtseg.evaluate.clicks import PROTOCOLS
from trtseg.evaluate.configuration import ADAPTATIONS, DataSpec, EvaluationConfig
from trtseg.evaluate.curves import (
    error_figure,
    iou_figure,
    render,
    require_matplotlib,
    sequence_figure,
)
from trtseg.evaluate.methods import BASELINES, load_method
from trtseg.evaluate.records import RunDirectory, merge, write_file, write_json
from trtseg.evaluate.report import html_report
from trtseg.evaluate.runner import check_split, evaluate, make_header
from trtseg.evaluate.summary import objects_csv, summarise, table

_EPILOG = """\
data sets: PATH[:LAYOUT[:SUBSET]] with the layouts folder, grabcut, berkeley, davis, sbd, voc and
coco; without a layout it is detected.

output: run.json, objects/ (one file per object), results.json, objects.csv, curves as PNG and SVG,
and report.html with the worst and the median cases. In objects.csv, clicks@q is the limit where q
is never reached; reached@q tells whether it was. After an interruption, the same command with
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
        "--target",
        type=_targets,
        default=(0.85, 0.90),
        metavar="Q,Q",
        help="different IoUs: fractions in (0, 1], or percents in [50, 100] (0.85,0.90)",
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
    if all(0 < value <= 1 for value in values):
        return values
    if all(50 <= value <= 100 for value in values):
        return tuple(value / 100 for value in values)
    raise argparse.ArgumentTypeError(
        f"expected fractions in (0, 1] or percents in [50, 100], not both, got {text}"
    )


def _shard(text: str) -> tuple[int, int]:
    try:
        index, count = (int(part) for part in text.split("/"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected I/N, got {text}") from None
    if not 1 <= index <= count:
        raise argparse.ArgumentTypeError(f"expected I/N with 1 <= I <= N, got {text}")
    return index - 1, count


def run(args: argparse.Namespace) -> int:
    """Run the command; 0 is success, 2 bad input, 130 an interruption, 143 a termination."""
    try:
        with _termination_raised():
            return _run(args)
    except OSError as error:
        named = error.strerror and error.filename is not None
        told = f"{os.fsdecode(error.filename)}: {error.strerror}" if named else str(error)
        print(f"trtseg evaluate: {told}", file=sys.stderr)
        return 2
    except (TrtsegError, ValueError) as error:
        print(f"trtseg evaluate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        terminated = isinstance(interruption, _Terminated)
        print(
            f"trtseg evaluate: {'terminated' if terminated else 'interrupted'}; "
            "the same command with --resume continues",
            file=sys.stderr,
        )
        return 128 + (signal.SIGTERM if terminated else signal.SIGINT)


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@contextmanager
def _termination_raised() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that workers end and the progress bar closes."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return

    def stop(number: int, frame: Any) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(args: argparse.Namespace) -> int:
    if args.output is None:
        raise ValueError("--output: expected a directory for the results")
    directory = RunDirectory(args.output)
    if args.output.exists() and any(args.output.iterdir()):
        _check_room(directory, args.resume, args.force)
    if not args.no_report:
        require_matplotlib()
    if args.merge:
        merge(args.merge, args.output, replace=args.force)
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
    check_split(config, args.workers, args.shard)
    for spec in config.data:
        if args.force and Path(spec.path).resolve().is_relative_to(args.output.resolve()):
            raise ValueError(f"{args.output}: cannot be replaced, for it holds {spec.path}")
    datasets = config.open_data()
    method = load_method(
        config.model,
        threads=args.threads,
        adapt=config.adapt,
        focus=config.focus,
        refine=config.refine,
    )
    # whatever can be found wrong has been by now: only here does an old run go
    directory.start(make_header(config, method, datasets), replace=args.force)
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


def _check_room(directory: RunDirectory, resume: bool, force: bool) -> None:
    if not directory.header_path.exists():
        raise ValueError(
            f"{directory.path}: not empty, and holds no evaluation: "
            "--resume does not write into it, --force does not delete it"
        )
    if not (force or resume):
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
