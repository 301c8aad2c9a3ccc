"""Adapted weights in the engine: ONNX Runtime, torch, and TensorRT by a refit."""

import sys

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from tensorrt_fixture import device, fake_tensorrt

from adapt.conftest import (
    CLICKS,
    IMAGE,
    SEQUENCE,
    click_through,
    make_learner,
    write_adaptable,
)
from trtseg import bundle as bundles
from trtseg.adapt import AdaptConfig, ClickAdapter, Learner
from trtseg.adapt.graph import AdaptableGraph
from trtseg.adapt.routes import OnnxRoute
from trtseg.adapt.weights import AdaptedWeights
from trtseg.errors import BundleError, EngineError
from trtseg.runtime import tensorrt
from trtseg.runtime.segmenter import Segmenter

# float32 sums of 72 products per layer in another order, three layers, then a sigmoid
ENGINES = {"rtol": 1e-5, "atol": 2e-6}


def _moved(learner, scale=0.05):
    generator = torch.Generator().manual_seed(1)
    return AdaptedWeights(
        {
            name: value + scale * torch.randn(value.shape, generator=generator)
            for name, value in learner.initial.values.items()
        }
    )


def _masks(engine, x):
    out = np.empty((1, 3, *x.shape[2:]), np.float32)
    engine.bind({"x": x, "masks": out}).run()
    return out


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 65)])
def test_both_routes_give_what_torch_gives(segmenter, importance, size):
    x = np.random.default_rng(0).normal(size=(1, 8, *size)).astype(np.float32)
    found = []
    for route in ("onnxruntime", "torch"):
        learner = make_learner(segmenter, importance, route=route)
        weights = _moved(learner)
        found.append(_masks(learner.engine(weights), x))
    expected = learner.model.run([torch.from_numpy(x)], weights.values)[0].numpy()
    np.testing.assert_allclose(found[0], expected, **ENGINES)
    np.testing.assert_allclose(found[1], expected, **ENGINES)
    original = _masks(segmenter.engines.segment, x)
    assert float(np.abs(original - expected).max()) > 1e-3


def test_a_session_may_run_on_torch(segmenter, importance, photo):
    learner = make_learner(segmenter, importance, route="torch")
    session = segmenter.session(
        segmenter.encode(photo), focus=None, adapt=ClickAdapter(learner, lambda: learner.initial)
    )
    click_through(session)
    assert np.isfinite(session.prediction.probability).all()


def test_unchanged_weights_need_no_engine(learner):
    assert learner.engine(learner.initial) is None
    assert learner.engine(learner.initial.restarted()) is None


def test_an_engine_is_made_once_per_click(learner):
    weights = _moved(learner)
    assert learner.engine(weights) is learner.engine(weights)


def test_adapted_weights_run_on_as_many_threads(segmenter, importance):
    for threads in (1, 2):
        fresh = Segmenter.load(segmenter.bundle, threads=threads)
        learner = make_learner(fresh, importance)
        options = learner.engine(_moved(learner))._session.get_session_options()
        assert options.intra_op_num_threads == threads


def test_weights_stored_as_half_are_widened_for_adaptation(tmp_path):
    model = bundles.read(write_adaptable(tmp_path / "m", half_storage=True))
    segmenter = Segmenter.load(model.path, threads=1)
    learner = Learner(segmenter, importance={})
    route = OnnxRoute(model, list(learner.initial.values))
    # less than a half-precision weight can move by
    weights = AdaptedWeights(
        {name: value + 3e-6 for name, value in learner.initial.values.items()}
    )
    x = np.random.default_rng(0).normal(size=(1, 8, 9, 7)).astype(np.float32)
    expected = learner.model.run([torch.from_numpy(x)], weights.values)[0].numpy()
    np.testing.assert_allclose(_masks(route.engine(weights), x), expected, **ENGINES)


def test_a_graph_without_the_weights_is_refused(segmenter):
    with pytest.raises(BundleError, match="no initialiser"):
        AdaptableGraph(segmenter.bundle.graph("segment"), ["segment.nothing"])


def test_a_bundle_that_names_no_network_is_refused(tmp_path):
    from tiny_model import write_tiny

    segmenter = Segmenter.load(write_tiny(tmp_path / "tiny"), threads=1)
    with pytest.raises(BundleError, match="cannot be adapted"):
        Learner(segmenter, importance={})


def test_an_unknown_route_is_refused(segmenter):
    with pytest.raises(ValueError, match="route"):
        Learner(segmenter, importance={}, route="paper")


