from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from time import sleep

import numpy as np
import pytest

from trtseg.errors import EngineError
from trtseg.runtime.session.outlines import from_rle
from trtseg.serve import folder as folder_module
from trtseg.serve.folder import Folder
from trtseg.serve.limits import Limits
from trtseg.serve.prompts import MaskPrompt, SelectPrompt, from_json, to_json
from trtseg.serve.refusals import Busy, NotAnImage, NotFound, NotStored, TooLarge
from trtseg.serve.turns import Turns
from trtseg.serve.workspace import Workspace
from trtseg.types import Box, Click, Lasso, Stroke

from .conftest import picture, png

PROMPTS = (
    Click(80, 60),
    Click(10, 10, False),
    Box(20, 20, 120, 100),
    Stroke(((30, 30), (60, 50), (90, 50)), True, 6),
    Lasso(((30, 30), (90, 35), (85, 90), (35, 80))),
    SelectPrompt(1),
)


def begin(workspace: Workspace, seed: int = 0) -> tuple[str, str]:
    photo = workspace.add_photo(png(picture(seed)), f"photo{seed}.png")
    return photo.id, workspace.add_object(photo.id).id


def restarted(workspace: Workspace) -> Workspace:
    return Workspace(workspace.segmenter, Folder(workspace.folder.path), workspace.limits)


def test_a_click_gives_the_session_s_own_mask(workspace: Workspace) -> None:
    photo, one = begin(workspace)
    answer = workspace.prompt(photo, one, Click(80, 60))
    session = workspace.segmenter.session(workspace.segmenter.encode(picture()))
    np.testing.assert_array_equal(answer.prediction.mask, session.add_click(80, 60).mask)


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: type(prompt).__name__)
def test_prompts_survive_json(prompt: object) -> None:
    assert from_json(json.loads(json.dumps(to_json(prompt)))) == prompt


def test_undo_and_redo_are_exact_and_survive_a_restart(workspace: Workspace) -> None:
    photo, one = begin(workspace)
    masks = [workspace.answer(photo, one).prediction.mask]
    masks += [workspace.prompt(photo, one, prompt).prediction.mask for prompt in PROMPTS]
    for after in reversed(masks[:-1]):
        np.testing.assert_array_equal(workspace.undo(photo, one).prediction.mask, after)
    for place in (workspace, restarted(workspace)):
        for after in masks[1:]:
            np.testing.assert_array_equal(place.redo(photo, one).prediction.mask, after)
        np.testing.assert_array_equal(
            restarted(workspace).answer(photo, one).prediction.mask, masks[-1]
        )
        assert not place.reset(photo, one).prediction.mask.any()
    with pytest.raises(ValueError, match="nothing to undo"):
        workspace.undo(photo, one)


def test_a_prompt_after_undo_drops_what_was_undone(workspace: Workspace) -> None:
    photo, one = begin(workspace)
    workspace.prompt(photo, one, PROMPTS[0])
    workspace.undo(photo, one)
    workspace.prompt(photo, one, PROMPTS[1])
    assert workspace.photo(photo).object(one).prompts == (PROMPTS[1],)
    with pytest.raises(ValueError, match="nothing to redo"):
        workspace.redo(photo, one)


def test_a_preview_changes_nothing(workspace: Workspace) -> None:
    photo, one = begin(workspace)
    before = workspace.prompt(photo, one, PROMPTS[0]).prediction.mask
    after = workspace.prompt(photo, one, PROMPTS[1]).prediction.mask
    workspace.undo(photo, one)
    shown = workspace.preview(photo, one, PROMPTS[1].x, PROMPTS[1].y, False)
    assert shown is not None
    np.testing.assert_array_equal(shown.mask, after)
    np.testing.assert_array_equal(workspace.answer(photo, one).prediction.mask, before)
    np.testing.assert_array_equal(workspace.redo(photo, one).prediction.mask, after)


