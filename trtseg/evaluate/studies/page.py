"""Rendering study results, with published numbers beside them: a short page, and one a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trtseg.evaluate.comparison import ahead_sentences
from trtseg.evaluate.curves import iou_figure, render, sequence_figure
from trtseg.evaluate.records import write_file
from trtseg.evaluate.summary import METRICS, cells, interval_text

TARGET = 0.85  # of figures along a sequence, where a study has it: CA's

_HEAD = """\
# Results

Written by `trtseg study render`; do not edit. NoC@q is the mean number of clicks until IoU q is
reached, the maximum where it is not; lower is better. IA and SA learn from the corrections of one
image and of the images before (continuous adaptation). Brackets hold 95 % bootstrap intervals over
the objects. Numbers in italics are published ones, for orientation: where data, training sets or
click protocols differ, the study's own page says so. A published number with a question mark could
not be checked against its source.
"""


def render_page(
    results: Sequence[dict[str, Any]], published: dict[str, Any], output: Path
) -> list[Path]:
    """Write the page; beside it in `results/` a page per study, and in `images/` its figures.

    Args:
        results: of `run_study`, in the order of the page.
        published: key to {"label", "training", "source", "cells": {data: {target: NoC}}}; it may
            have "unconfirmed", the data sets whose numbers were not found in the source, and
            "time".
        output: the Markdown file.

    Returns:
        The files that were written.
    """
    files = {}
    parts = [_HEAD]
    for study in results:
        figures = _figures(study)
        images = output.parent / "images"
        files.update({images / name: data for name, (_, data) in figures.items()})
        own = output.parent / "results" / f"{study['study']}.md"
        files[own] = study_page(
            study, published, {name: content for name, (content, _) in figures.items()}
        ).encode()
        parts.append(_brief(study, published, own.relative_to(output.parent)))
    files[output] = "\n".join(parts).encode()
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, data)
    return list(files)


def _brief(study: dict[str, Any], published: dict[str, Any], own: Path) -> str:
    """A study's heading, conclusion and main table, of the rows and the columns with numbers."""
    found = [row for row in study["rows"] if row["cells"]]
    measured = {name for row in found for name in row["cells"]}
    at_hand = [data for data in study["data"] if data["name"] in measured]
    table = _noc_table({**study, "rows": found, "data": at_hand}, published) if found else ""
    parts = [f"## {study['title']}", study["conclusion"], table]
    more = f"[Everything else]({own.as_posix()}): data, notes, failures, times, sources."
    for what, items, kept in (("Not run", study["rows"], found),
                              ("Not at hand", study["data"], at_hand)):  # fmt: skip
        missing = [item["label"] for item in items if item not in kept]
        if missing:
            more += f" {what}: {'; '.join(missing)}."
    return "\n\n".join([*(part for part in parts if part), more]) + "\n"


def study_page(
    study: dict[str, Any], published: dict[str, Any], figures: Mapping[str, str] | None = None
) -> str:
    """One study as a Markdown page of its own.

    Args:
        figures: what each shows, by the name of its file in `images/`.
    """
    head = [f"# {study['title']}", "Written by `trtseg study render`; do not edit.",
            study["conclusion"], *study["text"]]  # fmt: skip
    parts = [*(part for part in head if part), _noc_table(study, published, missing="not run")]
    sentences = ahead_sentences(study)
    if sentences:
        parts += ["In short:", _list(sentences)]
    if any("change" in cell for row in study["rows"] for cell in row["cells"].values()):
        parts += [
            f"Change from \"{study['reference']}\" over the same objects: the difference of the "
            "mean IoU after one click (higher is better), and by how much the mean number of "
            "clicks changes (lower is better).",
            _change_table(study),
        ]
    if any(row["cells"] for row in study["rows"]):
        parts += ["Failures, IoU and time of what was measured here:", _detail_table(study)]
    notes = _notes(study, published)
    if notes:
        parts += ["Notes:", _list(notes)]
    parts += [f"![{content}](../images/{name})" for name, content in (figures or {}).items()]
    return "\n\n".join(parts) + "\n"


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _targets(study: dict[str, Any]) -> list[str]:
    return [f"{target:g}" for target in study["targets"]]


