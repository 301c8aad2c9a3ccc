"""A report in one HTML file, pictures included: numbers, curves, the worst and the median cases."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from trtseg.errors import DatasetError
from trtseg.evaluate.configuration import EvaluationConfig
from trtseg.evaluate.curves import error_figure, iou_figure, render, sequence_figure
from trtseg.evaluate.datasets import Dataset, Sample
from trtseg.evaluate.records import (
    ObjectRecord,
    RunDirectory,
    decode_mask,
    write_file,
    write_json,
)
from trtseg.evaluate.summary import cells, objects_csv, summarise
from trtseg.parse import build

PANEL_WIDTH_PX = 300
CASES = 3

_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1300px; padding: 0 1rem;
  color: #222; background: #fff }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
td, th { padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left }
figure { margin: 1rem 0 } figcaption { color: #555 } img { max-width: 100% }
.curves { display: flex; flex-wrap: wrap } small { color: #555 }
"""


def write_report(run: RunDirectory, *, with_pictures: bool = True) -> dict[str, Any]:
    """Write results.json, objects.csv, curves and report.html into a run's folder.

    Args:
        run: may be incomplete.
        with_pictures: also write the curves and report.html.

    Returns:
        The summary.

    Raises:
        DatasetError: a file of the run is damaged.
        BackendUnavailable: matplotlib is missing and pictures were asked for.
    """
    summary = summarise(run)
    write_json(run.path / "results.json", summary)
    write_file(run.path / "objects.csv", objects_csv(run).encode())
    results = summary["results"]
    if not with_pictures or not results:
        return summary
    figures = {
        "iou": iou_figure(results),
        "jaccard_error": error_figure(results),
        "clicks_over_sequence": sequence_figure(results, max(summary["config"]["targets"])),
    }
    drawn = {
        (name, kind): render(figure, kind)
        for name, figure in figures.items()
        for kind in ("png", "svg")
    }
    for (name, kind), content in drawn.items():
        write_file(run.path / f"{name}.{kind}", content)
    curves = [drawn[name, "png"] for name in figures]
    write_file(run.path / "report.html", html_report(run, summary, curves).encode())
    return summary


