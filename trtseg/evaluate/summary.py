"""From the records of a run to its numbers: summary, tables, CSV.

`METRICS` lists what is measured. A new one is one entry: its numbers then stand in every results
file, and its columns in every table.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    measured = Measured(records, np.array([record.ious for record in records]), targets, resamples)
    found = {metric.key: metric.of(measured) for metric in METRICS}
    return {"objects": len(records), **{k: v for k, v in found.items() if v is not None}}


@dataclass(frozen=True, eq=False)
class Measured:
    """What metrics are computed of.

    Attributes:
        records: of the objects; at least one.
        ious: float64 [N, K], of N objects after 1..K clicks.
        targets: IoUs to reach.
        resamples: of the bootstrap.
    """

    records: Sequence[ObjectRecord]
    ious: np.ndarray
    targets: Sequence[float]
    resamples: int

    def by_target(self, statistic: Callable[[float], Any]) -> dict[str, Any]:
        """A value for each target, under the target as it is printed."""
        return {f"{target:g}": statistic(target) for target in self.targets}


Column = tuple[str, Callable[[dict[str, Any]], str]]  # heading, and from results to the cell


@dataclass(frozen=True)
class Metric:
    """A measure of a data set.

    Attributes:
        key: of its entry in results.
        of: gives plain values for JSON; None where it is not known.
        columns: for (targets, limit of clicks), its columns in tables.
    """

    key: str
    of: Callable[[Measured], Any]
    columns: Callable[[Sequence[float], int], Sequence[Column]] = lambda targets, limit: ()


def _by_target(
    key: str, heading: str, text: Callable[[Any], str]
) -> Callable[..., Sequence[Column]]:
    def columns(targets: Sequence[float], limit: int) -> list[Column]:
        return [
            (
                heading.format(percent=f"{target * 100:g}", limit=limit),
                lambda result, q=f"{target:g}": text(result[key][q]),  # type: ignore[misc]
            )
            for target in targets
        ]

    return columns


def _one(key: str, heading: str, text: Callable[[Any], str]) -> Callable[..., Sequence[Column]]:
    return lambda targets, limit: [(heading, lambda result: text(result[key]))]


def _iou_columns(targets: Sequence[float], limit: int) -> list[Column]:
    def cell(result: dict[str, Any], k: int) -> str:
        if k > len(result["iou"]):
            return "-"  # of objects that were left at the target, only the first click's is kept
        value = {"mean": result["iou"][k - 1]}
        if "iou_intervals" in result:
            value["low"], value["high"] = result["iou_intervals"][k - 1]
        return interval_text(value, "{:.3f}")

    return [
        (f"IoU@{k}", lambda result, k=k: cell(result, k))  # type: ignore[misc]
        for k in sorted({1, min(5, limit), limit})
    ]


def interval_text(value: dict[str, float] | None, form: str = "{:.2f}") -> str:
    """A mean with its interval, where one is known; empty without a value."""
    if value is None:
        return ""
    mean, *ends = (form.format(value[key]) for key in ("mean", "low", "high") if key in value)
    return f"{mean} [{', '.join(ends)}]" if ends else mean


def _noc(measured: Measured, target: float) -> dict[str, float]:
    clicks = clicks_to_reach(measured.ious, target)
    low, high = bootstrap_interval(clicks, resamples=measured.resamples)
    return {"mean": round(float(clicks.mean()), 4), "low": round(low, 4), "high": round(high, 4)}


def _clicks(measured: Measured, target: float) -> dict[str, int]:
    """By object, so that two methods can be compared on the same ones."""
    clicks = clicks_to_reach(measured.ious, target)
    return {str(r.index): int(k) for r, k in zip(measured.records, clicks, strict=True)}


def _iou_intervals(measured: Measured) -> list[list[float]]:
    return [
        _rounded(bootstrap_interval(column, resamples=measured.resamples))
        for column in measured.ious.T
    ]


def _best_iou(measured: Measured) -> list[float] | None:
    if not all(record.best_ious for record in measured.records):
        return None
    return _rounded(mean_iou(np.array([record.best_ious for record in measured.records])))


def _obeyed(measured: Measured) -> float | None:
    """Share of the clicked pixels that have the clicked label, over all clicks and pixels."""
    asked = sum(
        len(record.obeyed) * (len(record.obeyed) + 1) // 2 for record in measured.records
    )
    return round(sum(sum(r.obeyed) for r in measured.records) / asked, 4) if asked else None


def _held(measured: Measured) -> float | None:
    """Share of an object's clicked pixels that have the clicked label after its last click."""
    kept = sum(record.obeyed[-1] for record in measured.records if record.obeyed)
    asked = sum(len(record.obeyed) for record in measured.records)
    return round(kept / asked, 4) if asked else None