def _percent(target: str) -> str:
    return f"{float(target) * 100:g}"


def _taken(study: dict[str, Any], data: dict[str, Any]) -> tuple[int, int] | None:
    """(objects that the study takes of a data set, objects that it has)."""
    for row in study["rows"]:
        if (cell := row["cells"].get(data["name"])) is not None:
            return cell["expected"], cell["available"]
    return None


def _noc_table(
    study: dict[str, Any], published: dict[str, Any], missing: str | None = None
) -> str:
    """The main table; what was not run stands as `missing`. Published rows that have a number."""
    targets = _targets(study)
    shown = " / ".join(f"NoC@{_percent(target)}" for target in targets)
    head = ["method"]
    for data in study["data"]:
        taken = _taken(study, data)
        count = f" ({taken[0]} of {taken[1]})" if taken else ""
        head.append(f"{data['label']}{count} {shown}")
    timed = any(row.get("vga") for row in study["rows"])
    if timed:
        head.append("VGA: encode + click, ms")
    rows = []
    for row in study["rows"]:
        label = f"**{row['label']}**" if row["group"] == "ours" else row["label"]
        cells = [label]
        for data in study["data"]:
            cell = row["cells"].get(data["name"])
            cells.append(_noc_cell(cell, targets) if cell else missing or "")
        if timed:
            vga = row.get("vga")
            cells.append(f"{vga['encode_ms']:.0f} + {vga['click_ms']:.0f}" if vga else "")
        rows.append(cells)
    for key in study["published"]:
        entry = published[key]
        if not any(data["name"] in entry["cells"] for data in study["data"]):
            continue
        cells = [f"*{entry['label']} ({entry['training']})*"]
        for data in study["data"]:
            numbers = entry["cells"].get(data["name"], {})
            values = [f"{numbers[t]:.2f}" if t in numbers else "-" for t in targets]
            doubt = " ?" if data["name"] in entry.get("unconfirmed", ()) else ""
            cells.append(f"*{' / '.join(values)}{doubt}*" if numbers else "")
        if timed:
            cells.append(f"*{entry['time']}*" if entry.get("time") else "")
        rows.append(cells)
    return _markdown(head, rows)


def _noc_cell(cell: dict[str, Any], targets: Sequence[str]) -> str:
    values = " / ".join(interval_text(cell["noc"][target]) for target in targets)
    partial = cell["objects"] != cell["expected"]
    return f"{values} (only {cell['objects']} objects so far)" if partial else values


def _change_table(study: dict[str, Any]) -> str:
    head = ["method"]
    for data in study["data"]:
        names = ["IoU@1", *(f"clicks@{_percent(target)}" for target in _targets(study))]
        head += [f"{data['label']} {name}" for name in names]
    rows = []
    for row in study["rows"]:
        cells = [row["label"]]
        for data in study["data"]:
            change = row["cells"].get(data["name"], {}).get("change", {})
            cells.append(interval_text(change.get("iou_1"), "{:+.3f}"))
            cells += [interval_text(change.get(key), "{:+.1%}") for key in _targets(study)]
        if any(cells[1:]):
            rows.append(cells)
    known = [k for k in range(len(head)) if any(row[k] for row in rows)]
    return _markdown([head[k] for k in known], [[row[k] for k in known] for row in rows])


