"""From the records of a run to its numbers: summary, console table, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from trtseg.evaluate.metrics import (
    bootstrap_interval,
    clicks_to_reach,
    failures,
    failures_at_limit,
    mean_iou,
)
from trtseg.evaluate.records import ObjectRecord, RunDirectory


def summarise(run: RunDirectory, *, resamples: int = 2000) -> dict[str, Any]:
    """All numbers of a run, as plain values for JSON.

    Intervals are 95 % percentile bootstrap intervals over the objects.

    Args:
        run: may be incomplete; `objects` beside `expected` shows it.
        resamples: of the bootstrap.

    Raises:
        DatasetError: a file of the run is damaged.
    """
    header = run.header()
    targets = header["config"]["targets"]
    sets = {}
    for name, data in header["data"].items():
        records = list(run.records(name))
        if records:
            sets[name] = {
                "expected": data["objects"],
                **summarise_records(records, targets, resamples=resamples),
            }
    return {**header, "results": sets}


def summarise_records(
    records: Sequence[ObjectRecord], targets: Sequence[float], *, resamples: int = 2000
) -> dict[str, Any]:
    """The numbers of one data set; `records` must not be empty."""
    ious = np.array([record.ious for record in records])
    steps = np.concatenate([record.click_ms for record in records] or [[]])
    seconds = [
        ((record.encode_ms or 0.0) + record.other_ms + sum(record.click_ms))
        / 1000
        / len(record.click_ms)
        for record in records
        if record.click_ms
    ]
    encodes = [record.encode_ms for record in records if record.encode_ms is not None]
    summary: dict[str, Any] = {
        "objects": len(records),
        "noc": {},
        "failures": {},
        "failures_at_limit": {},
        "iou": _rounded(mean_iou(ious)),
        "iou_intervals": [
            _rounded(bootstrap_interval(column, resamples=resamples)) for column in ious.T
        ],
        "noc_running": {},
        "click_ms": _spread(steps),
        "encode_ms": _spread(np.array(encodes)),
        "seconds_per_click": round(float(np.mean(seconds)), 4) if seconds else None,
    }
    for target in targets:
        clicks = clicks_to_reach(ious, target)
        low, high = bootstrap_interval(clicks, resamples=resamples)
        key = f"{target:g}"
        mean = float(clicks.mean())
        summary["noc"][key] = {
            "mean": round(mean, 4), "low": round(low, 4), "high": round(high, 4)
        }  # fmt: skip
        summary["failures"][key] = failures(ious, target)
        summary["failures_at_limit"][key] = failures_at_limit(ious, target)
        summary["noc_running"][key] = _rounded(np.cumsum(clicks) / np.arange(1, len(clicks) + 1))
    if all(record.best_ious for record in records):
        summary["best_iou"] = _rounded(mean_iou(np.array([r.best_ious for r in records])))
    return summary


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 5) for value in values]


def _spread(values: np.ndarray) -> dict[str, float] | None:
    if values.size == 0:
        return None
    median, high = np.percentile(values, [50, 95])
    return {
        "mean": round(float(values.mean()), 3),
        "median": round(float(median), 3),
        "p95": round(float(high), 3),
    }


def table(summary: dict[str, Any]) -> str:
    """The summary as a table for the console, one row per data set."""
    config = summary["config"]
    limit = config["clicks"]
    head = ["data", "objects"]
    for target in config["targets"]:
        percent = f"{target * 100:g}"
        head += [f"NoC@{percent} [95 %]", f">={limit}@{percent}", f"failed@{percent}"]
    shown = [k for k in (1, 2, 3, 5, 10, limit) if k <= limit]
    shown = list(dict.fromkeys(shown))
    head += [f"IoU@{k}" for k in shown]
    head += ["best@1", "encode ms", "click ms", "p95", "SPC,s"]
    rows = []
    for name, result in summary["results"].items():
        count = str(result["objects"])
        if result["objects"] != result["expected"]:
            count += f"/{result['expected']}"
        row = [name, count]
        for target in config["targets"]:
            key = f"{target:g}"
            noc = result["noc"][key]
            row += [
                f"{noc['mean']:.2f} [{noc['low']:.2f}, {noc['high']:.2f}]",
                str(result["failures_at_limit"][key]),
                str(result["failures"][key]),
            ]
        row += [f"{result['iou'][k - 1]:.3f}" for k in shown]
        best = result.get("best_iou")
        encode = result["encode_ms"]
        click = result["click_ms"] or {"median": float("nan"), "p95": float("nan")}
        row += [
            f"{best[0]:.3f}" if best else "-",
            f"{encode['median']:.0f}" if encode else "-",
            f"{click['median']:.1f}",
            f"{click['p95']:.1f}",
            "-" if result["seconds_per_click"] is None else f"{result['seconds_per_click']:.3f}",
        ]
        rows.append(row)
    return columns([head, *rows])


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned text; the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(len(line) for line in lines))
    return "\n".join(lines)


def objects_csv(run: RunDirectory) -> str:
    """One row per object.

    | column | what |
    |---|---|
    | data, index, object | the data set, the object's position in it, its name |
    | clicks@q | clicks until the IoU is q; the limit where it never is |
    | reached@q | true or false: whether it ever is, which clicks@q cannot tell at the limit |
    | iou@k, best_iou@k | after k clicks, of the mask and of the best candidate, if there are any |
    | encode_ms | of the image; empty where it is not measured apart from the rest |
    | click_ms_mean, clicks_made | mean time of a click; how many there were |

    Raises:
        DatasetError: a file of the run is damaged.
    """
    header = run.header()
    targets, limit = header["config"]["targets"], header["config"]["clicks"]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = ["data", "index", "object", *(f"clicks@{target:g}" for target in targets)]
    names += [f"reached@{target:g}" for target in targets]
    names += [f"iou@{k}" for k in range(1, limit + 1)]
    names += [f"best_iou@{k}" for k in range(1, limit + 1)]
    writer.writerow([*names, "encode_ms", "click_ms_mean", "clicks_made"])
    for data in header["data"]:
        for record in run.records(data):
            ious = np.array([record.ious])
            needed = [int(clicks_to_reach(ious, target)[0]) for target in targets]
            reached = ["true" if ious.max() >= target else "false" for target in targets]
            best: list[float] | list[str] = record.best_ious or [""] * limit
            click_ms = round(float(np.mean(record.click_ms)), 3) if record.click_ms else ""
            row = [data, record.index, record.name, *needed, *reached, *record.ious, *best]
            writer.writerow([*row, record.encode_ms, click_ms, len(record.clicks)])
    return stream.getvalue()
