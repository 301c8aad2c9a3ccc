from __future__ import annotations

import numpy as np
import pytest

from trtseg import Segmenter
from trtseg.runtime.onnxruntime import OnnxEngine
from trtseg.runtime.onnxruntime.symbolic_shapes import resolve

IMAGE = {"image": [1, 3, "h", "w"]}


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ([1, 6, "h", "w"], (1, 6, 288, 384)),
        ([1, "(((h - 1)//4)) + 1", "w//32"], (1, 72, 12)),
        (["((((((w - 1)//2)) - 1)//2)) + 1", "h*2 - 1"], (96, 575)),
        ([], ()),
        ([None, 3], None),
        (["unk__1"], None),
        (["h//0"], None),
        (["h - 400"], None),
        (["__import__('os')"], None),
        (["h.real"], None),
        (["h**2"], None),
        (["h +"], None),
        (["(" * 500 + "h" + ")" * 500], None),
    ],
)
def test_sides_are_evaluated(sides: list, expected: tuple | None) -> None:
    found = resolve(IMAGE, {"out": sides}, {"image": (1, 3, 288, 384)})
    assert found == (None if expected is None else {"out": expected})


def test_inputs_that_contradict_each_other_tell_nothing() -> None:
    inputs = {"a": ["n"], "b": ["n"]}
    assert resolve(inputs, {"out": ["n"]}, {"a": (3,), "b": (3,)}) == {"out": (3,)}
    assert resolve(inputs, {"out": ["n"]}, {"a": (3,), "b": (4,)}) is None
    assert resolve(inputs, {"out": ["n"]}, {"a": (3,), "b": (3, 1)}) is None


def test_a_size_costs_no_trial_run(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first click at a size would otherwise take twice as long as the next."""
    engine = segmenter.engines.segment
    assert isinstance(engine, OnnxEngine)

    class NoRuns:
        def __getattr__(self, name: str) -> object:
            assert name != "run"
            return getattr(session, name)

    shape = {"x": (1, 8, 20, 44)}
    ran = engine._session.run(None, {"x": np.zeros(shape["x"], np.float32)})
    session = engine._session
    monkeypatch.setattr(engine, "_session", NoRuns())
    shapes = engine.output_shapes(shape)
    names = [spec.name for spec in engine.outputs]
    assert shapes == {name: result.shape for name, result in zip(names, ran, strict=True)}
