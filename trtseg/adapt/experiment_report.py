"""Tables and pictures of adaptation experiments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trtseg.adapt.experiment import LABELS, Experiment, Records, job_key, jobs
from trtseg.evaluate.metrics import bootstrap_interval

WINDOW = 10  # objects of the running mean, as in CA figure 5


def summarise(experiment: Experiment, records: Records) -> list[dict[str, Any]]:
    """One row per finished or begun job: clicks@q, its interval, and the change to fixed.

    The change is taken over the objects that both have, so that a run in progress compares alike
    with alike.
    """
    fixed: dict[str, list[int]] = {}
    found = []
    for source, mode, series in jobs(experiment):
        rows = records.of(job_key(experiment, source, mode, series))
        if not rows:
            continue
        clicks = np.array([row["clicks"] for row in rows], float)
        if mode == "fixed":
            fixed[source.name] = clicks.tolist()
        reference = np.array(fixed.get(source.name, []), float)[: len(clicks)]
        common = min(len(reference), len(clicks))
        change = None
        interval: tuple[float, float] | None = None
        if common and mode != "fixed":
            pairs = np.column_stack([clicks[:common], reference[:common]])
            change = _change(pairs)
            interval = bootstrap_interval(pairs, _change)
        later = [ms for row in rows for ms in row["click_ms"][1:]]
        asked = sum(row["respected"][1] for row in rows)
        found.append({
            "source": source.name,
            "mode": mode,
            "series": "" if mode == "fixed" else series.label,
            "objects": len(rows),
            "clicks": round(float(clicks.mean()), 3),
            "failures": int(sum(row["iou_last"] < experiment.target for row in rows)),
            "iou_1": round(float(np.mean([row["iou_1"] for row in rows])), 4),
            "change": None if change is None else round(change, 4),
            "change_interval": None if interval is None else [round(v, 4) for v in interval],
            "respected": round(sum(row["respected"][0] for row in rows) / max(asked, 1), 4),
            "click_ms_median": round(float(np.median(later)), 1) if later else None,
        })
    return found


def _change(pairs: np.ndarray) -> float:
    return float(pairs[:, 0].mean() / pairs[:, 1].mean() - 1)


def markdown(experiment: Experiment, summary: Sequence[dict[str, Any]]) -> str:
    """The table, in Markdown."""
    percent = round(experiment.target * 100)
    lines = [
        f"| sequence | objects | adaptation | clicks@{percent} | change (95 %) | failures "
        "| IoU@1 | clicked pixels right | ms per later click |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in summary:
        change = "-"
        if row["change"] is not None:
            low, high = row["change_interval"]
            change = f"{row['change']:+.1%} ({low:+.1%} to {high:+.1%})"
        label = LABELS[row["mode"]] + (f", {row['series']}" if row["series"] else "")
        lines.append(
            f"| {row['source']} | {row['objects']} | {label} | {row['clicks']:.2f} | {change} "
            f"| {row['failures']} | {row['iou_1']:.3f} | {row['respected']:.1%} "
            f"| {'-' if row['click_ms_median'] is None else row['click_ms_median']} |"
        )
    return "\n".join(lines) + "\n"


def running_mean(values: Sequence[float], window: int = WINDOW) -> np.ndarray:
    """Mean over the last `window` values at every place (of fewer at the beginning)."""
    total = np.concatenate([[0.0], np.cumsum(np.asarray(values, float))])
    end = np.arange(1, len(total))
    begin = np.maximum(end - window, 0)
    return (total[end] - total[begin]) / (end - begin)


def plot_sequences(experiment: Experiment, records: Records, path: Path) -> None:
    """clicks@q over each sequence, a panel per source (CA figure 5)."""
    from matplotlib.figure import Figure

    names = [source.name for source in experiment.sources]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(names):]:
        axis.set_axis_off()
    for source, mode, series in jobs(experiment):
        found = records.of(job_key(experiment, source, mode, series))
        if not found:
            continue
        axis = axes.flat[names.index(source.name)]
        label = LABELS[mode]
        if mode != "fixed" and len(experiment.series) > 1:
            label += f", {series.label}"
        axis.plot(
            np.arange(1, len(found) + 1),
            running_mean([row["clicks"] for row in found]),
            label=label,
            linewidth=2 if mode == "fixed" else 1.4,
            color="black" if mode == "fixed" else None,
        )
    for name, axis in zip(names, axes.flat, strict=False):
        axis.set(title=name, xlabel="object", ylim=(0, None))
        axis.set_ylabel(f"clicks@{round(experiment.target * 100)}, mean of {WINDOW}")
        if axis.lines:
            axis.legend(fontsize=7)
    _save(figure, path)


def plot_gain(summary: Sequence[dict[str, Any]], path: Path) -> None:
    """Change of clicks against the time of a click: what a budget buys."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axis = figure.subplots()
    for source in dict.fromkeys(row["source"] for row in summary):
        rows = [row for row in summary if row["source"] == source and row["change"] is not None]
        axis.scatter(
            [row["click_ms_median"] for row in rows],
            [100 * row["change"] for row in rows],
            label=source,
            s=18,
        )
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set(xlabel="median time of a click after the first, ms", ylabel="change of clicks, %")
    axis.legend(fontsize=7)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}")
    figure.savefig(fresh, format="png", dpi=110, metadata={"Software": None})
    fresh.replace(path)


def write_report(
    experiment: Experiment, records: Records, folder: Path, notes: dict[str, Any]
) -> list[Path]:
    """Table, plots and numbers into a folder; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarise(experiment, records)
    results = folder / "results.json"
    results.write_text(json.dumps({**notes, "results": summary}, indent=1) + "\n")
    table = folder / "table.md"
    table.write_text(markdown(experiment, summary))
    plot_sequences(experiment, records, folder / "sequences.png")
    plot_gain(summary, folder / "gain.png")
    return [results, table, folder / "sequences.png", folder / "gain.png"]
