"""What a run has measured so far: a CSV for machines, a picture for people."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

INTERVAL = 50


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
        if step % INTERVAL == 0:
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

    def read(self, stage: str, step: int) -> None:
        """Continue the log of an earlier part of the run, which is resumed at this step."""
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
                or (row["stage"] == "segment" and stage != "segment")
            ]

    def _draw(self) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(11, 4), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        # the stages follow each other on one axis
        offset, last = {}, 0.0
        for row in self.rows:
            if row["stage"] not in offset:
                offset[row["stage"]] = last
            last = offset[row["stage"]] + float(row["step"])
        for axes, validation in ((left, False), (right, True)):
            names = [n for n in dict.fromkeys(n for r in self.rows for n in r)
                     if n not in ("stage", "step") and n.startswith("validation") == validation]
            for name in names:
                points = [(offset[r["stage"]] + float(r["step"]), float(r[name]))
                          for r in self.rows if name in r]
                axes.plot(*zip(*points, strict=True), label=name.removeprefix("validation "))
            axes.set_xlabel("step")
            axes.set_title("validation" if validation else "training")
            if names:
                axes.legend(fontsize=8)
        left.set_yscale("log")
        figure.savefig(self.folder / "curves.png", dpi=110)
