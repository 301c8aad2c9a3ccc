"""Studies: the tables and figures of the papers as configurations that one command runs.

A study is a JSON file (see `studies/`): methods x data sets under one protocol. `run_study` fills
what is missing in a work directory, one run directory per method and data set, and condenses it to
one results file, from which `page` renders the documentation. A study can be stopped and
continued at any time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from trtseg.errors import BundleError, DatasetError
from trtseg.evaluate.comparison import change
from trtseg.evaluate.configuration import DataSpec, EvaluationConfig
from trtseg.evaluate.datasets import open_dataset
from trtseg.evaluate.methods import BASELINES, Method, load_method
from trtseg.evaluate.records import RunDirectory, read_json, write_json
from trtseg.evaluate.runner import Load, evaluate, make_header
from trtseg.evaluate.studies.cells import check_model, condense, training_budget
from trtseg.evaluate.timing import VGA, time_at_vga
from trtseg.parse import build, changed, derived, one_of

DATA_SETS = "data.json"  # beside the studies: what they call by a key


@dataclass(frozen=True)
class StudyMethod:
    """One row.

    Attributes:
        label: as shown.
        model: baseline, model in the package, or bundle below the folder of models.
        group: "ours", "classical", "learned" or "ablation".
        adapt, focus, refine: see `EvaluationConfig`.
        protocol: in place of the study's.
        learning: how it adapts, as changes to the study's: dotted names to values.
        training: how the model is trained, as changes to the study's: dotted names to values.
        note: what a reader must know about the row.
        omitted: why the row is not run: it is shown with this reason.
    """

    label: str
    model: str
    group: str = "ours"
    adapt: str = "none"
    focus: bool = True
    refine: bool = False
    protocol: str | None = None
    learning: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    note: str = ""
    omitted: str = ""


@dataclass(frozen=True)
class StudyData:
    """One data set.

    Attributes:
        name: the key of results and of published numbers.
        label: as shown.
        path: below the folder of data.
        layout, subset: see `open_dataset`.
        shift, prefix: see `DataSpec`.
        min_area, limit: see `EvaluationConfig`.
        note: for instance how it differs from the set that papers use under this name.
        remark: why the outcome on it is as it is; written once a run has shown it.
    """

    name: str
    label: str
    path: str
    layout: str | None = None
    subset: str | None = None
    shift: str | None = None
    prefix: str = ""
    min_area: float = 0.0
    limit: int | None = None
    note: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Study:
    """The content of a study's file.

    Attributes:
        name: of the file, without suffix.
        title: heading.
        text: paragraphs above the table: what the papers did, and what differs here.
        conclusion: what the table shows, in a line; written once a run has shown it.
        methods: rows.
        data: columns.
        protocol, clicks, targets, seed: see `EvaluationConfig`.
        stop_at_target: do not click on after the highest target; of IoU@k only IoU@1 is then
            reported.
        reference: label of the row that the others are compared with, object by object.
        drawn: labels of the rows that figures show; all if empty.
        published: keys of rows in `published.json` to show.
        long_side_px: see `EvaluationConfig`.
        learning: how rows with an adaptation learn, the values of an `adapt.AdaptConfig`; None
            takes what was chosen for each model.
        time_at_vga: measure an encode and a click at 640 x 480.
        training: "base" is a training configuration, beside the study's file; the other entries
            change it for all methods that are trained for this study.
    """

    name: str
    title: str
    text: tuple[str, ...]
    methods: tuple[StudyMethod, ...]
    data: tuple[StudyData, ...]
    conclusion: str = ""
    protocol: str = "standard"
    clicks: int = 20
    targets: tuple[float, ...] = (0.85, 0.90)
    seed: int = 0
    stop_at_target: bool = False
    reference: str | None = None
    drawn: tuple[str, ...] = ()
    published: tuple[str, ...] = ()
    long_side_px: int | None = None
    learning: dict[str, Any] | None = None
    time_at_vga: bool = False
    training: dict[str, Any] | None = None

    def config(self, method: StudyMethod, data: StudyData, paths: Paths) -> EvaluationConfig:
        """The evaluation of one cell."""
        path = str(paths.data / data.path)
        spec = DataSpec(path, data.layout, data.subset, data.shift, data.prefix)
        learning = None
        if method.adapt != "none" and (self.learning or method.learning):
            learning = changed(self.learning or {}, method.learning or {})
        return EvaluationConfig(
            model=paths.model(method.model),
            data=(spec,),
            protocol=method.protocol or self.protocol,
            clicks=self.clicks,
            targets=self.targets,
            seed=self.seed,
            min_area=data.min_area,
            limit=data.limit,
            stop_at_target=self.stop_at_target,
            adapt=method.adapt,
            learning=learning,
            long_side_px=self.long_side_px,
            focus=method.focus,
            refine=method.refine,
        )


@dataclass(frozen=True)
class Paths:
    """Where a study finds and leaves things.

    Attributes:
        data: folder of the data sets.
        models: folder of the bundles that are not in the package.
        work: run directories.
        kept: folder of the models that do not ship, looked at last.
    """

    data: Path
    models: Path
    work: Path
    kept: Path | None = None

    def model(self, name: str) -> str:
        """A model's name or path."""
        if name in BASELINES:
            return name
        kept = () if self.kept is None else (self.kept / name,)
        for path in (self.models / name, self.models / f"{name}.trtseg", *kept):
            if path.exists():
                return str(path)
        return name


