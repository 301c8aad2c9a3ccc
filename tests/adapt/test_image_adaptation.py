"""Image adaptation in a session: what it changes, what it restores, what it survives."""

import gc
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from adapt.conftest import CLICKS, IMAGE, click_through, make_learner, write_adaptable
from trtseg.adapt import ClickAdapter, Learner, Learning
from trtseg.adapt.importance import importance_path, save_importance
from trtseg.runtime.segmenter import Segmenter
from trtseg.types import Click, Stroke


def _open(segmenter, learner, photo, **options):
    encoded = segmenter.encode(photo)
    options.setdefault("adapt", ClickAdapter(learner, lambda: learner.initial))
    return segmenter.session(encoded, focus=None, **options)


def _weights(session):
    return session._state.present.weights


def _frozen(learner):
    """All that must never change: theta*, the torch model, and the bundle's graph."""
    values = {**learner.initial.values, **learner.model.segment.state_dict()}
    return {name: value.clone() for name, value in values.items()}


def _same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def test_the_stored_weights_are_bit_identical_after_the_object_is_done(segmenter, learner, photo):
    before = _frozen(learner)
    plain = click_through(_open(segmenter, learner, photo, adapt=None))
    session = _open(segmenter, learner, photo)
    adapted = click_through(session)
    assert not _weights(session).same_values(learner.initial.values)
    assert any(not np.array_equal(a, b) for a, b in zip(plain, adapted, strict=True))
    assert _same(before, _frozen(learner))
    # the next object begins with the model's own weights, and goes the same way
    again = _open(segmenter, learner, photo)
    assert _weights(again).same_values(learner.initial.values)
    for first, second in zip(adapted, click_through(again), strict=True):
        assert np.array_equal(first, second)
    for first, second in zip(
        plain, click_through(_open(segmenter, learner, photo, adapt=None)), strict=True
    ):
        assert np.array_equal(first, second)


def test_the_first_click_corrects_nothing(segmenter, learner, photo):
    session = _open(segmenter, learner, photo)
    click_through(session, 1)
    assert _weights(session).same_values(learner.initial.values)


def test_undo_restores_bit_identical_weights_and_masks(segmenter, learner, photo):
    session = _open(segmenter, learner, photo)
    masks, kept = [], []
    for x, y, positive in CLICKS:
        masks.append(session.add_click(x, y, positive).mask)
        kept.append({n: v.clone() for n, v in _weights(session).values.items()})
    for index in reversed(range(len(CLICKS) - 1)):
        assert np.array_equal(session.undo().mask, masks[index])
        assert _weights(session).same_values(kept[index])
    # another click after undoing learns from there, exactly as it did
    session.add_click(*CLICKS[1])
    assert _weights(session).same_values(kept[1])
    assert np.array_equal(session.prediction.mask, masks[1])


def test_learning_rate_0_is_the_fixed_model(segmenter, importance, photo):
    still = make_learner(segmenter, importance, image=Learning(3, 0.0, 1.0, 1.0))
    plain = click_through(_open(segmenter, still, photo, adapt=None))
    for first, second in zip(plain, click_through(_open(segmenter, still, photo)), strict=True):
        assert np.array_equal(first, second)


def test_a_refused_step_leaves_the_session_going(segmenter, importance, photo, monkeypatch, caplog):
    learner = make_learner(segmenter, importance)
    session = _open(segmenter, learner, photo)
    click_through(session, 2)
    good = _weights(session)
    logits = learner.model.logits
    monkeypatch.setattr(learner.model, "logits", lambda *a: logits(*a) * float("inf"))
    prediction = session.add_click(*CLICKS[2])
    assert "refused" in caplog.text
    assert _weights(session).report.rejected
    assert _weights(session).same_values(good.values)
    assert len(prediction.clicks) == 3
    monkeypatch.undo()
    session.add_click(*CLICKS[3])
    assert not _weights(session).same_values(good.values)


