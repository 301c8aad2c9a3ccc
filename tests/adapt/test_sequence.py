"""Sequence adaptation: what an image teaches, and a state that survives.

As long as there are ways to lose a state: each has its test.
"""

import json
import os
import sys
import threading

import numpy as np
import pytest

from adapt.conftest import CLICKS, click_through, make_learner
from trtseg import atomic
from trtseg.adapt import Learning, Sequence
from trtseg.adapt.importance import importance_path, save_importance
from trtseg.errors import CheckpointError
from trtseg.nn.checkpoint import read_checkpoint, save_checkpoint


def _images(photo):
    return [photo, photo[:, ::-1].copy(), 255 - photo]


def _run(sequence, images):
    masks = []
    for image in images:
        with sequence.image(image, focus=None) as session:
            masks += click_through(session)
    return masks


def test_learning_rate_0_is_the_fixed_model(segmenter, importance, photo):
    still = make_learner(
        segmenter, importance, sequence=Learning(1, 0.0, 0.5, 2.0, guidance="subset")
    )
    sequence = Sequence(still, "sequence")
    adapted = _run(sequence, _images(photo))
    fixed = []
    for image in _images(photo):
        fixed += click_through(segmenter.session(segmenter.encode(image), focus=None))
    assert sequence.images == 3
    for first, second in zip(fixed, adapted, strict=True):
        assert np.array_equal(first, second)


def test_one_step_after_every_image_and_the_state_is_carried_on(learner, photo):
    sequence = Sequence(learner, "sequence")
    seen = [sequence.weights]
    for image in _images(photo):
        with sequence.image(image, focus=None) as session:
            click_through(session)
            # within the image the weights stand still
            assert session._state.snapshots[-1].weights.same_values(seen[-1].values)
        seen.append(sequence.weights)
        assert sequence.report.steps == 1
    assert [weights.step for weights in seen] == [0, 1, 2, 3]
    assert not seen[1].same_values(seen[2].values)


@pytest.mark.parametrize("candidates", ["shown", "all"])
def test_which_candidates_learn(segmenter, importance, photo, candidates):
    learning = Learning(1, 1e-3, 0.5, 0.0, candidates=candidates)
    sequence = Sequence(make_learner(segmenter, importance, sequence=learning), "sequence")
    before = sequence.weights.values["segment.head.bias"]
    _run(sequence, [photo])
    moved = sequence.weights.values["segment.head.bias"] != before
    assert int(moved.sum()) == (1 if candidates == "shown" else len(before))


def test_a_replay_shows_the_first_click_and_a_later_one(segmenter, importance, photo, monkeypatch):
    learning = Learning(2, 1e-3, 0.0, 0.0, guidance="replay", mask_loss="jaccard")
    learner = make_learner(segmenter, importance, sequence=learning)
    seen = []
    example = learner.model.example

    def watched(shown, *others):
        seen.append(shown)
        return example(shown, *others)

    monkeypatch.setattr(learner.model, "example", watched)
    sequence = Sequence(learner, "sequence")
    with sequence.image(photo, focus=None) as session:
        click_through(session)
        moments = session.observations()
    assert sequence.report.steps == len(seen) == 2
    first, later = seen
    shown = first.prompts
    assert (len(shown.positive), len(shown.negative), first.previous) == (1, 0, None)
    assert len(later.prompts.positive) + len(later.prompts.negative) > 1
    assert later.previous is not None
    head = "segment.head.bias"
    moved = sequence.weights.values[head] != learner.initial.values[head]
    learnt = {first.selected, later.selected}
    assert set(moved.nonzero().flatten().tolist()) == learnt
    assert {each.selected for each in moments} >= learnt


