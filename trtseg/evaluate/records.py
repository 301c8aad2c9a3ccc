"""Where results live: one small file per object, each whole or absent.

A run directory holds

    run.json                    what was asked, of which model, on which machine
    objects/DATA/000012.json    one object; the number is its index in the data set

so that a run continues after any interruption.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from trtseg.atomic import write_atomically
from trtseg.errors import DatasetError
from trtseg.evaluate.protocol import ObjectRun

FORMAT = 1
# after these clicks, and after the last one, the mask is kept for the report
KEPT_MASKS = (1, 2, 5)


@dataclass
class ObjectRecord:
    """The outcome on one object.

    Attributes:
        data: name of the data set in this run.
        index: position in it.
        name: of the object.
        ious: IoU after 1..K clicks.
        best_ious: of the best candidate; empty where there is only one.
        clicks: (x, y, positive).
        click_ms: per click.
        obeyed: see `ObjectRun`; empty in results that are older than it.
        encode_ms: of the object's image; shared by its objects. None where encoding is not
            measured apart from the rest.
        other_ms: everything else: reading, the simulated user, metrics.
        masks: number of clicks to a PNG in base64, see `decode_mask`.
    """

    data: str
    index: int
    name: str
    ious: list[float]
    best_ious: list[float] = field(default_factory=list)
    clicks: list[tuple[float, float, bool]] = field(default_factory=list)
    click_ms: list[float] = field(default_factory=list)
    obeyed: list[int] = field(default_factory=list)
    encode_ms: float | None = None
    other_ms: float = 0.0
    masks: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_run(cls, data: str, index: int, name: str, run: ObjectRun) -> ObjectRecord:
        """The record of a run whose masks were kept."""
        shown = {count for count in (*KEPT_MASKS, len(run.masks)) if 0 < count <= len(run.masks)}
        return cls(
            data,
            index,
            name,
            ious=[round(value, 6) for value in run.ious],
            best_ious=[round(value, 6) for value in run.best_ious],
            clicks=[(click.x, click.y, click.positive) for click in run.clicks],
            click_ms=[round(value, 3) for value in run.click_ms],
            obeyed=run.obeyed,
            masks={str(count): encode_mask(run.masks[count - 1]) for count in sorted(shown)},
        )


def encode_mask(mask: np.ndarray) -> str:
    """A bool mask [H, W] as a PNG of one bit per pixel, in base64."""
    parameters = [cv2.IMWRITE_PNG_BILEVEL, 1, cv2.IMWRITE_PNG_COMPRESSION, 9]
    _, data = cv2.imencode(".png", mask.astype(np.uint8) * 255, parameters)
    return base64.b64encode(data.tobytes()).decode("ascii")


def decode_mask(text: str) -> np.ndarray:
    """The inverse of `encode_mask`: bool [H, W]."""
    data = np.frombuffer(base64.b64decode(text), np.uint8)
    mask = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    assert mask is not None
    return np.asarray(mask > 0)


class RunDirectory:
    """The files of one evaluation; see the module's docstring."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def header_path(self) -> Path:
        return self.path / "run.json"

    def start(self, header: dict[str, Any], *, replace: bool = False) -> None:
        """Begin, or continue a run of the same configuration.

        Args:
            header: see `runner.make_header`; must fit the results that are already here.
            replace: delete the run that is here, whatever it is, and begin.

        Raises:
            ValueError: the directory holds a run of another configuration or model.
        """
        if self.header_path.exists():
            if not replace:
                if differing := differences(self.header(), header):
                    raise ValueError(
                        f"{self.path}: holds another evaluation ({differing}); "
                        "choose another --output, or --force to replace it"
                    )
                return
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.header_path, {**header, "format": FORMAT})

    def header(self) -> dict[str, Any]:
        """The content of run.json.

        Raises:
            DatasetError: there is none, or it is of another format.
        """
        header = read_json(self.header_path)
        if header.get("format") != FORMAT:
            raise DatasetError(f"{self.header_path}: format {header.get('format')}, not {FORMAT}")
        return header

    def _file(self, data: str, index: int) -> Path:
        return self.path / "objects" / data / f"{index:06d}.json"

    def files(self) -> list[Path]:
        """The files of all results, of all data sets."""
        return sorted((self.path / "objects").glob("*/[0-9]*.json"))

    def done(self, data: str) -> set[int]:
        """Indices of the objects that have a result."""
        return {int(path.stem) for path in (self.path / "objects" / data).glob("[0-9]*.json")}

    def write(self, record: ObjectRecord) -> None:
        """Store one object's result, atomically.

        Raises:
            OSError: it could not be written; nothing was changed.
        """
        path = self._file(record.data, record.index)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(record))

    def records(self, data: str) -> Iterator[ObjectRecord]:
        """All results of a data set, by index.

        Raises:
            DatasetError: a file is not a result.
        """
        for index in sorted(self.done(data)):
            yield read_record(self._file(data, index))

    def forget(self, data: str) -> None:
        """Delete the results of a data set."""
        for index in self.done(data):
            self._file(data, index).unlink()


def differences(there: dict[str, Any], asked: dict[str, Any]) -> str:
    """In what two headers differ; empty for the same evaluation of the same method.

    Data sets are compared by their objects' names, since each machine has its own paths.
    """
    differing = []
    for part in ("config", "method", "data"):
        before, now = there.get(part, {}), asked.get(part, {})
        differing += [
            f"{key}: {before.get(key)!r} there, {now.get(key)!r} asked"
            for key in sorted({*before, *now})
            if before.get(key) != now.get(key) and (part, key) not in _IRRELEVANT
        ]
    return "; ".join(differing)


# paths differ between machines; a model is compared by its fingerprint
_IRRELEVANT = {("config", "data"), ("config", "model"), ("method", "name")}


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    write_file(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def write_file(path: Path, data: bytes) -> None:
    """Write a file atomically, readable as the umask says."""
    write_atomically(path, data, mode=0o666)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DatasetError: missing, or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise DatasetError(f"{path}: no such file") from None
    except ValueError as error:
        raise DatasetError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: expected a JSON object")
    return content


def read_record(path: Path) -> ObjectRecord:
    """Read one object's result.

    Raises:
        DatasetError: it is missing or no result.
    """
    try:
        return ObjectRecord(**read_json(path))
    except TypeError as error:
        raise DatasetError(f"{path}: not a result ({error})") from None
