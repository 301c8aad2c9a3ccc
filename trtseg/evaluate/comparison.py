"""Who is ahead of whom: differences of methods over the objects that both were run on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trtseg.evaluate.metrics import bootstrap_interval


@dataclass(frozen=True)
class Difference:
    """Mean of a difference over objects, with its 95 % bootstrap interval.

    Attributes:
        mean, low, high: of the difference.
        objects: how many both methods have.
    """

    mean: float
    low: float
    high: float
    objects: int

    def text(self, places: int = 2) -> str:
        """With sign, for tables."""
        if self.objects == 0:
            return ""
        return f"{self.mean:+.{places}f} [{self.low:+.{places}f}, {self.high:+.{places}f}]"


def paired(values: dict[str, float], reference: dict[str, float]) -> Difference | None:
    """Difference of two methods' values by object; None without a common object."""
    common = sorted(values.keys() & reference.keys(), key=int)
    if not common:
        return None
    found = np.array([values[key] - reference[key] for key in common], np.float64)
    low, high = bootstrap_interval(found)
    return Difference(float(found.mean()), low, high, len(common))


def differences(study: dict[str, Any]) -> dict[str, dict[str, list[Difference]]]:
    """Per row but the study's reference, and per data set: of IoU@1 and of NoC at each target.

    Args:
        study: results of `run_study`; without a reference there is nothing to compare.
    """
    base = next((row for row in study["rows"] if row["label"] == study.get("reference")), None)
    if base is None:
        return {}
    compared = {}
    for row in study["rows"]:
        shared = [name for name in row["cells"] if name in base["cells"]]
        if row is base or not shared:
            continue
        compared[row["label"]] = {
            name: [
                _of(row["cells"][name]["iou_1"], base["cells"][name]["iou_1"]),
                *(
                    _of(row["cells"][name]["clicks"][key], base["cells"][name]["clicks"][key])
                    for key in _keys(study)
                ),
            ]
            for name in shared
        }
    return compared


def _of(values: dict[str, float], reference: dict[str, float]) -> Difference:
    return paired(values, reference) or Difference(0.0, 0.0, 0.0, 0)


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
        verdicts = [_verdict(ours, rivals, name, key) for key in _keys(study)]
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
    nearest, label = min(found, key=lambda one: one[0].mean)
    behind = [f"{label} ({one.text()} clicks)" for one, label in found if one.mean <= 0]
    unsure = [f"{label} ({one.text()} clicks)" for one, label in found if one.mean > 0 >= one.low]
    if behind:
        return f"{where} {ours['label']} is NOT ahead of {', '.join(behind)}"
    if unsure:
        return (
            f"{where} {ours['label']} is ahead of every other method on average, but with "
            f"{nearest.objects} objects not for certain of {', '.join(unsure)}"
        )
    return (
        f"{where} {ours['label']} is ahead of every other method, of the nearest, {label}, "
        f"by {nearest.mean:.2f} clicks [{nearest.low:.2f}, {nearest.high:.2f}]"
    )


def _keys(study: dict[str, Any]) -> list[str]:
    return [f"{target:g}" for target in study["targets"]]
