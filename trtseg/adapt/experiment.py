"""Counting the clicks of fixed and adapting models over sequences of images, resumably."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from trtseg.adapt.config import AdaptConfig
from trtseg.errors import DatasetError
from trtseg.evaluate import Dataset, Sample, open_dataset
from trtseg.evaluate.clicks import make_clicker
from trtseg.evaluate.metrics import clicks_to_reach
from trtseg.evaluate.protocol import record_object

MODES = ("fixed", "image", "sequence", "both")
LABELS = {"fixed": "fixed", "image": "IA", "sequence": "SA", "both": "IA+SA"}
SHIFTS = ("none", "inverted", "thermal")


@dataclass(frozen=True)
class Source:
    """Images that are segmented in their order, one object after the other.

    Attributes:
        path: the data set, relative to the experiment's data folder.
        name: for tables; the prefix or the folder's name, and the shift, when empty.
        shift: "inverted" (colours complemented and channels reversed) or "thermal" (one inverted,
            blurred grey channel): another modality, the same objects.
        min_area: objects that fill less of their image are left out.
        prefix: only objects whose name begins so.
        objects: at most so many, spread evenly over the data set; 0 for all.
    """

    path: str
    name: str = ""
    shift: str = "none"
    min_area: float = 0.0
    prefix: str = ""
    objects: int = 0

    def __post_init__(self) -> None:
        if self.shift not in SHIFTS:
            raise ValueError(f"shift: expected one of {', '.join(SHIFTS)}, got {self.shift!r}")
        if not self.name:
            suffix = "" if self.shift == "none" else f" ({self.shift})"
            name = self.prefix.strip("_") or Path(self.path).name
            object.__setattr__(self, "name", name + suffix)


@dataclass(frozen=True)
class Series:
    """One way to adapt, on some sources.

    Attributes:
        label: for tables, for instance "paper" or "no importance".
        adapt: the hyperparameters.
        modes: of `MODES`.
        sources: names of the sources; empty for all.
    """

    label: str
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    modes: tuple[str, ...] = MODES
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for mode in self.modes:
            if mode not in MODES:
                raise ValueError(f"modes: expected of {', '.join(MODES)}, got {mode!r}")


@dataclass(frozen=True)
class Experiment:
    """Everything a result depends on, but for the model.

    Attributes:
        sources: the sequences.
        series: what is compared; the "fixed" mode is run once, whatever the series.
        target: q of clicks@q.
        clicks: the user gives up after as many.
        protocol: of the simulated user, see `trtseg.evaluate.clicks`.
        focus: look closer at small objects, as the editor does.
        long_side_px: of the working size at which a bundle runs; 0 for its own. The time of
            clicks and steps goes with its square.
        seed: of the simulated user.
    """

    sources: tuple[Source, ...]
    series: tuple[Series, ...]
    target: float = 0.85
    clicks: int = 20
    protocol: str = "continuous-adaptation"
    focus: bool = True
    long_side_px: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.long_side_px < 0:
            raise ValueError(f"long_side_px: expected at least 0, got {self.long_side_px}")
        if not 0 < self.target <= 1:
            raise ValueError(f"target: expected in (0, 1], got {self.target}")
        if self.clicks < 1:
            raise ValueError(f"clicks: expected at least 1, got {self.clicks}")


class ImageSequence(Protocol):
    """`trtseg.adapt.Sequence`, its early-fusion counterpart, or a model that stays as it is."""

    @property
    def images(self) -> int:
        """How many have been learnt from."""

    def image(self, image: np.ndarray) -> AbstractContextManager[Any]:
        """A session on the next image."""


MakeSequence = Callable[[str, AdaptConfig, Path], ImageSequence]


def shifted(image: np.ndarray, shift: str) -> np.ndarray:
    """An image, uint8 [H, W, 3], as another modality might show it; see `Source`."""
    if shift == "inverted":
        return np.ascontiguousarray(255 - image[..., ::-1])
    if shift == "thermal":
        grey = 255 - cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        grey = cv2.GaussianBlur(grey, (0, 0), 1.5)
        return cv2.cvtColor((grey.astype(np.float32) * 0.6 + 40).astype(np.uint8),
                            cv2.COLOR_GRAY2RGB)
    return image


def jobs(experiment: Experiment) -> Iterator[tuple[Source, str, Series]]:
    """(source, mode, series) in an order in which early results are worth looking at."""
    for source in experiment.sources:
        fixed = False
        for series in experiment.series:
            if series.sources and source.name not in series.sources:
                continue
            for mode in series.modes:
                if mode == "fixed" and fixed:
                    continue
                fixed = fixed or mode == "fixed"
                yield source, mode, series


def samples_of(source: Source, data: Path) -> list[Sample]:
    """The objects of a source in their order."""
    dataset: Dataset = open_dataset(data / source.path, min_area=source.min_area)
    samples = [sample for sample in dataset if sample.name.startswith(source.prefix)]
    if source.objects and source.objects < len(samples):
        indices = np.linspace(0, len(samples) - 1, source.objects).round().astype(int)
        return [samples[index] for index in indices]
    return samples


class Records:
    """Results, one JSON line per object; what is written stays, and is not computed again.

    Raises:
        DatasetError: a line of the file is no record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, list[dict[str, Any]]] = {}
        if not path.is_file():
            return
        text = path.read_text()
        whole = text[: text.rfind("\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row = json.loads(line)
                self._rows.setdefault(row["job"], []).append(row)
            except (ValueError, TypeError, KeyError):
                raise DatasetError(f"{path}, line {number}: not a record") from None
        if whole != text:
            # an interruption cut the last line off: the next one must not be joined to it
            self._replace(whole)

    def of(self, job: str) -> list[dict[str, Any]]:
        """The rows of a job, in the order of its objects."""
        return self._rows.get(job, [])

    def add(self, row: dict[str, Any]) -> None:
        """Append one."""
        self._rows.setdefault(row["job"], []).append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def truncate(self, job: str, count: int) -> None:
        """Keep the first rows of a job only; the others are computed again."""
        self._rows[job] = self.of(job)[:count]
        text = "".join(json.dumps(row) + "\n" for rows in self._rows.values() for row in rows)
        self._replace(text)

    def _replace(self, text: str) -> None:
        fresh = self.path.with_name(f".{self.path.name}")
        fresh.write_text(text)
        fresh.replace(self.path)


def job_key(experiment: Experiment, source: Source, mode: str, series: Series) -> str:
    """Identifies all that a job's result depends on, but for the model and the data."""
    protocol = {
        name: value for name, value in asdict(experiment).items()
        if name not in ("sources", "series")
    }
    parts: list[Any] = [protocol, asdict(source), mode]
    if mode != "fixed":
        parts.append(asdict(series.adapt))
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
    label = "" if mode == "fixed" else f"/{series.label}"
    return f"{source.name}/{mode}{label}/{digest}"


def run_job(
    experiment: Experiment,
    source: Source,
    mode: str,
    series: Series,
    *,
    samples: list[Sample],
    records: Records,
    make: MakeSequence,
    progress: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Run what is not yet recorded of one source in one mode; its rows."""
    job = job_key(experiment, source, mode, series)
    done = records.of(job)
    if len(done) >= len(samples):
        return done
    state = records.path.parent / "states" / hashlib.sha256(job.encode()).hexdigest()[:16]
    sequence = make(mode, series.adapt, state)
    if mode in ("sequence", "both"):
        kept = resumable(done, sequence.images)
        if kept < len(done):
            records.truncate(job, kept)
        if kept == 0 and sequence.images > 0:
            shutil.rmtree(state)
            sequence = make(mode, series.adapt, state)
    for sample in samples[len(records.of(job)):]:
        image = shifted(sample.image, source.shift)
        with sequence.image(image) as session:
            row = _segment(experiment, sample, session)
            records.add({"job": job, "source": source.name, "mode": mode,
                         "series": "" if mode == "fixed" else series.label, **row})
        progress()
    return records.of(job)


def resumable(rows: list[dict[str, Any]], learnt: int) -> int:
    """How many rows fit a state that has learnt from so many images; 0 where it is ahead.

    A row is written before its image teaches: an interruption between the two leaves one row too
    many, and a model that keeps no state begins again.
    """
    taught = 0
    for index, row in enumerate(rows):
        if row["taught"] and taught == learnt:
            return index
        taught += row["taught"]
    return len(rows) if taught == learnt else 0


def _segment(experiment: Experiment, sample: Sample, session: Any) -> dict[str, Any]:
    watched = _Watched(session)
    clicker = make_clicker(
        experiment.protocol, sample.mask, seed=experiment.seed, name=sample.name
    )
    run = record_object(
        watched, sample, clicker, experiment.clicks, stop_at=experiment.target
    )
    count = int(clicks_to_reach(np.array([run.ious]), experiment.target)[0])
    return {
        "name": sample.name,
        "clicks": count,
        "iou_1": round(run.ious[0], 4),
        "iou_last": round(run.ious[-1], 4),
        "click_ms": [round(value, 1) for value in run.click_ms],
        "respected": [watched.respected, watched.asked],
        "taught": any(click.positive for click in run.clicks),
    }


class _Watched:
    """A session that also counts how many clicked pixels have the clicked label afterwards."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._clicks: list[tuple[int, int, bool]] = []
        self.respected = self.asked = 0

    def add_click(self, x: float, y: float, positive: bool = True) -> Any:
        """See `SessionLike`."""
        prediction = self._session.add_click(x, y, positive)
        self._clicks.append((round(y), round(x), positive))
        mask = prediction.mask
        self.asked += len(self._clicks)
        self.respected += sum(bool(mask[y, x]) == label for y, x, label in self._clicks)
        return prediction


class FixedSequence:
    """A model that learns nothing, behind the same interface."""

    def __init__(self, open_session: Callable[[np.ndarray], Any]) -> None:
        self._open, self.images = open_session, 0

    @contextmanager
    def image(self, image: np.ndarray) -> Iterator[Any]:
        """A session on the next image."""
        yield self._open(image)
        self.images += 1

