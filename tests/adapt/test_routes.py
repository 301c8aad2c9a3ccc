"""Adapted weights in the engine: ONNX Runtime, torch, and what a refit is given."""

import numpy as np
import pytest
import torch

from adapt.conftest import click_through, make_learner, write_adaptable
from trtseg import bundle as bundles
from trtseg.adapt import ClickAdapter, Learner
from trtseg.adapt.graph import AdaptableGraph
from trtseg.adapt.routes import OnnxRoute, RefitRoute
from trtseg.adapt.weights import AdaptedWeights
from trtseg.errors import BundleError
from trtseg.nn.bundle_weights import read_weights
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
    expected = learner.model.run(torch.from_numpy(x), weights.values)[0].numpy()
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
    expected = learner.model.run(torch.from_numpy(x), weights.values)[0].numpy()
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


class FakePair:
    """Takes what `RefitPair.refit` takes, and keeps it."""

    def __init__(self):
        self.given = []

    def refit(self, weights):
        self.given.append(weights)
        return f"engine {len(self.given)}"


@pytest.mark.parametrize("half", [False, True])
def test_a_refit_is_given_names_dtypes_and_counts_of_the_graph(segmenter, importance, half):
    learner = make_learner(segmenter, importance, layers=2)
    graph = segmenter.bundle.graph("segment")
    names = list(learner.initial.values)
    dtypes = AdaptableGraph(graph, names).dtypes
    if half:
        dtypes = dict.fromkeys(dtypes, np.dtype(np.float16))
    pair = FakePair()
    route = RefitRoute(pair, dtypes, to_device=lambda tensor: tensor.numpy())
    weights = _moved(learner)
    assert route.engine(weights) == "engine 1"
    assert route.engine(learner.initial) == "engine 2"
    stored = read_weights(graph)
    for given in pair.given:
        assert set(given) == set(names)
        for name, array in given.items():
            assert array.dtype == dtypes[name]
            assert array.size == stored[name].size
            assert array.flags.c_contiguous
    for name in names:
        np.testing.assert_array_equal(pair.given[1][name], stored[name].astype(dtypes[name]))


def test_only_the_last_refitted_engine_is_kept(segmenter, importance):
    names = AdaptableGraph(segmenter.bundle.graph("segment"), ["segment.head.bias"]).dtypes
    route = RefitRoute(FakePair(), names, to_device=lambda tensor: tensor.numpy())
    learner = make_learner(segmenter, importance, route=route)
    first, second = _moved(learner), _moved(learner, 0.1)
    assert learner.engine(first) == "engine 1"
    assert learner.engine(second) == "engine 2"
    # the first one's engine holds other weights by now: it is refitted
    assert learner.engine(first) == "engine 3"
