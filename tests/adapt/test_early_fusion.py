"""The method asks for no special architecture: the same promises on DeepLabV3+."""

import gc
import json
import weakref
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from networks import small_config

from adapt.conftest import CLICKS, IMAGE, SEQUENCE
from trtseg.adapt.config import AdaptConfig, Learning
from trtseg.adapt.early_fusion import (
    EarlyFusionModel,
    EarlyFusionSequence,
    EarlyFusionSession,
)
from trtseg.adapt.importance import checkpoint_importance_path, read_importance
from trtseg.evaluate.metrics import iou
from trtseg.nn.checkpoint import read_checkpoint
from trtseg.nn.deeplab import DeepLab, load_deeplab

ROOT = Path(__file__).parents[2]
TRAINED = ROOT / "models" / "deeplab-small"


def _model(layers=None, image=IMAGE, sequence=SEQUENCE):
    torch.manual_seed(0)
    network = DeepLab(small_config(width=16, low_level_width=8, working_long_side_px=64))
    config = AdaptConfig(image=image, sequence=sequence, layers=layers, bf16=False)
    return EarlyFusionModel(network, config)


def _click(session):
    return [session.add_click(x, y, positive).mask for x, y, positive in CLICKS]


@pytest.mark.parametrize("layers", [None, 0])
def test_image_adaptation_leaves_the_network_and_repeats_exactly(photo, layers):
    model = _model(layers)
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    session = EarlyFusionSession(model, photo, model.initial, adapts=True)
    masks = _click(session)
    last = session.weights
    assert not last.same_values(model.initial.values)
    again = EarlyFusionSession(model, photo, model.initial, adapts=True)
    assert np.array_equal(_click(again)[-1], masks[-1])
    assert again.weights.same_values(last.values)
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, before[name])


def test_only_the_head_moves_where_the_encoder_is_cached(photo):
    model = _model(layers=0)
    assert not any(name.startswith("encoder") for name in model.initial.values)
    names = {name for name, _ in model.network.named_parameters()}
    assert set(_model().initial.values) == names


def test_learning_rate_0_is_the_fixed_model(photo):
    still = Learning(1, 0.0, 0.5, 2.0, guidance="subset")
    model = _model(sequence=still)
    found, fixed = [], []
    for mode, masks in (("sequence", found), (None, fixed)):
        sequence = EarlyFusionSequence(model, mode)
        for image in (photo, 255 - photo):
            with sequence.image(image) as session:
                masks += _click(session)
    for first, second in zip(found, fixed, strict=True):
        assert np.array_equal(first, second)


def test_a_sequence_learns_after_every_image_and_survives_a_crash(photo):
    sequence = EarlyFusionSequence(_model(), "both")
    with sequence.image(photo) as session:
        _click(session)
    learnt = sequence.weights
    assert learnt.step == 1

    def crash():
        with sequence.image(255 - photo) as session:
            _click(session)
            raise RuntimeError("the editor closed")

    with pytest.raises(RuntimeError, match="closed"):
        crash()
    assert sequence.weights is learnt


def test_a_refused_step_leaves_the_session_going(photo, monkeypatch):
    model = _model()
    session = EarlyFusionSession(model, photo, model.initial, adapts=True)
    session.add_click(*CLICKS[0])
    logits = model.logits
    calls = []

    def broken(*arguments):
        calls.append(1)
        found = logits(*arguments)
        return found * float("nan") if len(calls) == 2 else found

    monkeypatch.setattr(model, "logits", broken)
    prediction = session.add_click(*CLICKS[1])
    assert prediction.report.rejected
    assert prediction.report.steps == 1
    assert len(session.clicks) == 2


def test_what_is_rehearsed_does_not_keep_its_session(photo):
    learning = Learning(2, 1e-3, 0.0, 0.0, rehearsed=2)
    model = _model(sequence=learning)
    sequence = EarlyFusionSequence(model, "both")
    with sequence.image(photo) as session:
        _click(session)
    kept = weakref.ref(session)
    del session
    gc.collect()
    assert len(sequence._rehearsal) == 1
    assert kept() is None


def test_a_replay_shows_the_first_click_and_then_more(photo, monkeypatch):
    model = _model()
    session = EarlyFusionSession(model, photo, model.initial, adapts=False)
    _click(session)
    seen = []
    features = model.features

    def watched(staged, clicks):
        seen.append(len(clicks))
        return features(staged, clicks)

    monkeypatch.setattr(model, "features", watched)
    replay = Learning(2, 1e-3, 0.0, 0.0, guidance="replay")
    assert len(session.final_examples(replay, [0])) == 2
    assert seen[0] == 1 < seen[1] <= len(CLICKS)


def test_the_trained_sibling_segments_a_photo_and_has_its_importance():
    _, state = read_checkpoint(TRAINED)
    importance, _ = read_importance(checkpoint_importance_path(TRAINED), state["tensors_sha256"])
    model = EarlyFusionModel(load_deeplab(TRAINED), AdaptConfig(bf16=False), importance)
    photos = ROOT / "trtseg" / "data"
    scene = json.loads((photos / "demo.json").read_text())["chelsea"]
    image = cv2.imread(str(photos / scene["photo"]))[..., ::-1]
    truth = cv2.imread(str(photos / scene["mask"]), cv2.IMREAD_GRAYSCALE) > 0
    session = EarlyFusionSession(model, image, model.initial, adapts=False)
    for click in scene["clicks"]:
        prediction = session.add_click(click["x"], click["y"], click["positive"])
    # 0.96 when it was trained; a network that does not fit its weights gives next to nothing
    assert iou(prediction.mask > 0, truth.astype(np.uint8)) > 0.9
