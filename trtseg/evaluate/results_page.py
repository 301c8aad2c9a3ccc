"""Rendering study results, with published numbers beside them, to one Markdown page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trtseg.evaluate.curves import iou_figure, render
from trtseg.evaluate.records import write_file

_HEAD = """\
# Results

Written by `python -m trtseg.evaluate.studies render`; do not edit. NoC@q is the mean number of
clicks until IoU q is reached, the maximum where it is not; lower is better. Brackets hold 95 %
bootstrap intervals over the objects. Numbers in italics are published ones, for orientation: where
data, training sets or click protocols differ, the notes say so.
"""


def render_page(
    results: Sequence[dict[str, Any]], published: dict[str, Any], output: Path
) -> list[Path]:
    """Write the page and, beside it in `images/`, a figure per study and data set.

    Args:
        results: of `run_study`, in the order of the page.
        published: key to {"label", "training", "source", "cells": {data: {target: NoC}}}.
        output: the Markdown file.

    Returns:
        The files that were written.
    """
    parts = [_HEAD]
    written = []
    for study in results:
        figures = _figures(study)
        folder = output.parent / "images"
        for name, data in figures.items():
            folder.mkdir(parents=True, exist_ok=True)
            write_file(folder / name, data)
            written.append(folder / name)
        parts.append(study_section(study, published, list(figures)))
    output.parent.mkdir(parents=True, exist_ok=True)
    write_file(output, "\n".join(parts).encode())
    return [output, *written]


def study_section(
    study: dict[str, Any], published: dict[str, Any], figures: Sequence[str] = ()
) -> str:
    """One study as Markdown."""
    parts = [f"## {study['title']}", *study["text"]]
    parts.append(_noc_table(study, published))
    notes = _notes(study, published)
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    if any(row["cells"] for row in study["rows"]):
        parts += ["Failures, IoU and time of what was measured here:", _detail_table(study)]
    comparison = _comparison(study)
    if comparison:
        parts.append("\n".join(comparison))
    parts += [f"![IoU after each click]({Path('images') / name})" for name in figures]
    return "\n\n".join(parts) + "\n"


def _targets(study: dict[str, Any]) -> list[str]:
    return [f"{target:g}" for target in study["targets"]]


def _noc_table(study: dict[str, Any], published: dict[str, Any]) -> str:
    targets = _targets(study)
    shown = " / ".join(f"@{float(target) * 100:g}" for target in targets)
    head = ["method", *(f"{data['label']} {shown}" for data in study["data"])]
    timed = any(row.get("vga") for row in study["rows"])
    if timed:
        head.append("VGA: encode / click, ms")
    rows = []
    for row in study["rows"]:
        label = f"**{row['label']}**" if row["group"] == "ours" else row["label"]
        cells = [label]
        for data in study["data"]:
            cell = row["cells"].get(data["name"])
            cells.append(_noc_cell(cell, targets) if cell else "not run")
        if timed:
            vga = row.get("vga")
            cells.append(f"{vga['encode_ms']:.0f} / {vga['click_ms']:.0f}" if vga else "")
        rows.append(cells)
    for key in study["published"]:
        entry = published[key]
        cells = [f"*{entry['label']} ({entry['training']})*"]
        for data in study["data"]:
            numbers = entry["cells"].get(data["name"], {})
            values = [f"{numbers[t]:.2f}" if t in numbers else "-" for t in targets]
            cells.append(f"*{' / '.join(values)}*" if numbers else "")
        if timed:
            cells.append(f"*{entry['time']}*" if entry.get("time") else "")
        rows.append(cells)
    return _markdown(head, rows)


def _noc_cell(cell: dict[str, Any], targets: Sequence[str]) -> str:
    values = " / ".join(f"{cell['noc'][target]['mean']:.2f}" for target in targets)
    intervals = ", ".join(
        f"{cell['noc'][target]['low']:.2f} to {cell['noc'][target]['high']:.2f}"
        for target in targets
    )
    partial = cell["objects"] != cell["expected"]
    count = f" ({cell['objects']} of {cell['expected']} objects)" if partial else ""
    return f"{values} [{intervals}]{count}"


def _detail_table(study: dict[str, Any]) -> str:
    targets = _targets(study)
    limit = study["clicks"]
    head = ["method", "data", "objects"]
    for target in targets:
        percent = f"{float(target) * 100:g}"
        head += [f">={limit}@{percent}", f"failed@{percent}"]
    head += ["IoU@1", "IoU@5", f"IoU@{limit}", "best of M @1", "encode ms", "click ms", "s/click"]
    rows = []
    for row in study["rows"]:
        for data in study["data"]:
            cell = row["cells"].get(data["name"])
            if cell is None:
                continue
            cells = [row["label"], data["label"], str(cell["objects"])]
            for target in targets:
                cells += [str(cell["failures_at_limit"][target]), str(cell["failures"][target])]
            ious = cell.get("iou")
            places = [0, min(4, limit - 1), limit - 1]
            cells += [f"{ious[k]:.3f}" for k in places] if ious else ["-"] * 3
            cells.append(f"{cell['best_iou'][0]:.3f}" if "best_iou" in cell else "-")
            click = cell["click_ms"]
            cells.append(f"{cell['encode_ms']['median']:.0f}")
            cells.append(f"{click['median']:.0f}" if click else "-")
            seconds = cell["seconds_per_click"]
            cells.append("-" if seconds is None else f"{seconds:.2f}")
            rows.append(cells)
    return _markdown(head, rows)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _notes(study: dict[str, Any], published: dict[str, Any]) -> list[str]:
    notes = [f"{data['label']}: {data['note']}" for data in study["data"] if data["note"]]
    notes += [f"{row['label']}: {row['note']}" for row in study["rows"] if row["note"]]
    for row in study["rows"]:
        reasons = sorted({reason for reason in row["missing"].values() if reason != "not run"})
        notes += [f"{row['label']}: {reason}" for reason in reasons]
    machines = {
        f"{cell['machine']['processor']}, {cell['machine']['cores']} cores"
        for row in study["rows"]
        for cell in row["cells"].values()
    }
    if machines:
        notes.append("Times measured on " + "; ".join(sorted(machines)) + ".")
    sources = {key: published[key]["source"] for key in study["published"]}
    notes += [f"{published[key]['label']}: {source}" for key, source in sources.items() if source]
    return notes


def _comparison(study: dict[str, Any]) -> list[str]:
    """Per data set, who is ahead of whom: ours against every other method measured here."""
    ours = [row for row in study["rows"] if row["group"] == "ours" and row["cells"]]
    others = [row for row in study["rows"] if row["group"] in ("classical", "learned")]
    lines = []
    for data in study["data"] if ours else ():
        for target in _targets(study):
            best = _least(ours, data["name"], target)
            rival = _least(others, data["name"], target)
            if best is None or rival is None:
                continue
            verb = "ahead of" if best[0] < rival[0] else "NOT ahead of"
            percent = f"{float(target) * 100:g}"
            lines.append(
                f"- {data['label']}, NoC@{percent}: {best[1]} ({best[0]:.2f}) is {verb} the best "
                f"other method measured here, {rival[1]} ({rival[0]:.2f})."
            )
    return lines


def _least(rows: Sequence[dict[str, Any]], data: str, target: str) -> tuple[float, str] | None:
    found = [
        (row["cells"][data]["noc"][target]["mean"], row["label"])
        for row in rows
        if data in row["cells"]
    ]
    return min(found) if found else None


def _figures(study: dict[str, Any]) -> dict[str, bytes]:
    """IoU against clicks of all methods, per data set, as SVG."""
    figures = {}
    for data in study["data"]:
        curves = {
            row["label"]: row["cells"][data["name"]]
            for row in study["rows"]
            if "iou" in row["cells"].get(data["name"], {})
        }
        if len(curves) > 1:
            figure = iou_figure(curves)
            figure.axes[0].set_title(data["label"], fontsize=10)
            figures[f"{study['study']}_{data['name']}.svg"] = render(figure, "svg")
    return figures