def html_report(run: RunDirectory, summary: dict[str, Any], curves: Sequence[bytes]) -> str:
    """The report as one string that needs no other file.

    Args:
        run: where the records are.
        summary: of the run, see `summarise`.
        curves: PNG files.

    `CASES` of the worst, and as many of the median objects of each data set are shown. Where the
    images are not at hand, the report says so in their place.
    """
    config = build(EvaluationConfig, summary["config"], "evaluation")
    parts = [f"<h1>{_method_title(summary)}</h1>", _facts(summary), _number_table(summary)]
    parts.append(f"<div class=curves>{''.join(_inline(curve, 'png') for curve in curves)}</div>")
    parts.append(
        "<p>In the pictures: green numbers are positive clicks, red ones negative, in their "
        "order; the mask is tinted, the truth outlined in yellow, void hatched in grey. "
        "Panels show the mask after 1, 2, 5 clicks and after the last one.</p>"
    )
    try:
        datasets = config.open_data()
    except DatasetError as error:
        parts.append(f"<p>No pictures: {html.escape(str(error))}</p>")
        datasets = {}
    for name, dataset in datasets.items():
        records = list(run.records(name))
        for title, chosen in select_cases(records, max(config.targets), CASES):
            parts.append(f"<h2>{html.escape(name)}: {title}</h2>")
            parts += [_case(dataset, record, config.targets) for record in chosen]
    body = "\n".join(parts)
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f"<title>{_method_title(summary)}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def select_cases(
    records: Sequence[ObjectRecord], target: float, count: int
) -> Iterator[tuple[str, list[ObjectRecord]]]:
    """The worst and the median objects: by clicks to the target, then by the mean IoU."""
    if not records:
        return

    def quality(record: ObjectRecord) -> tuple[int, float]:
        reached = [k for k, value in enumerate(record.ious, start=1) if value >= target]
        clicks = reached[0] if reached else len(record.ious) + 1
        return -clicks, float(np.mean(record.ious))

    ranked = sorted(records, key=quality)
    yield "worst", ranked[:count]
    middle = max(count, (len(ranked) - count) // 2)
    if ranked[middle : middle + count]:
        yield "median", ranked[middle : middle + count]


def overlay(
    image: np.ndarray,
    truth: np.ndarray,
    mask: np.ndarray,
    clicks: Sequence[tuple[float, float, bool]],
) -> np.ndarray:
    """One panel: uint8 RGB of `PANEL_WIDTH_PX`, with mask, truth, void and numbered clicks."""
    scale = PANEL_WIDTH_PX / image.shape[1]
    size = (PANEL_WIDTH_PX, max(1, round(image.shape[0] * scale)))
    panel = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    mask = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    truth = cv2.resize(truth, size, interpolation=cv2.INTER_NEAREST)
    panel[mask] = (panel[mask] * 0.5 + np.array([30, 110, 255]) * 0.5).astype(np.uint8)
    rows, cols = np.indices(truth.shape)
    panel[(truth == 255) & ((rows + cols) % 4 == 0)] = 128
    outlines, _ = cv2.findContours(
        (truth == 1).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(panel, outlines, -1, (255, 220, 0), 1)
    for number, (x, y, positive) in enumerate(clicks, start=1):
        centre = (round((x + 0.5) * scale - 0.5), round((y + 0.5) * scale - 0.5))
        colour = (0, 170, 0) if positive else (220, 0, 0)
        cv2.circle(panel, centre, 7, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(panel, centre, 6, colour, -1, cv2.LINE_AA)
        text, font = str(number), cv2.FONT_HERSHEY_SIMPLEX
        (width, height), _ = cv2.getTextSize(text, font, 0.3, 1)
        corner = (centre[0] - width // 2, centre[1] + height // 2)
        cv2.putText(panel, text, corner, font, 0.3, (255, 255, 255), 1, cv2.LINE_AA)
    return panel


def _case(dataset: Dataset, record: ObjectRecord, targets: Sequence[float]) -> str:
    try:
        sample: Sample = dataset[record.index]
        image, truth = sample.image, sample.mask
    except (DatasetError, IndexError) as error:
        return f"<p>{html.escape(record.name)}: {html.escape(str(error))}</p>"
    panels = []
    for count in sorted(map(int, record.masks)):
        mask = decode_mask(record.masks[str(count)])
        panel = overlay(image, truth, mask, record.clicks[:count])
        _, data = cv2.imencode(".jpg", panel[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
        label = f"{count}: {record.ious[count - 1]:.3f}"
        panels.append(_inline(data.tobytes(), "jpeg", label))
    reached = []
    for target in targets:
        clicks = [k for k, value in enumerate(record.ious, start=1) if value >= target]
        needed = f"{clicks[0]} clicks" if clicks else "not reached"
        reached.append(f"{target * 100:g} %: {needed}")
    shown = ", ".join(
        f"{record.ious[count - 1]:.3f} after {count}" for count in sorted(map(int, record.masks))
    )
    caption = f"{html.escape(record.name)}: {'; '.join(reached)}. IoU {shown}"
    return f"<figure>{''.join(panels)}<figcaption>{caption}</figcaption></figure>"


def _inline(data: bytes, kind: str, alt: str = "") -> str:
    encoded = base64.b64encode(data).decode("ascii")
    return f'<img alt="{html.escape(alt)}" src="data:image/{kind};base64,{encoded}">'


def _method_title(summary: dict[str, Any]) -> str:
    config = summary["config"]
    title = summary["method"]["name"]
    if config["adapt"] != "none":
        title += f" + {config['adapt']} adaptation"
    if config["refine"]:
        title += " + graph cut"
    return html.escape(f"{title}, {config['protocol']} protocol, {config['clicks']} clicks")


def _facts(summary: dict[str, Any]) -> str:
    machine = summary["machine"]
    text = f"{machine['processor']}, {machine['cores']} cores; trtseg {machine['trtseg']}"
    method = {key: value for key, value in summary["method"].items() if key != "name"}
    details = "; ".join(f"{key}: {value}" for key, value in method.items())
    return f"<p><small>{html.escape(text)}<br>{html.escape(details)}</small></p>"


def _number_table(summary: dict[str, Any]) -> str:
    config, results = summary["config"], summary["results"]
    rows = cells(list(results.values()), config["targets"], config["clicks"])
    lines = []
    for tag, name, row in zip(
        ["th", *["td"] * len(results)], ["data", *results], rows, strict=True
    ):
        line = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in [name, *row])
        lines.append(f"<tr>{line}</tr>")
    return f"<table>{''.join(lines)}</table>"
