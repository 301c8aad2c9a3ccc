"""The adapter of a session: learns after every click, and lends the engine its weights."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor

from trtseg.adapt.config import AdaptConfig
from trtseg.adapt.importance import chosen_config, load_importance
from trtseg.adapt.latent import AdaptableSegment, corrections_of
from trtseg.adapt.learn import learn
from trtseg.adapt.routes import ROUTES, OnnxRoute, RefitRoute, Route, TorchRoute
from trtseg.adapt.weights import AdaptedWeights
from trtseg.parse import one_of
from trtseg.runtime.engine import Engine, HostMemory
from trtseg.runtime.onnxruntime import OnnxEngine
from trtseg.runtime.segmenter import Segmenter
from trtseg.runtime.session.observation import Observation
from trtseg.runtime.tensorrt.execution import TensorRTEngine


class Learner:
    """What the sessions of one segmenter share: the model in torch, importance, and engines.

    Args:
        segmenter: whose `segment` network adapts.
        config: what adapts, and how; None takes what was chosen for the model (it is kept with
            the importance), or the paper's.
        importance: omega by name in the state dict; None reads it from beside the bundle. An
            empty mapping means none: the weights then drift freely.
        route: "onnxruntime", "torch", "tensorrt" (a refit; for a segmenter on TensorRT), or a
            route of one's own; None takes the one that the segmenter itself runs on.
        device: where torch learns; by default "cpu", or "cuda" for a segmenter on a GPU.

    Raises:
        BundleError: the bundle cannot be adapted, or has no importance beside it.
        ValueError: an unknown route, or one that the segmenter's engines do not offer.
        EngineError: a refittable engine cannot be built.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        config: AdaptConfig | None = None,
        *,
        importance: Mapping[str, Tensor] | None = None,
        route: str | Route | None = None,
        device: str | None = None,
    ) -> None:
        self.segmenter = segmenter
        self.config = config or chosen_config(segmenter.bundle)
        on_host = isinstance(segmenter.engines.memory, HostMemory)
        on_tensorrt = isinstance(segmenter.engines.segment, TensorRTEngine)
        if route is None:
            route = "onnxruntime" if on_host else "tensorrt" if on_tensorrt else "torch"
        if route == "tensorrt" and not on_tensorrt:
            raise ValueError(
                "route: expected a segmenter on TensorRT for 'tensorrt', got "
                f"{segmenter.engines.description}"
            )
        if isinstance(route, str):
            one_of("route", route, ROUTES)
        self.model = AdaptableSegment.from_bundle(
            segmenter.bundle,
            self.config,
            device or ("cpu" if on_host else "cuda"),
            segmenter.engines.memory,
        )
        self.initial = AdaptedWeights(self.model.initial)
        names = list(self.model.initial)
        if importance is None:
            importance = load_importance(segmenter.bundle, names)
        self.importance = {
            name: importance[name].to(self.model.device)
            if importance
            else self.model.initial[name].new_zeros(())
            for name in names
        }
        self._route = self._make_route(route, names) if isinstance(route, str) else route
        self._engines: OrderedDict[int, tuple[AdaptedWeights, Engine]] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def of(cls, model: Segmenter | Learner) -> Learner:
        """A learner as it is; of a segmenter the one, with default arguments, that serves all."""
        if isinstance(model, Learner):
            return model
        with _one_at_a_time:
            found = model.__dict__.get(_KEPT)
            if found is None:
                found = model.__dict__[_KEPT] = cls(model)
        return found

    def _make_route(self, route: str, names: list[str]) -> Route:
        segment = self.segmenter.engines.segment
        if route == "torch":
            return TorchRoute(self.model, segment)
        if isinstance(segment, TensorRTEngine) and route == "tensorrt":
            return RefitRoute.build(self.segmenter.bundle, segment, names)
        precision = "fp16" if segment.inputs[0].dtype == "float16" else "fp32"
        like = segment if isinstance(segment, OnnxEngine) else None
        return OnnxRoute(self.segmenter.bundle, names, precision, like)

    def engine(self, weights: AdaptedWeights) -> Engine | None:
        """An engine with these weights; None where they are the model's own."""
        if weights.same_values(self.model.initial):
            return None
        with self._lock:
            kept = self._engines.get(id(weights))
            if kept is not None:
                self._engines.move_to_end(id(weights))
                return kept[1]
        engine = self._route.engine(weights)
        with self._lock:
            # the weights are kept too, so that their id stays theirs
            self._engines[id(weights)] = (weights, engine)
            while len(self._engines) > self._route.kept:
                self._engines.popitem(last=False)
        return engine


_one_at_a_time = threading.Lock()
# kept by the segmenter itself, whom it refers to: the two go together
_KEPT = "_trtseg_learner"


class ClickAdapter:
    """An `Adapter` of the runtime: image adaptation (CA section 3.2) from given weights.

    Args:
        model: the segmenter whose sessions are to adapt, or a learner for it.
        base: gives the weights with which an object begins; by default the model's own.
        adapts: learn after every click; otherwise the object is answered with `base` throughout.

    Raises:
        BundleError: the model cannot be adapted, or has no importance beside it.
        ValueError, EngineError: as `Learner`.
    """

    def __init__(
        self,
        model: Segmenter | Learner,
        base: Callable[[], AdaptedWeights] | None = None,
        *,
        adapts: bool = True,
    ) -> None:
        learner = Learner.of(model)
        self.learner, self._adapts = learner, adapts
        self._base = base or (lambda: learner.initial)

    def start(self) -> AdaptedWeights:
        """See `Adapter`."""
        return self._base().restarted()

    def adapt(self, weights: AdaptedWeights, observation: Observation) -> AdaptedWeights:
        """See `Adapter`. The first click corrects nothing and is not learnt from."""
        if not self._adapts or observation.previous is None:
            return weights
        learner, learning = self.learner, self.learner.config.image
        count = len(observation.prompts.positive) + len(observation.prompts.negative)
        shown = shown_clicks(observation, learning.guidance, [learner.config.seed, count])
        example = learner.model.example(
            shown, corrections_of(observation), observation.previous, learning.candidates
        )
        return learn(weights, [example], self._base().values, learner.importance, learning)

    def engine(self, weights: AdaptedWeights) -> Engine | None:
        """See `Adapter`."""
        return self.learner.engine(weights)


def replayed(clicks: int, seed: list[int]) -> list[int]:
    """Which clicks' moments a sequence learns from: the first and, if there is one, a later one."""
    if clicks < 2:
        return [0]
    return [0, int(np.random.default_rng(seed).integers(1, clicks))]


def shown_clicks(observation: Observation, guidance: str, seed: list[int]) -> Observation:
    """The observation with those clicks that the network is shown; see `Learning.guidance`.

    Args:
        observation: with all clicks.
        guidance: "all", "subset" or "earlier".
        seed: of the random subset.
    """
    if guidance == "earlier":
        return replace(observation, prompts=observation.earlier)
    positive, negative = observation.prompts.positive, observation.prompts.negative
    if guidance == "subset":
        rng = np.random.default_rng(seed)
        # as a user would begin: at least one positive click, where there is one
        count = min(len(positive), max(1, int(rng.integers(0, len(positive) + 1))))
        positive = positive[np.sort(rng.permutation(len(positive))[:count])]
        count = int(rng.integers(0, len(negative) + 1))
        negative = negative[np.sort(rng.permutation(len(negative))[:count])]
    prompts = replace(observation.prompts, positive=positive, negative=negative)
    return replace(observation, prompts=prompts)
