"""The networks that a study trains for itself: their configurations, and making them.

Training needs torch, which this layer never imports: it runs in processes of its own, by the same
commands that a person would type.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trtseg.errors import TrtsegError
from trtseg.evaluate.records import read_json, write_json
from trtseg.evaluate.studies.study import Paths, Study
from trtseg.parse import changed, read_derived

RunCommand = Callable[[list[str]], int]
_BUNDLE_PREFIX = "bundle:"


def training_configs(
    study: Study, folder: Path, data: Path | None = None
) -> dict[str, dict[str, Any]]:
    """Training configurations of the study's own models, by model; paths in them are absolute.

    Args:
        study: what to train for.
        folder: of the study's file.
        data: training images in place of those that the base configuration names.

    Raises:
        DatasetError: the base configuration is missing.
        ValueError: a method is to be trained, but the study has no base.
    """
    configs = {}
    for method in study.methods:
        if method.training is None or method.omitted:
            continue
        if not study.training or "base" not in study.training:
            raise ValueError(f"{study.name}: {method.label} has training, the study no base")
        base = (folder / study.training["base"]).resolve()
        config = read_derived(base)
        common = {key: value for key, value in study.training.items() if key != "base"}
        config = changed(config, {**common, **method.training})
        _make_absolute(config, base.parent, data)
        configs[method.model] = config
    return configs


def _make_absolute(config: dict[str, Any], folder: Path, data: Path | None) -> None:
    sources = config["data"] if isinstance(config["data"], list) else [config["data"]]
    for source in sources:
        source["path"] = str(data.resolve() if data else (folder / source["path"]).resolve())
    validation = config.get("validation", {})
    if "paths" in validation:
        validation["paths"] = [str((folder / path).resolve()) for path in validation["paths"]]
    weights = config.get("initial_weights")
    if weights and "://" not in weights and not weights.startswith(_BUNDLE_PREFIX):
        config["initial_weights"] = str((folder / weights).resolve())


def make_models(
    study: Study,
    folder: Path,
    paths: Paths,
    *,
    data: Path | None = None,
    only: Sequence[str] = (),
    threads: int | None = None,
    run: RunCommand | None = None,
) -> list[Path]:
    """Train and export the study's models that are not there; what was begun is continued.

    Args:
        study: what to train for.
        folder: of the study's file.
        paths: bundles go to `paths.models`, training runs to `training/` in `paths.work`.
        data: training images in place of those that the base configuration names.
        only: labels of methods; other models are not made.
        threads: of the CPU.
        run: runs a command and returns its exit status; by default as a process.

    Returns:
        The bundles that were made.

    Raises:
        DatasetError: the base configuration is missing.
        TrtsegError: training or export failed; their own message is on stderr.
        ValueError: the work directory holds a model of this name and another configuration.
    """
    run = run or run_process
    wanted = {method.model for method in study.methods if not only or method.label in only}
    made = []
    for model, config in training_configs(study, folder, data).items():
        if model not in wanted:
            continue
        place = paths.work / "training" / model
        bundle = paths.models / f"{model}.trtseg"
        file = place / "config.json"
        if file.exists() and read_json(file) != config:
            raise ValueError(
                f"{file}: {study.name} trains {model} with another configuration; "
                f"remove {place} and {bundle}, or choose another --work and --models"
            )
        if bundle.exists():
            continue
        place.mkdir(parents=True, exist_ok=True)
        write_json(file, config)
        output = place / "run"
        command = [sys.executable, "-m", "trtseg", "train", str(file), "--output", str(output)]
        command += ["--resume"] if (output / "last").exists() else []
        command += ["--threads", str(threads)] if threads else []
        _expect_success(run(command), model, "training")
        paths.models.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "trtseg", "export", str(output / "last"), str(bundle)]
        # evaluated in FP32 alone: whether FP16 can hold its values is of no interest
        command += ["--name", model, "--fp32-only", "--force"]
        _expect_success(run(command), model, "export")
        if not bundle.exists():
            raise TrtsegError(f"{model}: export left no {bundle}")
        made.append(bundle)
    return made


def _expect_success(status: int, model: str, what: str) -> None:
    if status == 130:
        raise KeyboardInterrupt
    if status != 0:
        raise TrtsegError(f"{model}: {what} failed (exit status {status})")


def run_process(command: list[str]) -> int:
    """Run a command to its end; its standard output goes to stderr.

    An interruption by the keyboard reaches the command too: it is given the time to save.
    """
    process = subprocess.Popen(command, stdout=sys.stderr)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise
