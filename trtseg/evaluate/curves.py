"""Figures: IoU against clicks, and the number of clicks over a sequence of images."""

from __future__ import annotations

import io
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


def _add_legend(figure: Any, axes: Any, place: str) -> None:
    """Within the axes; beside them where it would hide the curves."""
    if len(axes.get_legend_handles_labels()[1]) <= FEW:
        axes.legend(fontsize=8, loc=place)
    else:
        figure.set_figwidth(7.6)
        figure.legend(fontsize=8, loc="outside right upper")


def iou_figure(results: dict[str, dict[str, Any]]) -> Any:
    """Mean IoU after each click with its interval; dashed, the best candidate's.

    Of many curves the intervals would hide one another, and the legend the curves.

    Args:
        results: one curve each: a summary's `results`, or one data set of several methods.
    """
    figure = _new_figure(1)
    axes = figure.add_subplot()
    for colour, (name, result) in zip(_colours(len(results)), results.items(), strict=True):
        clicks = np.arange(1, len(result["iou"]) + 1)
        axes.plot(clicks, result["iou"], color=colour, label=name, marker=".", markersize=4)
        low, high = np.array(result["iou_intervals"]).T
        if len(results) <= FEW:
            axes.fill_between(clicks, low, high, color=colour, alpha=0.15, linewidth=0)
        if "best_iou" in result:
            axes.plot(clicks, result["best_iou"], color=colour, linestyle="--", linewidth=1)
    axes.set(xlabel="clicks", ylabel="mean IoU", ylim=(None, 1.0))
    axes.xaxis.get_major_locator().set_params(integer=True)
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
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    return figure


def sequence_figure(results: dict[str, dict[str, Any]], target: float) -> Any:
    """Clicks along a sequence: how a method that learns gets better on the way (CA figure 5)."""
    figure = _new_figure(1)
    axes = figure.add_subplot()
    for colour, (name, result) in zip(_colours(len(results)), results.items(), strict=True):
        clicks = list(result["clicks"][f"{target:g}"].values())
        axes.plot(np.arange(1, len(clicks) + 1), running_mean(clicks), color=colour, label=name)
    axes.set(xlabel="object", ylabel=f"clicks@{target * 100:g}, mean of {WINDOW}", ylim=(0, None))
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
