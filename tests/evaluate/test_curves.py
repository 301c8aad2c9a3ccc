"""Figures stay readable, however many curves they have."""

import pytest

pytest.importorskip("matplotlib")

from trtseg.evaluate.curves import FEW, iou_figure, sequence_figure


def results(count):
    one = {
        "iou": [0.5, 0.7],
        "iou_intervals": [[0.4, 0.6], [0.6, 0.8]],
        "clicks": {"0.85": {str(index): 1 + index % 3 for index in range(5)}},
    }
    return {f"method {index}": one for index in range(count)}


@pytest.mark.parametrize("count", [2, FEW + 1, 13])
@pytest.mark.parametrize("draw", [iou_figure, lambda found: sequence_figure(found, 0.85)])
def test_every_curve_is_seen_and_has_a_colour_of_its_own(draw, count):
    figure = draw(results(count))
    (axes,) = figure.axes
    assert len({str(line.get_color()) for line in axes.get_lines()}) == count
    legends = [axes.get_legend()] if count <= FEW else figure.legends
    assert [len(legend.get_texts()) for legend in legends] == [count]
    assert (axes.get_legend() is None) == (count > FEW)


@pytest.mark.parametrize(("count", "bands"), [(FEW, FEW), (FEW + 1, 0)])
def test_intervals_are_drawn_of_few_curves(count, bands):
    (axes,) = iou_figure(results(count)).axes
    assert len(axes.collections) == bands


@pytest.mark.parametrize("count", [2, 13])
@pytest.mark.parametrize(
    "draw", [iou_figure, lambda found, reference: sequence_figure(found, 0.85, reference)]
)
def test_the_reference_lies_over_the_others(draw, count):
    (axes,) = draw(results(count), "method 1").axes
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert lines["method 1"].get_color() == "black"
    assert all(
        lines["method 1"].get_zorder() > line.get_zorder()
        for name, line in lines.items()
        if name != "method 1"
    )


@pytest.mark.parametrize("count", [1, 2, 10, 11, 36, 240, 36_000])
def test_counts_begin_at_one(count):
    one = {"iou": [0.5] * count, "iou_intervals": [[0.4, 0.6]] * count}
    (axes,) = iou_figure({"a": one}).axes
    ticks = axes.get_xticks()
    assert ticks[0] == 1
    assert all(tick == int(tick) and tick <= count for tick in ticks)
    assert len(ticks) <= 11


def test_dashed_curves_are_explained():
    one = {"iou": [0.5], "iou_intervals": [[0.4, 0.6]], "best_iou": [0.6]}
    (axes,) = iou_figure({"a": one}).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "a", "best of the candidates",
    ]  # fmt: skip