def read_study(path: Path) -> Study:
    """Read a study's file.

    Raises:
        DatasetError: missing, or not JSON.
        ValueError: an unknown or missing entry; the message names the file.
    """
    values = {**read_json(path), "name": path.stem}
    sets = path.with_name(DATA_SETS)
    known = read_json(sets) if sets.exists() else {}
    if isinstance(values.get("data"), list):
        values["data"] = [_data_set(entry, known, path) for entry in values["data"]]
    if "learning" in values:
        values["learning"] = derived(values["learning"], path)
    study = build(Study, values, str(path))
    for kind, names in (
        ("method", [method.label for method in study.methods]),
        ("data set", [entry.name for entry in study.data]),
    ):
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"{path}: {kind} {sorted(twice)[0]!r} appears twice")
    if study.reference is not None and all(m.label != study.reference for m in study.methods):
        raise ValueError(f"{path}: reference {study.reference!r} is no method of the study")
    for label in study.drawn:
        one_of(f"{path}: drawn", label, [method.label for method in study.methods])
    return study


def _data_set(entry: Any, known: dict[str, Any], path: Path) -> Any:
    """An entry of a study's `data`: a key of `DATA_SETS`, or an object that may begin with one."""
    values = {"set": entry} if isinstance(entry, str) else entry
    if not isinstance(values, dict) or not isinstance(values.get("set"), str):
        return values
    key = values["set"]
    values = {name: value for name, value in values.items() if name != "set"}
    if key not in known:
        raise ValueError(f"{path}: data set {key!r} is not in {path.with_name(DATA_SETS)}")
    return {**known[key], **values}