def test_an_interruption_during_a_step_loses_nothing(segmenter, importance, photo, monkeypatch):
    learner = make_learner(segmenter, importance)
    session = _open(segmenter, learner, photo)
    click_through(session, 2)
    mask, good, before = session.prediction.mask.copy(), _weights(session), _frozen(learner)
    logits, calls = learner.model.logits, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return logits(*arguments)

    monkeypatch.setattr(learner.model, "logits", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.add_click(*CLICKS[2])
    monkeypatch.undo()
    assert _weights(session) is good
    assert _same(before, _frozen(learner))
    assert len(session.clicks) == 2
    assert np.array_equal(session.prediction.mask, mask)
    expected = _open(segmenter, learner, photo)
    click_through(expected, 3)
    session.add_click(*CLICKS[2])
    assert _weights(session).same_values(_weights(expected).values)


def test_only_the_chosen_layers_move(segmenter, importance, photo):
    learner = make_learner(segmenter, importance, layers=1)
    session = _open(segmenter, learner, photo)
    click_through(session)
    assert set(_weights(session).values) == {
        "segment.context.layers.2.weight", "segment.context.layers.2.bias",
        "segment.head.weight", "segment.head.bias",
    }


def test_other_candidates_keep_their_heads(segmenter, importance, photo):
    """Only the row of the shown candidate learns; the others stay where they were."""
    free = make_learner(
        segmenter, importance, image=Learning(5, 1e-3, 1.0, 0.0, guidance="earlier")
    )
    session = _open(segmenter, free, photo)
    click_through(session, 2)
    head = _weights(session).values["segment.head.bias"] - free.initial.values["segment.head.bias"]
    shown = int(torch.argmax(head.abs()))
    assert float(head[shown].abs()) > 0
    assert [index for index in range(3) if float(head[index]) != 0.0] == [shown]


def test_hiding_the_newest_click_gives_something_to_learn(segmenter, importance, photo):
    hidden = make_learner(segmenter, importance)
    shown = make_learner(segmenter, importance, image=Learning(5, 1e-3, 1.0, 1.0))
    losses = []
    for learner in (hidden, shown):
        session = _open(segmenter, learner, photo)
        click_through(session, 2)
        losses.append(_weights(session).report.losses[0])
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    "newest",
    [
        (Stroke(((4, 4), (20, 4)), positive=False),),
        (Click(18, 15), Click(28, 20, positive=False)),
    ],
)
def test_all_that_the_newest_call_gave_is_hidden(segmenter, importance, photo, newest):
    learner = make_learner(segmenter, importance)
    shown = []
    example = learner.model.example
    learner.model.example = lambda seen, *others: shown.append(seen) or example(seen, *others)
    session = _open(segmenter, learner, photo)
    click_through(session, 2)
    session.add(*newest)
    prompts = shown[-1].prompts
    assert (len(prompts.positive), len(prompts.negative)) == (1, 1)


def test_corrections_respected_counts_clicked_pixels(segmenter, photo):
    session = segmenter.session(segmenter.encode(photo), focus=None)
    assert session.corrections_respected == 1.0
    click_through(session)
    mask = session.prediction.mask
    right = [bool(mask[y, x]) == positive for x, y, positive in CLICKS]
    assert session.corrections_respected == pytest.approx(np.mean(right))


def test_of_a_segmenter_all_adapters_share_one_learner(segmenter, importance, photo):
    path = importance_path(segmenter.bundle)
    save_importance(path, importance, segmenter.bundle.fingerprint, {})
    try:
        adapter = ClickAdapter(segmenter)
        session = segmenter.session(segmenter.encode(photo), adapt=adapter)
        click_through(session)
        assert session.prediction.timing.adapt_ms > 0
        assert ClickAdapter(segmenter).learner is adapter.learner is Learner.of(segmenter)
        assert Learner.of(adapter.learner) is adapter.learner
    finally:
        path.unlink()


def test_a_segmenter_that_learnt_is_let_go(tmp_path, importance):
    model = Segmenter.load(write_adaptable(tmp_path / "m"), threads=1)
    path = importance_path(model.bundle)
    save_importance(path, importance, model.bundle.fingerprint, {})
    Learner.of(model)
    there = weakref.ref(model)
    del model
    gc.collect()
    assert there() is None


def test_torch_is_imported_only_with_adaptation(segmenter, importance):
    path = importance_path(segmenter.bundle)
    save_importance(path, importance, segmenter.bundle.fingerprint, {})
    program = f"""
import sys
import numpy as np
from trtseg import Segmenter
segmenter = Segmenter.load({str(segmenter.bundle.path)!r}, threads=1)
encoded = segmenter.encode(np.zeros((24, 32, 3), np.uint8))
segmenter.session(encoded).add_click(3, 4)
assert "torch" not in sys.modules
from trtseg.adapt import ClickAdapter
segmenter.session(encoded, adapt=ClickAdapter(segmenter)).add_click(3, 4)
assert "torch" in sys.modules
"""
    root = Path(__file__).parents[2]
    try:
        subprocess.run([sys.executable, "-c", program], check=True, cwd=root, timeout=120)
    finally:
        path.unlink()


def test_the_papers_steps_are_those_of_the_config(segmenter, learner, photo):
    session = _open(segmenter, learner, photo)
    click_through(session, 2)
    assert _weights(session).report.steps == IMAGE.steps