# -- a refit on TensorRT, which a stand-in plays on emulated kernels ------------------------------


@pytest.fixture
def on_tensorrt(monkeypatch, tmp_path):
    """A segmenter whose engines are TensorRT's, as far as it can tell, and the stand-in."""
    device.install(monkeypatch)
    trt = fake_tensorrt.make()
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setenv("TRTSEG_CACHE", str(tmp_path / "cache"))
    model = bundles.read(write_adaptable(tmp_path / "m", half_storage=True))
    return Segmenter(model, tensorrt.load(model)), trt


def refit_learner(segmenter, **changes):
    config = AdaptConfig(image=IMAGE, sequence=SEQUENCE, bf16=False, **changes)
    return Learner(segmenter, config, importance={}, device="cpu")


def test_a_refit_is_the_route_on_tensorrt(on_tensorrt, segmenter):
    ours, trt = on_tensorrt
    learner = refit_learner(ours, layers=2)
    builds = [value for what, value in trt.calls if what == "build"]
    # a refittable `segment` beside the engines that were there; only the adapted weights are
    assert len(builds) == 3
    assert builds[-1].flags == [trt.BuilderFlag.REFIT_INDIVIDUAL]
    (pair,) = {learner._route.pair}
    assert set(pair.engine.handle.refittable) == set(learner.initial.values)
    weights = _moved(learner)
    engine = learner.engine(weights)
    # float32, although the bundle stores them as FP16, and every count as in the graph
    stored = AdaptableGraph(ours.bundle.graph("segment"), list(learner.initial.values)).dtypes
    assert {str(dtype) for dtype in stored.values()} == {"float32"}
    fitted = {
        value.name: numpy_helper.to_array(value)
        for value in pair.engine.handle.model.graph.initializer
    }
    for name, value in weights.values.items():
        np.testing.assert_array_equal(fitted[name], value.numpy())
    assert learner.engine(weights) is engine
    with pytest.raises(ValueError, match="route: expected a segmenter on TensorRT"):
        make_learner(segmenter, {}, route="tensorrt")


def test_sessions_on_tensorrt_learn_as_on_the_cpu(on_tensorrt, photo):
    ours, _ = on_tensorrt
    theirs = Segmenter.load(ours.bundle.path, threads=1)
    found = []
    for each in (ours, theirs):
        learner = refit_learner(each)
        # two sessions in turn: each click must run with its own session's weights
        sessions = [
            each.session(
                each.encode(image), focus=None,
                adapt=ClickAdapter(learner, lambda learner=learner: learner.initial),
            )
            for image in (photo, photo[::-1].copy())
        ]  # fmt: skip
        for x, y, positive in CLICKS:
            for session in sessions:
                session.add_click(x, y, positive)
        found.append([session.prediction.probability for session in sessions])
        found[-1].append(sessions[0].undo().probability)
    for mine, wanted in zip(*found, strict=True):
        np.testing.assert_allclose(mine, wanted, atol=1e-4)


def test_weights_that_lost_their_engine_come_back(on_tensorrt):
    ours, _ = on_tensorrt
    learner = refit_learner(ours)
    memory = ours.engines.memory
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 16)).astype(np.float32)
    pixels = memory.array(np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    buffers = {"x": pixels.transpose(0, 3, 1, 2),  # features are channels-last
               "masks": memory.empty((1, 3, 8, 16), np.dtype(np.float32))}  # fmt: skip
    weights = [_moved(learner, 0.02 * scale) for scale in (1, 2, 3)]
    bindings = [learner._route.engine(each).bind(buffers) for each in weights]
    for index in (0, 1, 2, 0, 0, 2):
        bindings[index].run()
        expected = learner.model.run([torch.from_numpy(x)], weights[index].values)[0].numpy()
        np.testing.assert_allclose(memory.host(buffers["masks"]), expected, **ENGINES)


def test_a_refit_that_fails_leaves_the_session(on_tensorrt, photo):
    ours, trt = on_tensorrt
    learner = refit_learner(ours)
    session = ours.session(
        ours.encode(photo), focus=None, adapt=ClickAdapter(learner, lambda: learner.initial)
    )
    before = click_through(session, 1)[0]
    trt.fail_refit = True
    x, y, positive = CLICKS[1]
    with pytest.raises(EngineError, match="the refit failed"):
        session.add_click(x, y, positive)
    np.testing.assert_array_equal(session.prediction.mask, before)
    trt.fail_refit = False
    assert len(session.add_click(x, y, positive).clicks) == 2
