"""Figures: IoU against clicks, and the number of clicks over a sequence of images."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from trtseg.errors import BackendUnavailable

WINDOW = 10  # objects of a running mean, as in CA figure 5
FEW = 4  # curves of which the intervals are drawn, and that a legend among them does not hide


def require_matplotlib() -> Any:
    """The class of matplotlib's figures; called early, it tells what would be missed late.

    Raises:
        BackendUnavailable: matplotlib is not installed.
    """
    # the object interface: pyplot would keep state and look for a display
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise BackendUnavailable(
            "curves need matplotlib, which is not installed: pip install 'trtseg[evaluate]'"
        ) from None
    return Figure


def _new_figure(columns: int) -> Any:
    return require_matplotlib()(figsize=(5.2 * columns, 3.8), layout="constrained")


def _colours(count: int) -> list[Any]:
    """A colour of its own for each curve, of up to twenty."""
    from matplotlib import colormaps

    return [f"C{i}" if count <= 10 else colormaps["tab20"](i % 20) for i in range(count)]


def _lines(
    results: dict[str, dict[str, Any]], reference: str | None
) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(name, result, how its line is drawn); the reference black, and above the others."""
    colours = _colours(len(results))
    above = {"color": "black", "linewidth": 2.0, "zorder": 3}
    return [
        (name, result, above if name == reference else {"color": colour})
        for colour, (name, result) in zip(colours, results.items(), strict=True)
    ]


def _count_along(axes: Any, count: int) -> None:
    """Ticks at 1 and at whole numbers."""
    steps = (factor * 10**power for power in itertools.count() for factor in (1, 2, 5))
    step = next(step for step in steps if count / step <= 10)
    axes.set_xticks([1, *range(step, count + 1, step)] if step > 1 else range(1, count + 1))


def _add_legend(figure: Any, axes: Any, place: str) -> None:
    """Within the axes; beside them where it would hide the curves."""
    if len(axes.get_legend_handles_labels()[1]) <= FEW:
        axes.legend(fontsize=8, loc=place)
    else:
        figure.set_figwidth(7.6)
        figure.legend(fontsize=8, loc="outside right upper")


def iou_figure(results: dict[str, dict[str, Any]], reference: str | None = None) -> Any:
    """Mean IoU after each click with its interval; dashed, the best candidate's.

    Of many curves the intervals would hide one another, and the legend the curves.

    Args:
        results: one curve each: a summary's `results`, or one data set of several methods.
        reference: the name of the one that the others are compared with.
    """
    figure = _new_figure(1)
    axes = figure.add_subplot()
    for name, result, style in _lines(results, reference):
        clicks = np.arange(1, len(result["iou"]) + 1)
        axes.plot(clicks, result["iou"], label=name, marker=".", markersize=4, **style)
        low, high = np.array(result["iou_intervals"]).T
        if len(results) <= FEW:
            axes.fill_between(clicks, low, high, color=style["color"], alpha=0.15, linewidth=0)
        if "best_iou" in result:
            axes.plot(clicks, result["best_iou"], color=style["color"], linestyle="--", linewidth=1)
    if any("best_iou" in result for result in results.values()):
        axes.plot([], [], color="0.4", linestyle="--", linewidth=1, label="best of the candidates")
    axes.set(xlabel="clicks", ylabel="mean IoU", ylim=(0, 1))
    _count_along(axes, max((len(result["iou"]) for result in results.values()), default=1))
    axes.grid(alpha=0.3)
    _add_legend(figure, axes, "lower right")
    return figure


def error_figure(results: dict[str, dict[str, Any]]) -> Any:
    """Mean Jaccard error (1 - IoU) after each click, on a logarithmic axis."""
    figure = _new_figure(1)
    axes = figure.add_subplot()
    for name, result in results.items():
        error = np.maximum(1 - np.array(result["iou"]), 1e-4)
        axes.plot(np.arange(1, len(error) + 1), error, label=name, marker=".", markersize=4)
    axes.set(xlabel="clicks", ylabel="mean Jaccard error", yscale="log")
    _count_along(axes, max((len(result["iou"]) for result in results.values()), default=1))
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    return figure


def sequence_figure(
    results: dict[str, dict[str, Any]], target: float, reference: str | None = None
) -> Any:
    """Clicks along a sequence: how a method that learns gets better on the way (CA figure 5).

    Args:
        results: as of `iou_figure`, with the clicks of each object.
        target: the IoU to be reached.
        reference: as of `iou_figure`.
    """
    figure = _new_figure(1)
    axes = figure.add_subplot()
    count = 1
    for name, result, style in _lines(results, reference):
        clicks = list(result["clicks"][f"{target:g}"].values())
        count = max(count, len(clicks))
        axes.plot(np.arange(1, len(clicks) + 1), running_mean(clicks), label=name, **style)
    axes.set(
        xlabel="object", ylabel=f"clicks to {target * 100:g} %, mean of the last {WINDOW}",
        ylim=(0, None),
    )  # fmt: skip
    _count_along(axes, count)
    axes.grid(alpha=0.3)
    _add_legend(figure, axes, "best")
    return figure


def running_mean(values: Sequence[float], window: int = WINDOW) -> np.ndarray:
    """Mean over the last `window` values at every place (of fewer at the beginning)."""
    total = np.concatenate([[0.0], np.cumsum(np.asarray(values, float))])
    end = np.arange(1, len(total))
    begin = np.maximum(end - window, 0)
    return (total[end] - total[begin]) / (end - begin)


def render(figure: Any, kind: str) -> bytes:
    """A figure as "png" or "svg"; the same figure gives the same bytes."""
    from matplotlib import rc_context

    stream = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with rc_context({"svg.hashsalt": "trtseg"}):
        figure.savefig(stream, format=kind, dpi=110, metadata=metadata)
    return stream.getvalue()