def _detail_table(study: dict[str, Any]) -> str:
    found = [
        (row["label"], data["label"], row["cells"][data["name"]])
        for row in study["rows"]
        for data in study["data"]
        if data["name"] in row["cells"]
    ]
    metrics = [metric for metric in METRICS if metric.key != "noc"]  # which stands above
    rows = cells([cell for _, _, cell in found], study["targets"], study["clicks"], metrics)
    names = [("method", "data"), *((label, data) for label, data, _ in found)]
    head, *rest = [[*name, *row] for name, row in zip(names, rows, strict=True)]
    return _markdown(head, rest)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _notes(study: dict[str, Any], published: dict[str, Any]) -> list[str]:
    notes = [f"{data['label']}: {data['note']}." for data in study["data"] if data["note"]]
    reduced = [
        f"{data['label']} {taken[0]} of {taken[1]}"
        for data in study["data"]
        if (taken := _taken(study, data)) and taken[0] < taken[1]
    ]
    if reduced:
        notes.append(
            "To stay in a budget of time, each set is reduced to objects evenly spread over its "
            f"order, the same for every row ({', '.join(reduced)}). Intervals are as wide as so "
            "few objects make them, and published numbers are over whole sets."
        )
    if study["stop_at_target"]:
        highest = _percent(max(_targets(study), key=float))
        notes.append(
            f"An object ends once its IoU reaches {highest} %: NoC is not changed by that, and of "
            "IoU@k only IoU@1 is reported."
        )
    notes.append(
        f"\">={study['clicks']}\" counts objects that need {study['clicks']} clicks or more, as "
        f"published tables do; \"failed\" those that are not solved after click {study['clicks']}."
    )
    notes += [f"{row['label']}: {row['note']}." for row in study["rows"] if row["note"]]
    for row in study["rows"]:
        training = row.get("training")
        if training and training["steps"] is not None:
            notes.append(
                f"{row['label']}: trained for {training['minutes']:g} minutes, "
                f"{training['steps']} steps of {training['batch']} crops of "
                f"{training['crop_px']} pixels."
            )
        reasons = sorted({reason for reason in row["missing"].values() if reason != "not run"})
        notes += [f"{row['label']}, not run: {reason}." for reason in reasons]
    machines = {
        f"{cell['machine']['processor']}, {cell['machine']['cores']} cores"
        for row in study["rows"]
        for cell in row["cells"].values()
    }
    if machines:
        notes.append("Times measured on " + "; ".join(sorted(machines)) + ".")
    return notes + _sources(study, published)


def _sources(study: dict[str, Any], published: dict[str, Any]) -> list[str]:
    shown = {data["name"]: data["label"] for data in study["data"]}
    lines = []
    for key in study["published"]:
        entry = published[key]
        line = f"{entry['label']} ({entry['training']}): {entry['source']}."
        doubtful = [shown[name] for name in entry.get("unconfirmed", ()) if name in shown]
        if doubtful:
            line += f" Not checked against the source: {', '.join(doubtful)}."
        lines.append(line)
    return lines


def _figures(study: dict[str, Any]) -> dict[str, tuple[str, bytes]]:
    """(what it shows, SVG) of each figure by its file's name, per data set: IoU against clicks;
    clicks along a sequence."""
    figures = {}
    drawn = study.get("drawn") or [row["label"] for row in study["rows"]]
    target = TARGET if TARGET in study["targets"] else study["targets"][0]
    for data in study["data"]:
        measured = {
            row["label"]: row["cells"][data["name"]]
            for row in study["rows"]
            if row["label"] in drawn and "iou_intervals" in row["cells"].get(data["name"], {})
        }
        if len(measured) < 2:
            continue
        found = {}
        if not study["stop_at_target"]:
            found["", "mean IoU after each click"] = iou_figure(measured, study["reference"])
        if any(row["adapt"] != "none" for row in study["rows"]):
            found["_sequence", f"clicks to {target * 100:g} % along the sequence"] = (
                sequence_figure(measured, target, study["reference"])
            )
        for (suffix, content), figure in found.items():
            figure.axes[0].set_title(data["label"], fontsize=10)
            name = f"{study['study']}_{data['name']}{suffix}.svg"
            figures[name] = (f"{data['label']}: {content}", render(figure, "svg"))
    return figures
