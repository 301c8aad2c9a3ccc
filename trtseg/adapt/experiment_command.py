"""`trtseg adapt-experiment EXPERIMENT.json`: clicks with and without adaptation, reproducibly."""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path
from typing import Any

from trtseg.atomic import file_sha256
from trtseg.commands.arguments import integer, threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments on `parser`."""
    parser.add_argument("experiment", type=Path, help="what to run, JSON")
    parser.add_argument("--model", default="lite", help="name or path of the bundle")
    parser.add_argument("--early-fusion", type=Path, metavar="CHECKPOINT",
                        help="run this checkpoint of `trtseg train-corrections` instead")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR",
                        help="where the data sets lie")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR",
                        help="records, for going on after an interruption")
    parser.add_argument("--report", type=Path, metavar="DIR",
                        help="where table and plots go (default: the output folder)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these sequences only")
    parser.add_argument("--objects", type=integer(0), default=0,
                        help="at most so many of each sequence, for a quick look")
    parser.add_argument("--threads", type=threads, help="CPU threads")
    parser.add_argument("--report-only", action="store_true", help="run nothing")


def run(args: argparse.Namespace) -> int:
    """Run what is missing, write the report, print where it is."""
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    from trtseg.adapt.experiment import Records
    from trtseg.adapt.experiment_report import markdown, summarise, write_report

    experiment = read_experiment(args.experiment, args.only, args.objects)
    model, make = open_model(args, experiment)
    mark_model(args.output, model)
    records = Records(args.output / "records.jsonl")
    if not args.report_only:
        run_all(experiment, args.data, records, make)
    notes = {"model": model, "experiment": args.experiment.name, "machine": machine()}
    paths = write_report(experiment, records, args.report or args.output, notes)
    print(markdown(experiment, summarise(experiment, records)))
    for path in paths:
        print(path, file=sys.stderr)
    return 0


def read_experiment(path: Path, only: list[str] | None, objects: int) -> Any:
    """An `Experiment` from JSON, perhaps reduced.

    Raises:
        ValueError: not JSON, or a value is not allowed; the message says where.
    """
    from dataclasses import replace

    from trtseg.adapt.experiment import Experiment
    from trtseg.parse import build, read_json

    experiment = build(Experiment, read_json(path), "experiment")
    known = [source.name for source in experiment.sources]
    for series in experiment.series:
        for name in series.sources:
            if name not in known:
                raise ValueError(
                    f"{series.label}: expected sources of {', '.join(known)}, got {name!r}"
                )
    for name in only or ():
        if name not in known:
            raise ValueError(f"--only: expected of {', '.join(known)}, got {name!r}")
    sources = [source for source in experiment.sources if not only or source.name in only]
    if objects:
        sources = [
            replace(source, objects=min(objects, source.objects or objects)) for source in sources
        ]
    return replace(experiment, sources=tuple(sources))


def open_model(args: argparse.Namespace, experiment: Any) -> tuple[str, Any]:
    """(identity of the model, how to make its sequences)."""
    from trtseg.adapt.importance import checkpoint_importance_path, importance_path
    from trtseg.adapt.subjects import at_working_size, bundle_subject, early_fusion_subject
    from trtseg.nn.checkpoint import read_checkpoint
    from trtseg.runtime.segmenter import Segmenter

    if args.early_fusion is not None:
        _, state = read_checkpoint(args.early_fusion)
        own = state["network"].get("working_long_side_px")
        if experiment.long_side_px not in (0, own):
            raise ValueError(
                f"long_side_px: expected 0 or {own}, the working size of {args.early_fusion}, "
                f"got {experiment.long_side_px}"
            )
        identity = _identity(
            state["tensors_sha256"], checkpoint_importance_path(args.early_fusion)
        )
        return identity, early_fusion_subject(args.early_fusion)
    segmenter = Segmenter.load(args.model, threads=args.threads)
    segmenter = at_working_size(segmenter, experiment.long_side_px)
    identity = _identity(segmenter.bundle.fingerprint, importance_path(segmenter.bundle))
    return identity, bundle_subject(segmenter, focus=experiment.focus)


def _identity(model: str, importance: Path) -> str:
    """Of a model with the importance beside it, on which adaptation depends as well."""
    if not importance.is_file():
        return model
    return f"{model} {file_sha256(importance)}"


def mark_model(output: Path, model: str) -> None:
    """Tie an output folder to a model: records of two models never mix.

    Raises:
        ValueError: the folder holds records of another one.
    """
    mark = output / "model.txt"
    if mark.exists() and mark.read_text().strip() != model:
        raise ValueError(
            f"{output}: holds records of another model or importance; choose another --output"
        )
    output.mkdir(parents=True, exist_ok=True)
    mark.write_text(model + "\n")


def run_all(experiment: Any, data: Path, records: Any, make: Any) -> None:
    """Run every job of an experiment that is not yet recorded, with progress."""
    from tqdm import tqdm

    from trtseg.adapt.experiment import job_key, jobs, run_job, samples_of

    samples = {source: samples_of(source, data) for source in experiment.sources}
    todo = list(jobs(experiment))
    total = sum(len(samples[source]) for source, _, _ in todo)
    done = sum(
        min(len(records.of(job_key(experiment, *job))), len(samples[job[0]])) for job in todo
    )
    with tqdm(total=total, initial=done, unit="object", file=sys.stderr) as bar:
        for source, mode, series in todo:
            bar.set_description(f"{source.name} {mode} {series.label}")
            run_job(
                experiment, source, mode, series,
                samples=samples[source], records=records, make=make,
                progress=lambda: bar.update() and None,
            )  # fmt: skip


def machine() -> dict[str, Any]:
    """What the times were measured on."""
    import os

    import torch

    return {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
            "threads": torch.get_num_threads(), "torch": torch.__version__.split("+")[0]}
