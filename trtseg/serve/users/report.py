"""What the participants' logs say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from trtseg.atomic import write_atomically
from trtseg.evaluate import curves
from trtseg.evaluate.metrics import bootstrap_interval, clicks_to_reach, failures
from trtseg.serve.users.study import StudyConfig, read_log, tasks_of


def sus(answers: list[int]) -> float:
    """The System Usability Scale's score, 0 to 100 (Brooke 1996): odd statements praise."""
    points = [a - 1 if index % 2 == 0 else 5 - a for index, a in enumerate(answers)]
    return 2.5 * sum(points)


def collect(config: StudyConfig, folder: Path) -> dict[str, Any]:
    """All finished tasks: overlaps after each click and seconds by method, and the SUS scores.

    Raises:
        ValueError: a log is damaged.
    """
    overlaps: dict[str, list[list[float]]] = {name: [] for name in config.methods}
    seconds: dict[str, list[float]] = {name: [] for name in config.methods}
    scores: list[float] = []
    people, simulated = 0, 0
    for path in sorted(folder.glob("*.jsonl")):
        events = read_log(path)
        people += 1
        simulated += bool(events[0]["simulated"])
        tasks = tasks_of(config, events[0]["number"])
        clicks: list[dict[str, Any]] = []
        begun, index = events[0]["time"], 0
        for event in events[1:]:
            if event["event"] == "click":
                clicks.append(event)
            elif event["event"] == "answers":
                scores.append(sus(event["answers"]))
            elif event["event"] == "next":
                if not tasks[index].tutorial:
                    found = [click["iou"] for click in clicks]
                    # who has reached the target stops: later overlaps are the last one
                    found += [found[-1]] * (config.clicks - len(found))
                    overlaps[tasks[index].method].append(found)
                    seconds[tasks[index].method].append(clicks[-1]["time"] - begun)
                clicks, begun, index = [], event["time"], index + 1
    return {
        "people": people, "simulated": simulated, "overlaps": overlaps, "seconds": seconds,
        "sus": scores,
    }  # fmt: skip


def write(config: StudyConfig, folder: Path, output: Path) -> None:
    """Write `report.md`, `figure6.svg` and `results.json` into `output`.

    Raises:
        BackendUnavailable: matplotlib is not installed.
        ValueError: no task is finished, or a log is damaged.
        OSError: a file cannot be written.
    """
    found = collect(config, folder)
    with_tasks = {name: np.array(rows) for name, rows in found["overlaps"].items() if rows}
    if not with_tasks:
        raise ValueError(f"{folder}: no task is finished yet")
    figure = curves.error_figure(
        {name: {"iou": rows.mean(0).tolist()} for name, rows in with_tasks.items()}
    )
    output.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("figure6.svg", curves.render(figure, "svg").decode()),
        ("report.md", _report(config, found, with_tasks)),
        ("results.json", json.dumps(found, indent=1) + "\n"),
    ):
        write_atomically(output / name, text.encode(), 0o644)


def _report(config: StudyConfig, found: dict[str, Any], rows: dict[str, np.ndarray]) -> str:
    people = found["simulated"] == 0
    everybody = found["people"] == found["simulated"]
    who = f"{found['people']} participants"
    if not people:
        who += ", all of them simulated" if everybody else f", {found['simulated']} simulated"
    total = sum(len(one) for one in rows.values())
    percent = f"{config.target:.0%}".replace("%", " %")
    lines = [
        "# User study",
        "",
        f"{who}; {total} tasks: click until the overlap with the wanted mask is {percent}, or "
        f"{config.clicks} clicks are made. Intervals hold 95 % of the bootstrap over tasks.",
        "",
        "| method | tasks | mean clicks | not reached |" + (" seconds a task |" if people else ""),
        "|---|---:|---:|---:|" + ("---:|" if people else ""),
    ]
    for name, overlaps in rows.items():
        needed = clicks_to_reach(overlaps, config.target)
        low, high = bootstrap_interval(needed.astype(float))
        line = (
            f"| {name} | {len(overlaps)} | {needed.mean():.2f} [{low:.2f}, {high:.2f}] "
            f"| {failures(overlaps, config.target)} |"
        )
        lines.append(line + (f" {np.mean(found['seconds'][name]):.1f} |" if people else ""))
    lines += ["", "![Mean Jaccard error after each click](figure6.svg)", ""]
    if found["sus"] and people:
        lines.append(f"System Usability Scale: {np.mean(found['sus']):.1f} of 100.")
    elif found["sus"]:
        lines.append("The questionnaire of a simulated participant says nothing about people.")
    return "\n".join(lines).rstrip() + "\n"
