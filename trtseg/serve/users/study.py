"""Participants, their tasks, and a log of everything they did."""

from __future__ import annotations

import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trtseg.evaluate.metrics import iou
from trtseg.parse import at_least, build, read_json
from trtseg.runtime.image import load_image
from trtseg.runtime.session import outlines
from trtseg.serve.refusals import NotFound, NotStored
from trtseg.serve.turns import Turns
from trtseg.types import Click

_ID = re.compile(r"[0-9]{3,6}-[0-9a-f]{8}")
SUS = (
    "I think that I would like to use this system frequently.",
    "I found the system unnecessarily complex.",
    "I thought the system was easy to use.",
    "I think that I would need the support of a technical person to be able to use this system.",
    "I found the various functions in this system were well integrated.",
    "I thought there was too much inconsistency in this system.",
    "I would imagine that most people would learn to use this system very quickly.",
    "I found the system very cumbersome to use.",
    "I felt very confident using the system.",
    "I needed to learn a lot of things before I could get going with this system.",
)


@dataclass(frozen=True)
class StudyPhoto:
    """A photo and the wanted mask: files, relative to the configuration."""

    name: str
    photo: str
    mask: str


@dataclass(frozen=True)
class StudyConfig:
    """What participants are asked to do.

    Attributes:
        photos: each is segmented once under every method.
        methods: names of models and of classical methods; "NAME+graph-cut" refines a model.
        target: the overlap that ends a task.
        clicks: that end it as well.
        seed: of the orders.
    """

    photos: tuple[StudyPhoto, ...]
    methods: tuple[str, ...]
    target: float = 0.85
    clicks: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.photos or not self.methods:
            raise ValueError("photos: expected at least one photo and one method")
        if not 0 < self.target <= 1:
            raise ValueError(f"target: expected more than 0 and at most 1, got {self.target:g}")
        at_least(self, 1, "clicks")


def read_config(path: Path) -> StudyConfig:
    """A study's configuration.

    Raises:
        ValueError: it is none; the message begins with the path.
        OSError: it cannot be read.
    """
    return build(StudyConfig, read_json(path), str(path))


@dataclass(frozen=True)
class Task:
    """One photo under one method; the tutorial does not count."""

    photo: int
    method: str
    tutorial: bool = False


def tasks_of(config: StudyConfig, number: int) -> list[Task]:
    """The tasks of the participant of a number: the tutorial, then as many rounds as there are
    methods; every round shows all photos, in an order and under methods of its own."""
    rng = np.random.default_rng([config.seed, number])
    methods = [rng.permutation(config.methods).tolist() for _ in config.photos]
    found = [Task(0, config.methods[0], tutorial=True)]
    for turn in range(len(config.methods)):
        order = rng.permutation(len(config.photos)).tolist()
        found += [Task(index, methods[index][turn]) for index in order]
    return found


@dataclass
class _Participant:
    number: int
    events: list[dict[str, Any]]
    lock: threading.RLock = field(default_factory=threading.RLock)
    session: Any = None
    mask: np.ndarray | None = None
    overlap: float = 0.0
    open_task: int = -1
    stack: ExitStack = field(default_factory=ExitStack)


