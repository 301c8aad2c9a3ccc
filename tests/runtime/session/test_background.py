"""Clicks and previews on a session's own thread."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest

from runtime.session.test_session import CLICKS, same
from trtseg import Click, EngineError, Segmenter
from trtseg.runtime.session import Session


@pytest.fixture
def session(segmenter: Segmenter, photo: np.ndarray) -> Session:
    return segmenter.session(segmenter.encode(photo))


class Gate:
    """Holds every click inside the networks until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from trtseg.runtime.onnxruntime import OnnxBinding

        self.entered, self.open = threading.Semaphore(0), threading.Semaphore(0)
        run = OnnxBinding.run

        def gated(binding: OnnxBinding) -> None:
            if threading.current_thread().name == "trtseg-session" and "segment" in (
                binding._engine.name
            ):
                self.entered.release()
                assert self.open.acquire(timeout=20)
            run(binding)

        monkeypatch.setattr(OnnxBinding, "run", gated)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


def test_a_background_click_is_a_click(segmenter: Segmenter, session: Session) -> None:
    other = segmenter.session(session.encoded)
    for click in CLICKS:
        same(session.submit_click(*click).result(20), other.add_click(*click))
    assert session.clicks == other.clicks


def test_every_submitted_click_counts_in_order(
    segmenter: Segmenter, session: Session, gate: Gate
) -> None:
    clicks = [(80, 60), (20, 20, False), (90, 66), (40, 90, False)]
    futures = []
    for click in clicks:
        futures.append(session.submit_click(*click))
        time.sleep(0.01)
    gate.open.release(len(clicks))
    other = segmenter.session(session.encoded)
    for click, future in zip(clicks, futures, strict=True):
        same(future.result(20), other.add_click(*click))
    assert session.clicks == other.clicks == tuple(Click(*click) for click in clicks)
    for _ in clicks:
        same(session.undo(), other.undo())


def test_a_click_from_elsewhere_does_not_drop_those_in_the_background(
    session: Session, gate: Gate
) -> None:
    running = session.submit_click(80, 60)
    assert gate.entered.acquire(timeout=20)
    session.add_click(20, 20, False)
    gate.open.release(2)  # what had begun from the state before begins again
    assert running.result(20).clicks == (Click(20, 20, False), Click(80, 60))


def test_a_waiting_click_is_taken_back_alone(session: Session, gate: Gate) -> None:
    futures = [session.submit_click(x, 60) for x in (80, 85, 90)]
    assert gate.entered.acquire(timeout=20)
    assert futures[1].cancel()
    gate.open.release(2)
    session.wait()
    assert session.clicks == (Click(80, 60), Click(90, 60))


def test_a_preview_is_the_click_and_leaves_the_session(segmenter: Segmenter, photo) -> None:
    session, other = (segmenter.session(segmenter.encode(photo)) for _ in range(2))
    for click in CLICKS:
        before = session.prediction
        shown = session.preview(Click(*click))
        assert session.prediction is before
        out = np.empty(before.mask.shape, np.uint8)
        assert session.preview(Click(*click), out=out).mask is out
        later = session.submit_preview(Click(*click)).result(20)
        wanted = session.add_click(*click)
        for preview in (shown, later):
            same(preview, wanted)
            assert preview.changed == wanted.changed
        same(wanted, other.add_click(*click))
    assert session.preview(Click(9, 9, False)).clicks != session.clicks
    session.undo()


def test_of_waiting_previews_the_newest_is_made_after_the_clicks(
    session: Session, gate: Gate
) -> None:
    first = session.submit_click(80, 60)
    assert gate.entered.acquire(timeout=20)
    previews = [session.submit_preview(Click(x, 20, False)) for x in (20, 30, 40)]
    second = session.submit_click(90, 66)
    gate.open.release(3)
    assert [preview.cancelled() for preview in previews[:2]] == [True, True]
    assert previews[2].result(20).clicks == (*second.result(20).clicks, Click(40, 20, False))
    assert session.clicks == (Click(80, 60), Click(90, 66))
    assert first.done()


def test_a_preview_on_a_mask_that_is_gone_is_dropped(session: Session, gate: Gate) -> None:
    preview = session.submit_preview(Click(80, 60))
    assert gate.entered.acquire(timeout=20)
    session.add_click(20, 20)
    gate.open.release()
    with pytest.raises(CancelledError):
        preview.result(20)


def test_a_running_click_can_be_cancelled(session: Session, gate: Gate) -> None:
    before = session.prediction
    future = session.submit_click(80, 60)
    assert gate.entered.acquire(timeout=20)
    assert future.cancel()
    gate.open.release()
    with pytest.raises(CancelledError):
        future.result(20)
    gate.open.release()
    later = session.submit_click(90, 66).result(20)
    assert later.clicks == (Click(90, 66),)
    session.undo()
    same(session.prediction, before)


def test_a_finished_click_cannot_be_cancelled(session: Session) -> None:
    future = session.submit_click(80, 60)
    future.result(20)
    assert not future.cancel()
    assert session.clicks == (Click(80, 60),)


@pytest.mark.parametrize("change", ["undo", "reset", "select", "set_mask"])
def test_a_stale_result_is_never_delivered(session: Session, gate: Gate, change: str) -> None:
    session.add_click(80, 60)
    future = session.submit_click(20, 20)
    assert gate.entered.acquire(timeout=20)
    delivered: list[object] = []
    future.add_done_callback(lambda f: f.cancelled() or delivered.append(f))
    arguments = {"select": (1,), "set_mask": (np.ones((120, 160), bool),)}
    getattr(session, change)(*arguments.get(change, ()))
    clicks = session.clicks
    gate.open.release()
    with pytest.raises(CancelledError):
        future.result(20)
    assert delivered == []
    assert session.clicks == clicks


@pytest.mark.parametrize("change", ["undo", "reset", "select", "set_mask"])
def test_a_click_that_waits_is_dropped_by_a_change(
    session: Session, gate: Gate, change: str
) -> None:
    session.add_click(80, 60)
    running = session.submit_click(20, 20)
    assert gate.entered.acquire(timeout=20)
    waiting = session.submit_click(30, 30)
    locked = []
    for future in (running, waiting):
        future.add_done_callback(lambda f: locked.append(session._lock._is_owned()))
    arguments = {"select": (1,), "set_mask": (np.ones((120, 160), bool),)}
    getattr(session, change)(*arguments.get(change, ()))
    clicks = session.clicks
    gate.open.release(2)
    for future in (running, waiting):
        with pytest.raises(CancelledError):
            future.result(20)
    assert session.clicks == clicks
    assert locked == [False, False], "a callback may wait for another thread"


def test_a_worker_without_a_thread_recovers(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(EngineError, match="can't start"):
            session.submit_click(80, 60)
    assert session.submit_click(90, 66).result(20).clicks == (Click(90, 66),)