def test_a_bad_prompt_leaves_the_object_as_it_was(workspace: Workspace) -> None:
    photo, one = begin(workspace)
    before = workspace.prompt(photo, one, PROMPTS[0])
    for bad in (Click(500, 5), SelectPrompt(9), MaskPrompt((3, 3), "9")):
        with pytest.raises(ValueError, match="expected"):
            workspace.prompt(photo, one, bad)
    after = workspace.answer(photo, one)
    assert after.record == before.record
    np.testing.assert_array_equal(after.prediction.mask, before.prediction.mask)


def test_a_prompt_that_fails_leaves_everything(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, one = begin(workspace)
    before = workspace.prompt(photo, one, PROMPTS[0])

    def failing(*args: object, **kwargs: object) -> object:
        raise EngineError("the networks fail")

    with monkeypatch.context() as patched:
        patched.setattr(workspace.segmenter.pipeline, "click", failing)
        with pytest.raises(EngineError):
            workspace.prompt(photo, one, PROMPTS[2])
    after = workspace.answer(photo, one)
    assert after.record == before.record
    np.testing.assert_array_equal(after.prediction.mask, before.prediction.mask)


def test_a_full_disk_changes_nothing(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    photo, one = begin(workspace)
    before = workspace.prompt(photo, one, PROMPTS[0])

    def full(*args: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        for attempt in (
            lambda: workspace.prompt(photo, one, PROMPTS[1]),
            lambda: workspace.undo(photo, one),
            lambda: workspace.add_object(photo),
            lambda: workspace.add_photo(png(picture(7)), "other"),
        ):
            with pytest.raises((NotStored, OSError), match="No space left"):
                attempt()
    after = workspace.answer(photo, one)
    assert after.record == before.record
    np.testing.assert_array_equal(after.prediction.mask, before.prediction.mask)
    assert [found.id for found in workspace.photos()] == [photo]


def test_sessions_leave_the_memory_and_come_back(segmenter, folder: Folder) -> None:
    plan = segmenter.memory_plan(120, 160)
    limits = replace(Limits(), memory_bytes=Workspace._wanted(plan))
    workspace = Workspace(segmenter, folder, limits)
    made = [begin(workspace, seed) for seed in range(8)]
    masks = [
        workspace.prompt(photo, one, Click(10 + 15 * index, 60)).prediction.mask
        for index, (photo, one) in enumerate(made)
    ]
    assert workspace.memory_bytes() <= limits.memory_bytes
    assert len(workspace._live) < len(made)
    for (photo, one), mask in zip(made, masks, strict=True):
        np.testing.assert_array_equal(workspace.answer(photo, one).prediction.mask, mask)


def test_the_least_recently_used_photo_is_forgotten(segmenter, folder: Folder) -> None:
    workspace = Workspace(segmenter, folder, replace(Limits(), photos=2))
    first, _ = begin(workspace, 0)
    second, _ = begin(workspace, 1)
    workspace.add_object(first)
    third, _ = begin(workspace, 2)
    assert [photo.id for photo in workspace.photos()] == [third, first]
    with pytest.raises(NotFound):
        workspace.photo(second)


def test_the_same_file_is_the_same_photo(workspace: Workspace) -> None:
    photo, one = begin(workspace)
    again = workspace.add_photo(png(picture()), "another name")
    assert again.id == photo
    assert [found.id for found in again.objects] == [one]


def test_a_removed_photo_is_gone(workspace: Workspace) -> None:
    photo, one = begin(workspace)
    workspace.answer(photo, one)
    workspace.remove_photo(photo)
    for ask in (workspace.photo, workspace.picture, workspace.remove_photo):
        with pytest.raises(NotFound):
            ask(photo)
    assert not (workspace.folder.path / photo).exists()


@pytest.mark.parametrize("key", ["", ".", "..", "../x", "a" * 32 + "/..", "A" * 32, "%2e%2e", "\0"])
def test_no_id_leads_out_of_the_folder(workspace: Workspace, key: str) -> None:
    for ask in (workspace.photo, workspace.picture, workspace.remove_photo):
        with pytest.raises(NotFound):
            ask(key)
    for ask in (workspace.folder.remove, workspace.folder.file, workspace.folder.thumbnail):
        with pytest.raises(NotFound):
            ask(key)


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, b"BM" * 40])
def test_what_is_no_image_is_refused(workspace: Workspace, data: bytes) -> None:
    with pytest.raises((NotAnImage, TooLarge)):  # the head of some promises too much
        workspace.add_photo(data, "x.png")
    assert list(workspace.folder.path.iterdir()) == []


def test_too_large_photos_are_refused_before_they_are_decoded(segmenter, folder: Folder) -> None:
    data = png(np.zeros((200, 300), np.uint8))
    for limits in (
        replace(Limits(), pixels=59_999),
        replace(Limits(), upload_bytes=len(data) - 1),
        replace(Limits(), memory_bytes=100_000),
    ):
        with pytest.raises(TooLarge):
            Workspace(segmenter, folder, limits).add_photo(data, "x.png")
    bomb = bytearray(data)
    bomb[16:24] = (30_000).to_bytes(4, "big") * 2  # the head says 900 million pixels
    with pytest.raises((TooLarge, NotAnImage)):
        Workspace(segmenter, folder, Limits()).add_photo(bytes(bomb), "bomb.png")


def test_limits_of_objects_prompts_and_points(segmenter, folder: Folder) -> None:
    workspace = Workspace(segmenter, folder, replace(Limits(), objects=1, prompts=1, points=3))
    photo, one = begin(workspace)
    with pytest.raises(TooLarge, match="at most 1 objects"):
        workspace.add_object(photo)
    with pytest.raises(TooLarge, match="at most 3 points"):
        workspace.prompt(photo, one, Stroke(((1, 1),) * 4))
    workspace.prompt(photo, one, PROMPTS[0])
    with pytest.raises(TooLarge, match="at most 1 prompts"):
        workspace.prompt(photo, one, PROMPTS[1])


def test_a_damaged_record_is_told_and_hides_no_other(workspace: Workspace) -> None:
    photo, _ = begin(workspace)
    other, _ = begin(workspace, 1)
    (workspace.folder.path / photo / "record.json").write_text('{"format": 1, "id": ')
    again = restarted(workspace)
    assert [found.id for found in again.photos()] == [other]
    with pytest.raises(ValueError, match="not JSON"):
        again.photo(photo)


@pytest.mark.parametrize(
    "content",
    ['{"format": 1, "id": ', '{"format": 99}', '{"format": 1, "objects": [{"prompts": [{}]}]}'],
)
def test_a_photo_with_a_damaged_record_begins_anew(
    workspace: Workspace, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    photo, _ = begin(workspace)
    place = workspace.folder.path / photo
    (place / "record.json").write_text(content)
    again = restarted(workspace)
    assert again.add_photo(png(picture()), "again.png").objects == ()
    assert [found.name for found in again.photos()] == ["again.png"]
    (aside,) = place.glob("record.json.*")
    assert aside.read_text() == content
    (told,) = caplog.records
    assert told.levelname == "WARNING"
    assert aside.name in told.getMessage()
    assert again.add_photo(png(picture()), "again.png").id == photo
    assert list(place.glob("record.json.*")) == [aside]


def test_a_damaged_record_outlives_a_full_disk_and_a_sweep(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, _ = begin(workspace)
    place = workspace.folder.path / photo
    (place / "record.json").write_text("{")
    again = restarted(workspace)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with again.folder.held():
        assert (place / "record.json").read_text() == "{"
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "write_atomically", full)
        with pytest.raises(NotStored, match="No space left"):
            again.add_photo(png(picture()), "again.png")
    with again.folder.held():
        assert [path.read_text() for path in place.glob("record.json*")] == ["{"]
    assert again.add_photo(png(picture()), "again.png").id == photo


def test_a_photo_with_a_damaged_record_can_be_removed(workspace: Workspace) -> None:
    photo, _ = begin(workspace)
    (workspace.folder.path / photo / "record.json").write_text("{")
    again = restarted(workspace)
    again.remove_photo(photo)
    assert not (workspace.folder.path / photo).exists()
    with pytest.raises(NotFound):
        again.remove_photo(photo)


def test_what_a_crash_left_of_an_upload_is_swept(workspace: Workspace) -> None:
    half = workspace.folder.path / ("0" * 32)
    half.mkdir()
    for name in ("photo", ".thumbnail.jpg.0123456789abcdef.tmp"):
        (half / name).write_bytes(b"half")
    incoming = workspace.folder.path / ".incoming-0123456789abcdef"
    incoming.write_bytes(b"half")
    with workspace.folder.held():
        assert not half.exists()
        assert not incoming.exists()


def test_what_is_somebody_else_s_is_not_swept(workspace: Workspace) -> None:
    place = workspace.folder.path
    kept = [
        place / ("0" * 32) / "photo" / "mine.jpg", place / ("1" * 32) / "mine.bin",
        place / ("2" * 32) / "record.json.bak", place / ("3" * 32), place / ".incoming-mine",
        place / ".incoming-0123456789abcdef" / "mine",
    ]  # fmt: skip
    for path in kept:
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"mine")
    with workspace.folder.held():
        assert all(path.read_bytes() == b"mine" for path in kept)


def test_two_servers_do_not_share_a_folder(workspace: Workspace) -> None:
    other = Folder(workspace.folder.path)
    with workspace.folder.held(), pytest.raises(BlockingIOError, match="another"), other.held():
        pass


def test_a_mask_is_continued_from(workspace: Workspace) -> None:
    photo, one = begin(workspace)
    mask = np.zeros((120, 160), np.uint8)
    mask[30:80, 40:100] = 1
    from trtseg.runtime.session.outlines import rle

    text = rle(mask)["counts"]
    np.testing.assert_array_equal(from_rle((120, 160), text), mask)
    answer = workspace.prompt(photo, one, MaskPrompt((120, 160), text))
    np.testing.assert_array_equal(answer.prediction.mask > 0, mask > 0)


@pytest.mark.parametrize("text", ["", "~", "\x7f", "0", "o", "ooooooooooooooooooo", "P" * 100, "é"])
def test_what_are_no_runs_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="counts: expected"):
        from_rle((5, 7), text)