class UserStudy:
    """A study over a folder of logs; any thread may call it, and a restart goes on where it was."""

    def __init__(
        self, config: StudyConfig, base: Path, folder: Path, load: Callable[[str], Any]
    ) -> None:
        """
        Args:
            config: of the study.
            base: where the photos' files are looked for.
            folder: of the logs.
            load: makes a method (`trtseg.evaluate.methods.Method`) of a name.

        Raises:
            OSError, ValueError: a file is missing, or a mask has another size than its photo.
        """
        self.config, self.folder = config, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.images = []
        self.truths = []
        for one in config.photos:
            picture = load_image(base / one.photo)
            mask = load_image(base / one.mask)
            if mask.size != picture.size:
                raise ValueError(
                    f"{one.mask}: expected {picture.size}, the photo's size, got {mask.size}"
                )
            self.images.append(picture)
            self.truths.append((mask.rgb()[..., 0] > 127).astype(np.uint8))
        self._methods = {name: load(name) for name in config.methods}
        self._encoded: dict[tuple[int, str], Any] = {}
        self._turns = Turns(120.0)
        self._lock = threading.Lock()
        self._known: dict[str, _Participant] = {}

    def begin(self, *, simulated: bool = False) -> str:
        """A new participant's id.

        Raises:
            NotStored: the disk refused.
        """
        with self._lock:
            number = len(list(self.folder.glob("*.jsonl"))) + 1
            key = f"{number:03d}-{secrets.token_hex(4)}"
            self._write(key, {"event": "begin", "number": number, "simulated": simulated})
        return key

    def state(self, key: str) -> dict[str, Any]:
        """Where a participant is: phase "task", "questions" or "done", and all that is shown.

        Raises:
            NotFound: there is no such participant.
        """
        with self._participant(key).lock:
            return self._state(self._participant(key))

    def click(self, key: str, click: Click) -> dict[str, Any]:
        """One click on the present task.

        Raises:
            ValueError: the task is finished, or the click lies outside.
            NotFound, Busy, NotStored, EngineError.
        """
        person = self._participant(key)
        with person.lock:
            state = self._state(person)
            if state["phase"] != "task" or state["finished"]:
                raise ValueError("click: this task is finished")
            height, width = self.truths[self._task(person).photo].shape
            if not (0 <= click.x <= width - 1 and 0 <= click.y <= height - 1):
                raise ValueError("click: expected a place inside the photo")
            self._run(person, [click])
            event = {
                "event": "click", "x": click.x, "y": click.y, "positive": click.positive,
                "iou": person.overlap,
            }  # fmt: skip
            try:
                self._write(key, event)
            except NotStored:
                person.open_task = -1  # its session is ahead of the log
                raise
            person.events.append(event)
            return self._state(person)

    def next(self, key: str) -> dict[str, Any]:
        """Go on to the next task.

        Raises:
            ValueError: the present one is not finished.
            NotFound, NotStored.
        """
        person = self._participant(key)
        with person.lock:
            state = self._state(person)
            if state["phase"] != "task" or not state["finished"]:
                raise ValueError("next: this task is not finished")
            self._add(key, person, {"event": "next"})
            return self._state(person)

    def answer(self, key: str, answers: list[int]) -> dict[str, Any]:
        """The questionnaire: 1 (strongly disagree) to 5 (strongly agree) for each of `SUS`.

        Raises:
            ValueError: others, or not their time.
            NotFound, NotStored.
        """
        person = self._participant(key)
        with person.lock:
            if self._state(person)["phase"] != "questions":
                raise ValueError("answers: the questions come after the tasks")
            good = len(answers) == len(SUS) and all(a in (1, 2, 3, 4, 5) for a in answers)
            if not good:
                raise ValueError(f"answers: expected {len(SUS)} numbers from 1 to 5")
            self._add(key, person, {"event": "answers", "answers": answers})
            return self._state(person)

    def _state(self, person: _Participant) -> dict[str, Any]:
        tasks = tasks_of(self.config, person.number)
        done = _count(person.events, "next")
        progress = {"done": max(0, done - 1), "tasks": len(tasks) - 1}
        if done == len(tasks):
            finished = _count(person.events, "answers") > 0
            return {**progress, "phase": "done" if finished else "questions", "questions": SUS}
        task, clicks = tasks[done], _clicks_now(person.events)
        if person.open_task != done:
            self._open(person, done, clicks)
        truth = self.truths[task.photo]
        mask = np.zeros_like(truth) if person.mask is None else person.mask
        return {
            **progress,
            "phase": "task",
            "tutorial": task.tutorial,
            "photo": task.photo,
            "width": truth.shape[1],
            "height": truth.shape[0],
            "target": self.config.target,
            "limit": self.config.clicks,
            "clicks": [{"x": c.x, "y": c.y, "positive": c.positive} for c in clicks],
            "iou": person.overlap,
            "finished": person.overlap >= self.config.target or len(clicks) >= self.config.clicks,
            "wanted": outlines.rle(truth),
            "rle": outlines.rle(mask),
        }

    def _open(self, person: _Participant, index: int, clicks: list[Click]) -> None:
        """A fresh session on a task, brought to where the log says it is."""
        person.stack.close()
        person.session, person.mask, person.overlap = None, None, 0.0
        task = tasks_of(self.config, person.number)[index]
        method, place = self._methods[task.method], (task.photo, task.method)
        with self._turns.answer():
            if place not in self._encoded:
                self._encoded[place] = method.encode(self.images[task.photo].rgb())
            person.session = person.stack.enter_context(method.session(self._encoded[place]))
        person.open_task = index
        self._run(person, clicks)

    def _run(self, person: _Participant, clicks: list[Click]) -> None:
        truth = self.truths[self._task(person).photo]
        for one in clicks:
            with self._turns.answer():
                person.mask = person.session.add_click(one.x, one.y, one.positive).mask
            assert person.mask is not None
            person.overlap = iou(person.mask, truth)

    def _task(self, person: _Participant) -> Task:
        return tasks_of(self.config, person.number)[_count(person.events, "next")]

    def _participant(self, key: str) -> _Participant:
        if not _ID.fullmatch(key):
            raise NotFound("there is no such participant")
        with self._lock:
            if key not in self._known:
                try:
                    events = read_log(self.folder / f"{key}.jsonl")
                except FileNotFoundError:
                    raise NotFound("there is no such participant") from None
                self._known[key] = _Participant(events[0]["number"], events)
            return self._known[key]

    def _add(self, key: str, person: _Participant, event: dict[str, Any]) -> None:
        self._write(key, event)
        person.events.append(event)

    def _write(self, key: str, event: dict[str, Any]) -> None:
        line = json.dumps({"time": round(time.time(), 3), **event}) + "\n"
        try:
            with (self.folder / f"{key}.jsonl").open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise NotStored(f"the log could not be written: {error.strerror}") from None


def read_log(path: Path) -> list[dict[str, Any]]:
    """A participant's events; a last line that a crash cut off does not count.

    Raises:
        FileNotFoundError: there is no such log.
        ValueError: it is damaged before its end.
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    try:
        events = [json.loads(line) for line in lines[:-1]]
    except ValueError as error:
        raise ValueError(f"{path}: damaged: {error}") from None
    if lines[-1]:  # cut off: take the end away, or the next event would be appended to it
        path.write_text("".join(f"{line}\n" for line in lines[:-1]), encoding="utf-8")
    if not events or events[0].get("event") != "begin":
        raise ValueError(f"{path}: expected a participant's log")
    return events


def _count(events: list[dict[str, Any]], name: str) -> int:
    return sum(event["event"] == name for event in events)


def _clicks_now(events: list[dict[str, Any]]) -> list[Click]:
    """The clicks since the last task ended."""
    found: list[Click] = []
    for event in events:
        if event["event"] == "next":
            found = []
        elif event["event"] == "click":
            found.append(Click(event["x"], event["y"], event["positive"]))
    return found
