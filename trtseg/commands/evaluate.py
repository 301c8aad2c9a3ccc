"""`trtseg evaluate`: count the clicks a method needs on a data set."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtseg.commands.options.arguments import integer, threads

if TYPE_CHECKING:
    from trtseg.evaluate.records import RunDirectory

_EPILOG = """\
data sets: PATH[:LAYOUT[:SUBSET]] with the layouts LAYOUTS; without one it is detected, where a
folder's names tell.

output: run.json, objects/ (one file per object), results.json, objects.csv, curves as PNG and SVG,
and report.html with the worst and the median cases. In objects.csv, clicks@q is the limit where q
is never reached; reached@q tells whether it was. After an interruption, the same command with
--resume continues.

several machines: --cluster dask:tcp://HOST:8786 (or ray:ADDRESS) works on all workers of a cluster
that reach data and models under the same paths."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments on `parser`."""
    from trtseg.evaluate.clicks import PROTOCOLS
    from trtseg.evaluate.configuration import ADAPTATIONS
    from trtseg.evaluate.datasets import LAYOUTS
    from trtseg.evaluate.datasets.shifts import SHIFTS
    from trtseg.evaluate.methods import BASELINES

    parser.epilog = _EPILOG.replace("LAYOUTS", ", ".join(LAYOUTS), 1)
    parser.add_argument("--model", default="lite", metavar="NAME",
                        help="a model, the path of a bundle, a checkpoint of `trtseg "
                        f"train-corrections`, or a baseline: {', '.join(BASELINES)} (lite)")
    parser.add_argument("--data", nargs="+", default=[], metavar="PATH[:LAYOUT[:SUBSET]]")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR",
                        help="where results go")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="standard")
    parser.add_argument("--clicks", type=int, default=20, metavar="N", help="at most (20)")
    parser.add_argument("--target", type=_targets, default=(0.85, 0.90), metavar="Q,Q",
                        help="different IoUs: fractions in (0, 1], or percents in [50, 100] "
                        "(0.85,0.90)")
    parser.add_argument("--seed", type=int, default=0, help="of protocols that draw (0)")
    parser.add_argument("--min-area", type=float, default=0.0, metavar="F",
                        help="leave out smaller objects (0)")
    parser.add_argument("--limit", type=int, metavar="N",
                        help="N objects, evenly spread over each set")
    parser.add_argument("--shift", choices=tuple(SHIFTS),
                        help="show the images as another modality might")
    parser.add_argument("--stop-at-target", action="store_true",
                        help="end an object at the highest target: faster, same NoC, but no IoU@k")
    parser.add_argument("--adapt", choices=ADAPTATIONS, default="none",
                        help="learn from the corrections (needs torch)")
    parser.add_argument("--learning", type=Path, metavar="JSON",
                        help="how (default: as was chosen for the model)")
    parser.add_argument("--long-side", type=integer(1), metavar="PX",
                        help="longer side of the working image (default: the model's own)")
    parser.add_argument("--no-focus", action="store_true", help="no closer look at small objects")
    parser.add_argument("--refine", action="store_true",
                        help="a graph cut refines the model's masks")
    add_work_options(parser)
    parser.add_argument("--resume", action="store_true", help="continue what --output holds")
    parser.add_argument("--force", action="store_true", help="replace what --output holds")
    parser.add_argument("--no-report", action="store_true", help="no curves, no report.html")


def add_work_options(parser: argparse.ArgumentParser) -> None:
    """Declare who does the work: --workers, --cluster, --threads, and --quiet."""
    parser.add_argument("--workers", type=integer(1), default=1, metavar="N", help="processes (1)")
    parser.add_argument("--cluster", metavar="dask|ray[:ADDRESS]",
                        help="work on a cluster instead, through joblib")
    parser.add_argument("--threads", type=threads, metavar="N", help="per worker's model")
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


def run(args: argparse.Namespace) -> int:
    """Measure, write the results, print the table; 130 and 143 tell an interruption."""
    try:
        with _termination_raised():
            return _run(args)
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
    from trtseg.commands.options.method import load_method
    from trtseg.evaluate.configuration import DataSpec, EvaluationConfig
    from trtseg.evaluate.curves import require_matplotlib
    from trtseg.evaluate.records import RunDirectory
    from trtseg.evaluate.report import write_report
    from trtseg.evaluate.runner import check_workers, evaluate, make_header
    from trtseg.evaluate.summary import table
    from trtseg.parse import read_derived

    directory = RunDirectory(args.output)
    if args.output.exists() and any(args.output.iterdir()):
        _check_room(directory, args.resume, args.force)
    if not args.no_report:
        require_matplotlib()
    config = EvaluationConfig(
        model=args.model,
        data=tuple(replace(DataSpec.parse(text), shift=args.shift) for text in args.data),
        protocol=args.protocol,
        clicks=args.clicks,
        targets=args.target,
        seed=args.seed,
        min_area=args.min_area,
        limit=args.limit,
        stop_at_target=args.stop_at_target,
        adapt=args.adapt,
        learning=None if args.learning is None else read_derived(args.learning),
        long_side_px=args.long_side,
        focus=not args.no_focus,
        refine=args.refine,
    )
    check_workers(config, args.workers, args.cluster)
    for spec in config.data:
        if args.force and Path(spec.path).resolve().is_relative_to(args.output.resolve()):
            raise ValueError(f"{args.output}: cannot be replaced, for it holds {spec.path}")
    datasets = config.open_data()
    method = load_method(config, args.threads)
    # whatever can be found wrong has been by now: only here does an old run go
    directory.start(make_header(config, method, datasets), replace=args.force)
    evaluate(
        config,
        directory,
        load=load_method,
        method=method,
        workers=args.workers,
        cluster=args.cluster,
        threads=args.threads,
        progress=not args.quiet,
    )
    print(table(write_report(directory, with_pictures=not args.no_report)))
    return 0


def _check_room(directory: RunDirectory, resume: bool, force: bool) -> None:
    if not directory.header_path.exists():
        raise ValueError(
            f"{directory.path}: not empty, and holds no evaluation: "
            "--resume does not write into it, --force does not delete it"
        )
    if not (force or resume):
        raise ValueError(f"{directory.path}: not empty; --resume continues, --force replaces it")
