"""Sessions as files: the same mask, bit for bit, or one error."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import write_tiny

from runtime.session.test_prompts import PROMPTS
from runtime.session.test_session import Recorder, same
from trtseg import Click, Segmenter
from trtseg.runtime.session import Session


def used(segmenter: Segmenter, photo: np.ndarray, **options: Any) -> Session:
    session = segmenter.session(segmenter.encode(photo, region=(0, 0, 150, 120)), **options)
    session.add_click(9, 9)
    mask = np.zeros((120, 160), bool)
    mask[30:70, 50:100] = True
    session.set_mask(mask)
    session.add(*PROMPTS[:2])
    session.select(2)
    for prompt in PROMPTS[2:]:
        session.add(prompt)
    return session


@pytest.mark.parametrize(("focus", "local"), [("auto", True), (None, False)])
def test_a_saved_session_opens_to_the_same_mask(
    segmenter: Segmenter, photo: np.ndarray, tmp_path: Path, focus: str | None, local: bool
) -> None:
    session = used(segmenter, photo, focus=focus, local=local)
    path = tmp_path / "one.json"
    session.save(path)
    assert [each.name for each in tmp_path.iterdir()] == ["one.json"]
    opened = segmenter.open(path, photo[..., ::-1], "BGR")
    same(opened.prediction, session.prediction)
    same(segmenter.open(path, session.encoded).prediction, session.prediction)
    again = tmp_path / "two.json"
    opened.save(again)
    assert again.read_bytes() == path.read_bytes()
    while opened.can_undo:
        same(opened.undo(), session.undo())
    assert not session.can_undo
    opened.redo()
    same(opened.add_click(20, 20), (session.redo(), session.add_click(20, 20))[1])


def test_what_was_changed_and_undone_is_not_kept(
    segmenter: Segmenter, photo: np.ndarray, tmp_path: Path
) -> None:
    session = segmenter.session(segmenter.encode(photo))
    session.save(tmp_path / "empty.json")
    same(segmenter.open(str(tmp_path / "empty.json"), photo).prediction, session.prediction)
    session.add(*PROMPTS[:3])
    session.remove(1)
    session.move(0, 70, 50)
    session.add_click(3, 3)
    session.undo()
    session.save(tmp_path / "one.json")
    opened = segmenter.open(tmp_path / "one.json", photo)
    same(opened.prediction, session.prediction)
    assert opened.prompts == (Click(70, 50), PROMPTS[2])
    assert len(json.loads((tmp_path / "one.json").read_text())["events"]) == 1


def test_an_adapter_is_asked_for_where_there_was_one(
    segmenter: Segmenter, photo: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "one.json"
    session = used(segmenter, photo, adapt=Recorder())
    session.save(path)
    with pytest.raises(ValueError, match="adapt: expected an adapter"):
        segmenter.open(path, photo)
    adapter = Recorder()
    same(segmenter.open(path, photo, adapt=adapter).prediction, session.prediction)
    assert [weights for weights, _ in adapter.seen] == list(range(6))
    used(segmenter, photo).save(path)
    with pytest.raises(ValueError, match="adapt: expected None"):
        segmenter.open(path, photo, adapt=Recorder())


def test_another_image_or_model_is_refused(
    segmenter: Segmenter, photo: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "one.json"
    used(segmenter, photo).save(path)
    other = photo.copy()
    other[0, 0, 0] ^= 1
    with pytest.raises(ValueError, match="image: expected the one that the session was saved on"):
        segmenter.open(path, other)
    with pytest.raises(ValueError, match="image: expected size"):
        segmenter.open(path, photo[1:])
    with pytest.raises(ValueError, match="image: expected the one"):
        segmenter.open(path, photo.astype(np.uint16))
    with pytest.raises(TypeError, match="image: expected"):
        segmenter.open(path, "photo")  # type: ignore[arg-type]
    another = Segmenter.load(write_tiny(tmp_path / "other", seed=5), threads=1)
    with pytest.raises(ValueError, match="expected a session of this model"):
        another.open(path, photo)
    encoded = segmenter.encode(photo)
    object.__setattr__(encoded, "source", None)
    with pytest.raises(ValueError, match="with its image"):
        segmenter.session(encoded).save(path)
    with pytest.raises(ValueError, match="with its image"):
        segmenter.open(path, encoded)


def test_a_file_that_cannot_be_written_or_read(
    segmenter: Segmenter, photo: np.ndarray, tmp_path: Path
) -> None:
    session = segmenter.session(segmenter.encode(photo))
    with pytest.raises(OSError, match="nowhere"):
        session.save(tmp_path / "nowhere" / "one.json")
    with pytest.raises(OSError, match="none"):
        segmenter.open(tmp_path / "none.json", photo)


DELETE = object()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("format",), "other"),
        (("version",), 2),
        (("version",), "x" * 10**6),
        (("model",), DELETE),
        (("model",), 7),
        (("more",), 1),
        (("image",), []),
        (("image", "height"), 1.5),
        (("region",), [0, 0, 120]),
        (("region",), [0, 0, 500, 150]),
        (("region",), [-1, 0, 120, 150]),
        (("region",), [0, 0, 10**400, 150]),
        (("options", "local"), 1),
        (("events",), {}),
        (("events", 0), {}),
        (("events", 0), {"select": 1, "add": []}),
        (("events", 0), {"add": []}),
        (("events", 0), {"add": [{}]}),
        (("events", 0), {"select": 0}),
        (("events", 3), {"select": 99}),
        (("events", 3), {"select": True}),
        (("events", 0, "add", 0), {"point": {"x": 1, "y": 1}}),
        (("events", 0, "add", 0, "click", "x"), 1e9),
        (("events", 0, "add", 0, "click", "x"), float("nan")),
        (("events", 0, "add", 0, "click", "x"), "7"),
        (("events", 2, "add", 1, "stroke", "points"), []),
        (("events", 2, "add", 1, "stroke", "points"), [[1, 2, 3]]),
        (("events", 2, "add", 1, "stroke", "radius_px"), -1),
        (("events", 1, "set_mask", "size"), [10**9, 10**9]),
        (("events", 1, "set_mask", "counts"), "0"),
        (("events", 1, "set_mask", "counts"), "\x00"),
        (("events", 1, "set_mask", "counts"), "o" * 100),
    ],
    ids=lambda value: "deleted" if value is DELETE else str(value)[:40],
)
def test_a_damaged_file_gives_one_error(
    segmenter: Segmenter, photo: np.ndarray, tmp_path: Path, place: tuple, value: object
) -> None:
    path = tmp_path / "one.json"
    used(segmenter, photo).save(path)
    document = json.loads(path.read_text())
    damaged = copy.deepcopy(document)
    *way, last = place
    inner = damaged
    for step in way:
        inner = inner[step]
    if value is DELETE:
        del inner[last]
    else:
        inner[last] = value
    path.write_text(json.dumps(damaged))
    with pytest.raises(ValueError, match=r".") as error:
        segmenter.open(path, photo)
    assert "\n" not in str(error.value)
    assert "one.json" in str(error.value)


@pytest.mark.parametrize("text", ["", "[" * 10**5, "null", "[]", "\xff", '{"format": []}'])
def test_a_file_of_another_kind_gives_one_error(
    segmenter: Segmenter, photo: np.ndarray, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "one.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"one\.json: "):
        segmenter.open(path, photo)