def test_answers_come_in_order_and_previews_only_between() -> None:
    turns, order = Turns(5), []
    with turns.answer():
        with turns.preview() as mine:
            assert not mine

        def wait(name: int) -> None:
            with turns.answer():
                order.append(name)

        threads = [threading.Thread(target=wait, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
            sleep(0.02)
        with turns.preview() as mine:
            assert not mine
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3]
    with turns.preview() as mine:
        assert mine


def test_who_waits_too_long_is_told() -> None:
    turns = Turns(0.05)
    with turns.answer():
        told = []

        def wait() -> None:
            with pytest.raises(Busy), turns.answer():
                pass
            told.append(True)

        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
    assert told == [True]
    with turns.answer():
        pass


def test_threads_on_many_photos_do_not_mix(segmenter, folder: Folder) -> None:
    plan = segmenter.memory_plan(120, 160)
    limits = replace(Limits(), memory_bytes=Workspace._wanted(plan))
    workspace = Workspace(segmenter, folder, limits)
    made = [begin(workspace, seed) for seed in range(4)]
    failures: list[BaseException] = []

    def work(index: int) -> None:
        photo, one = made[index % 4]
        if index >= 4:
            one = workspace.add_object(photo).id
        try:
            for step in range(5):
                workspace.prompt(photo, one, Click(10 + 15 * index, 20 + 15 * step))
                workspace.preview(photo, one, 5, 5, False)
            workspace.undo(photo, one)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for index in range(8):
        photo, _ = made[index % 4]
        session = segmenter.session(segmenter.encode(picture(index % 4)))
        for step in range(4):
            wanted = session.add_click(10 + 15 * index, 20 + 15 * step).mask
        found = [
            workspace.answer(photo, one.id).prediction.mask
            for one in workspace.photo(photo).objects
            if one.said[0].x == 10 + 15 * index
        ]
        np.testing.assert_array_equal(found, [wanted])