def test_a_mask_that_was_set_begins_the_replay_anew(learner, photo):
    sequence = Sequence(learner, "sequence")
    with sequence.image(photo, focus=None) as session:
        click_through(session)
        session.set_mask(np.ones(photo.shape[:2], bool))
        assert session.observations() == ()
        session.add_click(*CLICKS[0])
        (only,) = session.observations()
        assert len(only.prompts.positive) == 1
        assert float(only.previous.min()) == 1


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_the_last_images_are_rehearsed(segmenter, importance, photo, monkeypatch, kept):
    learning = Learning(6, 1e-3, 0.5, 0.0, guidance="replay", rehearsed=kept)
    learner = make_learner(segmenter, importance, sequence=learning)
    made, stepped = [], []
    example, logits = learner.model.example, learner.model.logits
    monkeypatch.setattr(
        learner.model, "logits", lambda x, weights: stepped.append(x) or logits(x, weights)
    )

    def noted(*given):
        one = example(*given)
        one.forward(learner.initial.values)
        made.append(stepped.pop())
        return one

    monkeypatch.setattr(learner.model, "example", noted)
    sequence, rehearsed = Sequence(learner, "sequence"), set()
    for number, image in enumerate(_images(photo)):
        stepped.clear()
        _run(sequence, [image])
        assert len(stepped) == 6
        # two examples an image
        of = [next(k for k, one in enumerate(made) if one is x) // 2 for x in stepped]
        assert of[::2] == [number] * 3
        earlier = range(max(0, number - kept), number)
        assert set(of[1::2]) <= set(earlier or [number])
        rehearsed |= set(of[1::2]) & set(earlier)
    assert rehearsed == {0: set(), 1: {0, 1}, 2: {0, 1}}[kept]


def test_an_image_that_was_refused_is_not_rehearsed(segmenter, importance, photo, monkeypatch):
    learning = Learning(4, 1e-3, 0.5, 0.0, guidance="replay", rehearsed=2)
    learner = make_learner(segmenter, importance, sequence=learning)
    sequence = Sequence(learner, "sequence")
    logits = learner.model.logits
    with monkeypatch.context() as patch:
        patch.setattr(
            learner.model, "logits", lambda x, weights: logits(x, weights) * float("nan")
        )
        _run(sequence, [photo])
    assert sequence.report.rejected
    _run(sequence, [photo])
    assert (sequence.report.steps, sequence.report.rejected) == (4, False)
    assert len(sequence._rehearsal) == 1


def test_a_state_that_is_loaded_rehearses_nothing_from_before(
    segmenter, importance, photo, tmp_path
):
    learning = Learning(2, 1e-3, 0.5, 0.0, rehearsed=2)
    sequence = Sequence(make_learner(segmenter, importance, sequence=learning), "sequence")
    _run(sequence, [photo])
    sequence.save(tmp_path / "state")
    sequence.load(tmp_path / "state")
    assert len(sequence._rehearsal) == 0


def test_image_mode_carries_nothing_on(learner, photo):
    sequence = Sequence(learner, "image")
    _run(sequence, _images(photo))
    assert sequence.weights is learner.initial


def test_both_drops_the_images_weights_and_keeps_the_sequences(learner, photo):
    both = Sequence(learner, "both")
    with both.image(photo, focus=None) as session:
        click_through(session)
        own = session._state.snapshots[-1].weights
        assert not own.same_values(learner.initial.values)
    assert both.weights.step == 1
    with both.image(photo, focus=None) as session:
        assert session._state.snapshots[0].weights.same_values(both.weights.values)


def test_a_crash_in_the_middle_of_an_image_loses_only_that_image(learner, photo):
    sequence = Sequence(learner, "both")
    with sequence.image(photo, focus=None) as session:
        click_through(session)
    before = sequence.weights

    class Crash(Exception):
        pass

    def crash():
        with sequence.image(255 - photo, focus=None) as session:
            click_through(session, 2)
            raise Crash

    with pytest.raises(Crash):
        crash()
    assert sequence.weights is before
    assert sequence.images == 1


def test_an_interruption_during_the_step_loses_only_that_image(
    segmenter, importance, photo, monkeypatch
):
    learner = make_learner(segmenter, importance)
    sequence = Sequence(learner, "sequence")
    _run(sequence, [photo])
    before = sequence.weights
    values = {name: value.clone() for name, value in before.values.items()}

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(learner.model, "logits", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _run(sequence, [255 - photo])
    assert sequence.weights is before
    assert before.same_values(values)


def test_an_image_without_a_positive_click_teaches_nothing(learner, photo):
    sequence = Sequence(learner, "sequence")
    with sequence.image(photo, focus=None):
        pass
    with sequence.image(photo, focus=None) as session:
        session.add_click(3, 3, positive=False)
    assert sequence.images == 0


def test_the_state_saves_and_loads(learner, photo, tmp_path):
    images = _images(photo)
    whole = Sequence(learner, "both")
    expected = _run(whole, images)
    first = Sequence(learner, "both", state=tmp_path / "state")
    found = _run(first, images[:2])
    second = Sequence(learner, "both", state=tmp_path / "state")
    assert second.images == 2
    found += _run(second, images[2:])
    for one, other in zip(expected, found, strict=True):
        assert np.array_equal(one, other)
    assert second.weights.same_values(whole.weights.values)
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_a_failed_save_keeps_the_old_state(learner, photo, tmp_path, monkeypatch):
    sequence = Sequence(learner, "sequence", state=tmp_path / "state")
    _run(sequence, [photo])
    before = sequence.weights

    def full_disk(*arguments, **options):
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("trtseg.nn.checkpoint.write_folder", full_disk)
    with pytest.raises(CheckpointError, match="state: cannot be written: no space"):
        _run(sequence, [255 - photo])
    monkeypatch.undo()
    assert sequence.weights is before
    assert Sequence(learner, "sequence", state=tmp_path / "state").weights.same_values(
        before.values
    )


def test_a_state_of_other_layers_or_damaged_is_refused(segmenter, importance, photo, tmp_path):
    sequence = Sequence(make_learner(segmenter, importance), "sequence")
    sequence.save(tmp_path / "state")
    fewer = Sequence(make_learner(segmenter, importance, layers=1), "sequence")
    with pytest.raises(CheckpointError, match="other layers"):
        fewer.load(tmp_path / "state")
    tensors = tmp_path / "state" / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="damaged"):
        sequence.load(tmp_path / "state")
    with pytest.raises(CheckpointError):
        sequence.load(tmp_path / "nothing")


def test_an_empty_folder_is_a_fresh_state(learner, photo, tmp_path):
    sequence = Sequence(learner, "sequence", state=tmp_path)
    _run(sequence, [photo])
    assert Sequence(learner, "sequence", state=tmp_path).images == 1


def test_a_place_that_cannot_be_written_is_told_at_once(learner, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "state", tmp_path / "file"):
        with pytest.raises(CheckpointError, match="no folder to write to"):
            Sequence(learner, "sequence", state=place)


def test_another_sequences_state_is_not_overwritten(learner, photo, tmp_path):
    one = Sequence(learner, "sequence", state=tmp_path / "state")
    other = Sequence(learner, "sequence", state=tmp_path / "state")
    _run(one, [photo])
    with pytest.raises(CheckpointError, match="1 images and this sequence from 0: another"):
        _run(other, [photo])
    assert other.images == 0
    assert other.weights.same_values(learner.initial.values)
    _run(one, [photo])
    assert Sequence(learner, "sequence", state=tmp_path / "state").images == 2


def test_of_two_sequences_from_one_state_exactly_one_saves(learner, photo, tmp_path):
    _run(Sequence(learner, "sequence", state=tmp_path / "state"), [photo])
    for turn in range(1, 6):
        two = [Sequence(learner, "sequence", state=tmp_path / "state") for _ in range(2)]
        start, outcomes = threading.Barrier(2), []

        def save(sequence, start=start, outcomes=outcomes):
            start.wait()
            try:
                sequence._write(
                    tmp_path / "state", sequence.weights, sequence.images + 1, kept=True
                )
                outcomes.append("saved")
            except CheckpointError as error:
                outcomes.append(str(error).rpartition(": ")[2])

        threads = [threading.Thread(target=save, args=(sequence,)) for sequence in two]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["another one keeps its state there", "saved"]
        assert Sequence(learner, "sequence", state=tmp_path / "state").images == turn + 1


def test_a_sequence_goes_on_after_a_save_that_was_interrupted_at_its_end(
    learner, photo, tmp_path, monkeypatch
):
    sequence = Sequence(learner, "sequence", state=tmp_path / "state")
    _run(sequence, [photo])

    def saved_and_interrupted(*arguments):
        atomic.write_folder(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("trtseg.nn.checkpoint.write_folder", saved_and_interrupted)
        with pytest.raises(KeyboardInterrupt):
            _run(sequence, [photo])
    assert sequence.images == 1
    _run(sequence, [photo])
    sequence.save(tmp_path / "state")
    _run(sequence, [photo])
    assert Sequence(learner, "sequence", state=tmp_path / "state").images == 3


def test_every_state_says_which_one_it_came_from(learner, photo, tmp_path):
    sequence, ids = Sequence(learner, "sequence", state=tmp_path), [None]
    for _ in range(3):
        _run(sequence, [photo])
        state = json.loads((tmp_path / "state.json").read_text())
        assert state["parent"] == ids[-1]
        ids.append(state["id"])
    assert len(set(ids)) == 4


def test_a_state_in_a_linked_folder_or_a_read_only_parent(learner, photo, tmp_path):
    (tmp_path / "parent" / "real").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "parent" / "real")
    (tmp_path / "parent").chmod(0o555)
    try:
        sequence = Sequence(learner, "sequence", state=tmp_path / "link")
        _run(sequence, [photo, photo])
    finally:
        (tmp_path / "parent").chmod(0o755)
    assert (tmp_path / "link").is_symlink()
    assert Sequence(learner, "sequence", state=tmp_path / "link").images == 2


def test_a_disk_that_became_full_is_told_before_the_work(learner, photo, tmp_path, monkeypatch):
    sequence = Sequence(learner, "sequence", state=tmp_path / "state")
    _run(sequence, [photo])

    def full(folder, size_bytes):
        assert size_bytes >= 4 * sum(value.numel() for value in sequence.weights.values.values())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules["trtseg.adapt.sequence"], "check_room", full)
    monkeypatch.setattr(learner.segmenter.pipeline, "encode", None)
    with (
        pytest.raises(CheckpointError, match="state: cannot be written: No space"),
        sequence.image(photo),
    ):
        pass
    assert sequence.images == 1