def slug(label: str) -> str:
    """A label as a file name."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def run_study(
    study: Study,
    paths: Paths,
    *,
    only: Sequence[str] = (),
    load: Load = load_method,
    workers: int = 1,
    cluster: str | None = None,
    threads: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Fill what is missing, and return the study's results as plain values.

    A method whose model is not there, and a data set that is not there, leave a reason in place
    of numbers. Cells that exist in the work directory are read, not run.

    Args:
        study: what to run.
        paths: where.
        only: labels of methods and names of data sets to run now, all of either kind where none
            of it is named; other cells are only read.
        load, workers, cluster, threads, progress: see `runner.evaluate`.

    Raises:
        DatasetError: a file of a data set is bad.
        ValueError: a cell of the work directory belongs to another model or configuration (of one
            that is only read, the model is compared), or `only` names what the study does not have.
    """
    chosen_methods, chosen_data = chosen(study, only)

    def fill(config: EvaluationConfig, run: RunDirectory, loaded: Method | None) -> Method:
        method = load(config, threads) if loaded is None or config.sequential else loaded
        run.start(make_header(config, method, config.open_data()))
        spread = (1, None) if config.sequential else (workers, cluster)
        evaluate(config, run, load=load, method=method, workers=spread[0], cluster=spread[1],
                 threads=threads, progress=progress)  # fmt: skip
        return method

    rows = []
    for method in study.methods:
        row: dict[str, Any] = {"label": method.label, "group": method.group,
                               "adapt": method.adapt, "note": method.note}  # fmt: skip
        row.update(cells={}, missing={})
        loaded: Method | None = None
        for data in study.data:
            run = RunDirectory(paths.work / study.name / slug(method.label) / data.name)
            wanted = method.label in chosen_methods and data.name in chosen_data
            if method.omitted:
                row["missing"][data.name] = method.omitted
                continue
            try:
                if wanted:
                    loaded = fill(study.config(method, data, paths), run, loaded)
                cell = condense(run, study)
                if cell is None:
                    row["missing"][data.name] = "not run"
                    continue
                if not wanted:
                    check_model(paths.model(method.model), cell, run)
                row["cells"][data.name] = cell
            except BundleError as error:
                row["missing"][data.name] = f"missing: {_subject(error)}"
            except DatasetError:
                if (paths.data / data.path).exists() and run.header_path.exists():
                    raise
                row["missing"][data.name] = "not run"
        if study.time_at_vga and not method.omitted:
            row["vga"] = _time_once(study, method, paths, loaded)
        if method.training is not None and row["cells"]:
            row["training"] = training_budget(paths.model(method.model))
        rows.append(row)
    base = next((row for row in rows if row["label"] == study.reference), None)
    for row in rows:
        for name, cell in row["cells"].items():
            if base is not None and row is not base and name in base["cells"]:
                cell["change"] = change(cell, base["cells"][name])
    return {
        "study": study.name,
        "title": study.title,
        "text": list(study.text),
        "conclusion": study.conclusion,
        "protocol": study.protocol,
        "clicks": study.clicks,
        "targets": list(study.targets),
        "stop_at_target": study.stop_at_target,
        "reference": study.reference,
        "drawn": list(study.drawn),
        "published": list(study.published),
        "data": [
            {"name": data.name, "label": data.label, "note": data.note, "remark": data.remark}
            for data in study.data
        ],
        "rows": rows,
    }


def chosen(study: Study, only: Sequence[str]) -> tuple[set[str], set[str]]:
    """(labels of methods, names of data sets) that `only` stands for; see `run_study`.

    Raises:
        ValueError: the study has no method and no data set of a name.
    """
    methods = {method.label for method in study.methods}
    data = {entry.name for entry in study.data}
    unknown = sorted(set(only) - methods - data)
    if unknown:
        raise ValueError(
            f"{study.name} has no method or data set {unknown[0]!r}; methods: "
            f"{', '.join(sorted(methods))}; data sets: {', '.join(sorted(data))}"
        )
    return methods.intersection(only) or methods, data.intersection(only) or data


def _subject(error: Exception) -> str:
    # messages begin with the path; those of this machine do not belong into a page
    return Path(str(error).partition(":")[0]).name


def _time_once(
    study: Study, method: StudyMethod, paths: Paths, loaded: Method | None
) -> dict[str, float] | None:
    """Time at VGA, measured once and kept beside the runs."""
    file = paths.work / study.name / slug(method.label) / "vga.json"
    if file.exists():
        return json.loads(file.read_text(encoding="utf-8"))
    if loaded is None:
        return None
    found = time_at_vga(loaded, _vga_image(study, paths))
    write_json(file, found)
    return found


def _vga_image(study: Study, paths: Paths) -> np.ndarray:
    data = study.data[0]
    dataset = open_dataset(paths.data / data.path, data.layout, subset=data.subset)
    image = dataset.images[0].read_image()
    return cv2.resize(image, VGA[::-1], interpolation=cv2.INTER_AREA)
