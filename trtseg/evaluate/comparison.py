"""Who is ahead of whom: differences of methods over the objects that both were run on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trtseg.evaluate.metrics import bootstrap_interval
from trtseg.evaluate.summary import interval_text


def paired(values: dict[str, float], reference: dict[str, float]) -> dict[str, float] | None:
    """Difference of two methods' values by object: "mean", "low" and "high" (95 % bootstrap
    interval) over the "objects" that both have; None where there is none."""
    common = _common(values, reference)
    if not common:
        return None
    found = np.array([values[key] - reference[key] for key in common], np.float64)
    return {**_plain(float(found.mean()), *bootstrap_interval(found)), "objects": len(common)}


def change(cell: dict[str, Any], reference: dict[str, Any]) -> dict[str, dict[str, float]]:
    """What a method changes, over the objects that it and the reference were both run on.

    Args:
        cell: of a study's results.
        reference: the cell that it is compared with, of the same data.

    Returns:
        Mean, low and high (95 % bootstrap interval over the objects): for "iou_1" of the
        difference, for each target of the relative change of the mean number of clicks.
    """
    found = {}
    difference = paired(cell["iou_1"], reference["iou_1"])
    if difference is not None:
        found["iou_1"] = {key: difference[key] for key in ("mean", "low", "high")}
    for key, clicks in cell["clicks"].items():
        common = _common(clicks, reference["clicks"][key])
        if common:
            pairs = np.array([(clicks[k], reference["clicks"][key][k]) for k in common], float)
            found[key] = _plain(_relative(pairs), *bootstrap_interval(pairs, _relative))
    return found


def _relative(pairs: np.ndarray) -> float:
    return float(pairs[:, 0].mean() / pairs[:, 1].mean() - 1)


def _plain(mean: float, low: float, high: float) -> dict[str, float]:
    return {"mean": round(mean, 4), "low": round(low, 4), "high": round(high, 4)}


def _common(values: dict[str, float], reference: dict[str, float]) -> list[str]:
    return sorted(values.keys() & reference.keys(), key=int)


def ahead_sentences(study: dict[str, Any]) -> list[str]:
    """One sentence per data set: is the first row of "ours" ahead of every other method?

    Args:
        study: results of `run_study`; without rows of both kinds there is nothing to say.
    """
    ours = next((row for row in study["rows"] if row["group"] == "ours" and row["cells"]), None)
    others = [row for row in study["rows"] if row["group"] in ("classical", "learned")]
    if ours is None or not others:
        return []
    lines = []
    for data in study["data"]:
        name = data["name"]
        rivals = [row for row in others if name in row["cells"]]
        if name not in ours["cells"] or not rivals:
            continue
        keys = [f"{target:g}" for target in study["targets"]]
        verdicts = [_verdict(ours, rivals, name, key) for key in keys]
        missing = len(others) - len(rivals)
        if missing:
            verdicts.append(f"{missing} of {len(others)} other methods were not run on it")
        line = f"{data['label']}: {'; '.join(verdicts)}."
        lines.append(f"{line} {data['remark']}".rstrip() if data.get("remark") else line)
    return lines


def _verdict(
    ours: dict[str, Any], rivals: Sequence[dict[str, Any]], name: str, key: str
) -> str:
    mine = ours["cells"][name]["clicks"][key]
    found = [
        (difference, row["label"])
        for row in rivals
        if (difference := paired(row["cells"][name]["clicks"][key], mine)) is not None
    ]
    where = f"at NoC@{float(key) * 100:g}"
    if not found:
        return f"{where} no object in common with any other method"
    nearest, label = min(found, key=lambda one: one[0]["mean"])
    texts = {label: f"{label} ({interval_text(one, '{:+.2f}')} clicks)" for one, label in found}
    behind = [texts[label] for one, label in found if one["mean"] <= 0]
    unsure = [texts[label] for one, label in found if one["mean"] > 0 >= one["low"]]
    if behind:
        return f"{where} {ours['label']} is NOT ahead of {', '.join(behind)}"
    if unsure:
        return (
            f"{where} {ours['label']} is ahead of every other method on average, but with "
            f"{nearest['objects']} objects not for certain of {', '.join(unsure)}"
        )
    return (
        f"{where} {ours['label']} is ahead of every other method, of the nearest, {label}, "
        f"by {interval_text(nearest).replace(' [', ' clicks [')}"
    )