@pytest.mark.parametrize("name", ["pipe", "dangling"])
def test_a_place_that_is_no_folder_is_refused(learner, tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="no folder to write to"):
        Sequence(learner, "sequence", state=tmp_path / name)


def _changed(name, change):
    def tensors(found):
        found[name] = change(found[name])

    return tensors


def damage_state(path, damage):
    """Write a state again, whole, but with other contents: `damage` is one of `DAMAGES`."""
    tensors, state = read_checkpoint(path)
    if isinstance(damage, dict):
        state.update(damage)
    else:
        layer = next(name for name in tensors if name.startswith("values."))[len("values.") :]
        parts = {part: tensors.pop(f"{part}.{layer}") for part in ("values", "first", "second")}
        damage(parts)
        tensors.update({f"{part}.{layer}": value for part, value in parts.items()})
    del state["tensors_sha256"]
    save_checkpoint(path, tensors, state)


DAMAGES = [
    ({"images": -5}, "images: expected at least 0"),
    ({"images": "3"}, "images: expected a whole number"),
    ({"images": float("nan")}, "images: expected a whole number"),
    ({"images": 10**30}, "images"),
    ({"images": None}, "images"),
    ({"adam_step": -1}, "adam_step: expected at least 0"),
    ({"adam_step": 1.7}, "adam_step: expected a whole number"),
    ({"adam_step": 10**400}, "adam_step"),
    ({"model": ["x" * 10**6]}, "model: expected a string"),
    ({"id": 5}, "id: expected a string"),
    (_changed("values", lambda v: v * float("nan")), "expected finite float32"),
    (_changed("values", lambda v: v + float("inf")), "expected finite float32"),
    (_changed("values", lambda v: v.double()), "expected finite float32"),
    (_changed("first", lambda v: v.long()), "expected finite float32"),
    (_changed("first", lambda v: v.flatten()[:1]), "other shapes"),
    (_changed("second", lambda v: v - 1), "expected no negative values"),
    (lambda found: found.pop("first"), "other layers"),
    (lambda found: found.update(evil=found["first"].clone()), "unknown tensor 'evil"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_hostile_state_is_refused(learner, photo, tmp_path, damage, message):
    _run(Sequence(learner, "sequence", state=tmp_path / "state"), [photo])
    damage_state(tmp_path / "state", damage)
    with pytest.raises(CheckpointError, match=message) as caught:
        Sequence(learner, "sequence", state=tmp_path / "state")
    assert len(str(caught.value)) < 500


def test_image_mode_has_no_state(learner, tmp_path):
    with pytest.raises(ValueError, match="state: 'image' carries nothing"):
        Sequence(learner, "image", state=tmp_path)


def test_an_incomplete_state_is_refused(learner, photo, tmp_path):
    sequence = Sequence(learner, "sequence")
    _run(sequence, [photo])
    sequence.save(tmp_path / "state")
    state = json.loads((tmp_path / "state" / "state.json").read_text())
    del state["images"]
    (tmp_path / "state" / "state.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match="images"):
        Sequence(learner, "sequence", state=tmp_path / "state")


def test_a_submitted_click_teaches(learner, photo):
    sequence = Sequence(learner, "sequence")
    with sequence.image(photo, focus=None) as session:
        future = session.submit_click(*CLICKS[0])
    assert future.done()
    assert sequence.images == 1


def test_of_a_segmenter(segmenter, importance, photo, tmp_path):
    path = importance_path(segmenter.bundle)
    save_importance(path, importance, segmenter.bundle.fingerprint, {})
    try:
        sequence = Sequence(segmenter, "both", state=tmp_path / "state")
        with sequence.image(photo) as session:
            click_through(session)
        assert (sequence.images, sequence.report.steps) == (1, 1)
        assert Sequence(segmenter, "both", state=tmp_path / "state").images == 1
    finally:
        path.unlink()


def test_an_unknown_mode_is_refused(learner):
    with pytest.raises(ValueError, match="adapt: expected"):
        Sequence(learner, "always")


def test_clicks_of_the_conftest_have_both_kinds():
    assert {positive for *_, positive in CLICKS} == {True, False}
