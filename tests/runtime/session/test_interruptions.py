"""An exception at any line of a call: the session is as before it or as after it, and answers.

Out of memory and Ctrl-C come at any moment. A trace function raises one at every line of the
package that a call runs through, one line a try. Left out are the moments at which the interpreter
itself raises none: a `with` that is being left, whose lock would stay taken, and the hand-over of
a job between two statements of the background thread, where no signal arrives.
"""

from __future__ import annotations

import ast
import functools
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np
import pytest

import trtseg
from trtseg import Box, Click, EngineError, Segmenter, Stroke
from trtseg.runtime.encoded import EncodedImage
from trtseg.runtime.session import Session

PACKAGE = str(Path(trtseg.__file__).parent)
Line = tuple[str, int]
ERRORS = MemoryError, KeyboardInterrupt  # in turn; with TRTSEG_INJECT_OTHERS=1 the other way round
OFFSET = int(os.environ.get("TRTSEG_INJECT_OTHERS", "0"))


@functools.cache
def with_lines(path: str) -> frozenset[int]:
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    return frozenset(node.lineno for node in ast.walk(tree) if isinstance(node, ast.With))


class Tracer:
    """Notes the lines that are run, and raises at one of them."""

    def __init__(self, at: Line | None = None, error: type[BaseException] = MemoryError) -> None:
        self.seen: dict[Line, None] = {}
        self.raised = False
        self._at, self._error = at, error

    def __call__(self, frame: FrameType, event: str, argument: object) -> Callable | None:
        path = frame.f_code.co_filename
        if not path.startswith(PACKAGE):
            return None
        if threading.current_thread().name == "trtseg-session" and path.endswith("background.py"):
            return None
        inside: set[int] = set()  # lines of `with` that this frame has entered

        def trace(frame: FrameType, event: str, argument: object) -> Callable:
            if event == "line":
                number = frame.f_lineno
                if number in inside:
                    inside.remove(number)
                else:
                    if number in with_lines(path):
                        inside.add(number)
                    self._visit((path, number))
            return trace

        return trace

    def _visit(self, line: Line) -> None:
        self.seen[line] = None
        if line == self._at and not self.raised:
            self.raised = True
            raise self._error("injected")

    def run(self, call: Callable[[], object]) -> None:
        threading.settrace(self)
        sys.settrace(self)
        try:
            call()
        except (MemoryError, KeyboardInterrupt, EngineError):  # an engine's is told as such
            assert self.raised
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]


CALLS: dict[str, Callable[[Session], object]] = {
    "add_click": lambda s: s.add_click(5, 5, False),
    "add_click with a buffer": lambda s: s.add_click(
        5, 5, False, out=np.empty(s.encoded.image_size, np.uint8)
    ),
    "add": lambda s: s.add(Box(2, 3, 60, 50), Stroke([(5, 5), (30, 9)], False)),
    "remove": lambda s: s.remove(0),
    "move": lambda s: s.move(0, 50, 20),
    "undo": lambda s: s.undo(),
    "redo": lambda s: s.redo(),
    "select": lambda s: s.select(1),
    "set_mask": lambda s: s.set_mask(np.ones(s.encoded.image_size, bool)),
    "reset": lambda s: s.reset(),
    "submit_click": lambda s: s.submit_click(5, 5, False).result(20),
    "preview": lambda s: s.preview(Click(5, 5, False)),
}


@pytest.fixture(scope="module")
def own_segmenter(tiny_path: Path) -> Segmenter:
    return Segmenter.load(tiny_path, backend="onnxruntime", threads=1)


@pytest.fixture(scope="module")
def encoded(own_segmenter: Segmenter) -> EncodedImage:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    image[20:40, 30:50] = 200, 30, 30
    return own_segmenter.encode(image)


def begin(segmenter: Segmenter, encoded: EncodedImage) -> Session:
    session = segmenter.session(encoded)
    session.add_click(40, 30)
    session.add_click(20, 50, False)
    session.undo()
    return session


def again(template: Session, segmenter: Segmenter, encoded: EncodedImage) -> Session:
    """A session in the state of another one: a state is a value, which nothing may change."""
    session = segmenter.session(encoded)
    session._state = template._state
    return session


def facts(session: Session) -> tuple:
    """All that a session shows; asserts that it agrees with itself."""
    p = session.prediction
    assert p.clicks == session.clicks
    return session.clicks, session.can_undo, session.can_redo, p.selected, p.mask.tobytes()


def lost_lanes(segmenter: Segmenter) -> set[object]:
    lanes = segmenter.pipeline.lanes
    return set(lanes._lent) - set(lanes._idle)


@pytest.mark.parametrize("name", CALLS)
def test_a_session_survives_an_exception_at_any_line(
    own_segmenter: Segmenter, encoded: EncodedImage, name: str
) -> None:
    call = CALLS[name]
    template = begin(own_segmenter, encoded)
    session = again(template, own_segmenter, encoded)
    before, follow_up = facts(session), {}
    plan = Tracer()
    plan.run(lambda: call(session))
    session.wait()
    after = facts(session)
    for state in (before, after):
        fresh = again(template, own_segmenter, encoded)
        if state is after:
            call(fresh)
        follow_up[state] = facts_after_click(fresh)
    assert len(plan.seen) > 10
    for index, line in enumerate(plan.seen):
        error = ERRORS[(index + OFFSET) % 2]
        session = again(template, own_segmenter, encoded)
        tracer = Tracer(line, error)
        tracer.run(lambda session=session: call(session))
        session.wait()
        where = f"{Path(line[0]).name}:{line[1]}"
        assert not lost_lanes(own_segmenter), f"a lane is lost at {where}"
        now = facts(session)
        assert now in follow_up, f"neither as before nor as after: {where}"
        assert facts_after_click(session) == follow_up[now], where


def facts_after_click(session: Session) -> tuple:
    """What a further click gives, in the background: a lock that stayed taken would stop it."""
    session.submit_click(70, 50, False).result(20)
    return facts(session)
