"""What a run has measured so far: a CSV for machines, a picture for people."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

INTERVAL = 50
OVERLAPS = {
    "first_iou": "selected mask, first round",
    "selected_iou": "selected mask",
    "best_iou": "best mask",
}


class MetricLog:
    """Means over `INTERVAL` steps, and validations, kept in `log.csv` and `curves.png`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, str | float]] = []
        self._pending: list[dict[str, float]] = []
        self._recent: dict[str, float] = {}

    def add(self, stage: str, step: int, values: dict[str, float]) -> None:
        """Record one step."""
        self._pending.append(values)
        # after a resume the first interval may have a step or two: those wait for the next one
        if step % INTERVAL == 0 and 2 * len(self._pending) >= INTERVAL:
            self._recent = {
                name: float(np.mean([v[name] for v in self._pending])) for name in values
            }
            self.rows.append({"stage": stage, "step": step, **self._recent})
            self._pending = []

    def add_validation(self, stage: str, step: int, values: dict[str, float]) -> None:
        """Record a validation."""
        self.rows.append({"stage": stage, "step": step,
                          **{f"validation {name}": value for name, value in values.items()}})

    def recent(self) -> dict[str, str]:
        """The last interval's means, for a progress bar."""
        return {name: f"{value:.3f}" for name, value in self._recent.items()}

    def write(self) -> None:
        """Write both files; each replaces its predecessor whole."""
        if not self.rows:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        fresh = self.folder / ".log.csv"
        with fresh.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self.rows)
        fresh.replace(self.folder / "log.csv")
        self._draw()

    def read(self, finished: Sequence[str], stage: str, step: int) -> None:
        """Continue the log of an earlier part of the run.

        Args:
            finished: the stages before.
            stage, step: where the run goes on.
        """
        path = self.folder / "log.csv"
        if path.exists():
            with path.open(newline="") as file:
                self.rows = [
                    {name: value if name == "stage" else float(value)
                     for name, value in row.items() if value != ""}
                    for row in csv.DictReader(file)
                ]
            # what was logged after the checkpoint will be measured again
            self.rows = [
                row for row in self.rows
                if (row["stage"] == stage and float(row["step"]) <= step)
                or row["stage"] in finished
            ]

    def _draw(self) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        # the stages follow each other on one axis
        offset, last = {}, 0.0
        for row in self.rows:
            if row["stage"] not in offset:
                offset[row["stage"]] = last
            last = offset[row["stage"]] + float(row["step"])
        names = dict.fromkeys(name for row in self.rows for name in row)
        panels = {
            "loss": [("loss", "loss")],
            "overlap with the object, in training": [
                (name, label) for name, label in OVERLAPS.items() if name in names],
            "validation": [(n, n.removeprefix("validation ")) for n in names
                           if n.startswith("validation ")],
        }  # fmt: skip
        panels = {title: lines for title, lines in panels.items()
                  if any(name in names for name, _ in lines)}
        figure = Figure(figsize=(5.5 * len(panels), 4), layout="constrained")
        FigureCanvasAgg(figure)
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, lines) in zip(all_axes, panels.items(), strict=True):
            for name, label in lines:
                points = [(offset[r["stage"]] + float(r["step"]), float(r[name]))
                          for r in self.rows if name in r]
                axes.plot(*zip(*points, strict=True), label=label)
            for begin in list(offset.values())[1:]:
                axes.axvline(begin, color="grey", linewidth=0.8, linestyle=":")
            axes.set_xlabel("step")
            axes.set_title(title)
            if len(lines) > 1:
                axes.legend(fontsize=8)
        figure.savefig(self.folder / "curves.png", dpi=110)