def _click_ms(measured: Measured) -> dict[str, float] | None:
    return _spread([value for record in measured.records for value in record.click_ms])


def _encode_ms(measured: Measured) -> dict[str, float] | None:
    return _spread([r.encode_ms for r in measured.records if r.encode_ms is not None])


def _seconds_per_click(measured: Measured) -> float | None:
    seconds = [
        ((record.encode_ms or 0.0) + record.other_ms + sum(record.click_ms))
        / 1000
        / len(record.click_ms)
        for record in measured.records
        if record.click_ms
    ]
    return round(float(np.mean(seconds)), 4) if seconds else None


METRICS = (
    Metric("noc", lambda m: m.by_target(lambda q: _noc(m, q)),
           _by_target("noc", "NoC@{percent} [95 %]", interval_text)),
    Metric("failures_at_limit", lambda m: m.by_target(lambda q: failures_at_limit(m.ious, q)),
           _by_target("failures_at_limit", ">={limit}@{percent}", str)),
    Metric("failures", lambda m: m.by_target(lambda q: failures(m.ious, q)),
           _by_target("failures", "failed@{percent}", str)),
    Metric("iou", lambda m: _rounded(mean_iou(m.ious)), _iou_columns),
    Metric("iou_intervals", _iou_intervals),
    Metric("clicks", lambda m: m.by_target(lambda q: _clicks(m, q))),
    Metric("iou_1", lambda m: {str(record.index): record.ious[0] for record in m.records}),
    Metric("best_iou", _best_iou, _one("best_iou", "best@1", lambda v: f"{v[0]:.3f}")),
    Metric("obeyed", _obeyed, _one("obeyed", "obeyed", lambda v: f"{v:.1%}")),
    Metric("held", _held, _one("held", "held at the end", lambda v: f"{v:.1%}")),
    Metric("encode_ms", _encode_ms, _one("encode_ms", "encode ms", lambda v: f"{v['median']:.0f}")),
    Metric("click_ms", _click_ms, _one("click_ms", "click ms", lambda v: f"{v['median']:.0f}")),
    Metric("seconds_per_click", _seconds_per_click,
           _one("seconds_per_click", "s/click", lambda v: f"{v:.2f}")),
)  # fmt: skip


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 5) for value in values]


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    median, high = np.percentile(values, [50, 95])
    return {
        "mean": round(float(np.mean(values)), 3),
        "median": round(float(median), 3),
        "p95": round(float(high), 3),
    }


def cells(
    results: Sequence[dict[str, Any]],
    targets: Sequence[float],
    limit: int,
    metrics: Sequence[Metric] = METRICS,
) -> list[list[str]]:
    """Headings, then a row of cells for each of some results; "-" where one is not known.

    A column that is known for none of them is left out.

    Args:
        results: of data sets, as `summarise_records` gives them, with "expected".
        targets: IoUs to reach.
        limit: the most clicks.
        metrics: to show.
    """
    counts = [
        f"{r['objects']}/{r['expected']}" if r["objects"] != r["expected"] else str(r["objects"])
        for r in results
    ]
    found = [["objects", *counts]]
    for metric in metrics:
        for heading, text in metric.columns(targets, limit):
            column = [
                text(result) if result.get(metric.key) is not None else "-" for result in results
            ]
            if set(column) != {"-"}:
                found.append([heading, *column])
    return [list(row) for row in zip(*found, strict=True)]


def table(summary: dict[str, Any]) -> str:
    """The summary as a table for the console, one row per data set."""
    config, results = summary["config"], summary["results"]
    rows = cells(list(results.values()), config["targets"], config["clicks"])
    return columns(
        [[name, *row] for name, row in zip(["data", *results], rows, strict=True)]
    )


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
    | encode_ms | of the image |
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
