"""Everything that can be evaluated without torch, behind one interface: models and baselines."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, Protocol

import numpy as np

from trtseg.evaluate import baselines
from trtseg.evaluate.baselines.clicks import Baseline
from trtseg.evaluate.baselines.refinement import RefinedSession, Refinement
from trtseg.evaluate.configuration import EvaluationConfig
from trtseg.evaluate.protocol import SessionLike
from trtseg.runtime.segmenter import Segmenter


def _baselines() -> dict[str, type[Baseline]]:
    found = {}
    for info in pkgutil.iter_modules(baselines.__path__):
        module = importlib.import_module(f"trtseg.evaluate.baselines.{info.name}")
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Baseline) and "name" in vars(value):
                found[value.name] = value
    return found


BASELINES = _baselines()


class Method(Protocol):
    """Encodes an image once and opens a session per object."""

    def describe(self) -> dict[str, Any]:
        """Plain values that identify the method: results of two that differ are never mixed."""

    def encode(self, image: np.ndarray) -> Any:
        """Everything that no click changes; `image` is uint8 RGB [H, W, 3]."""

    def session(self, encoded: Any) -> Any:
        """A context manager whose value answers clicks (`SessionLike`) on one object."""


class ModelMethod:
    """A trained model through the public API."""

    def __init__(self, segmenter: Segmenter, focus: bool = True) -> None:
        self._segmenter = segmenter
        self._focus = "auto" if focus else None

    def describe(self) -> dict[str, Any]:
        bundle = self._segmenter.bundle
        return {"kind": "model", "name": bundle.name, "fingerprint": bundle.fingerprint,
                "adapt": "none"}  # fmt: skip

    def encode(self, image: np.ndarray) -> Any:
        return self._segmenter.encode(image, "RGB")

    @contextmanager
    def session(self, encoded: Any) -> Iterator[SessionLike]:
        yield self._segmenter.session(encoded, focus=self._focus)


class RefinedMethod:
    """A model whose probabilities pass through a graph cut (Xu et al. 2016, section 3.3)."""

    def __init__(self, method: Method) -> None:
        self._method = method
        self._refinement = Refinement()

    def describe(self) -> dict[str, Any]:
        refinement = {**asdict(self._refinement), "source": self._refinement.source}
        return {**self._method.describe(), "refinement": refinement}

    def encode(self, image: np.ndarray) -> Any:
        return self._method.encode(image), self._refinement.encode(image)

    @contextmanager
    def session(self, encoded: Any) -> Iterator[SessionLike]:
        inner, edges = encoded
        with self._method.session(inner) as session:
            yield RefinedSession(self._refinement, session, edges)


def load_method(config: EvaluationConfig, threads: int | None = None) -> Method:
    """The method of an evaluation without adaptation, which needs torch and is loaded elsewhere.

    Raises:
        BundleError: no such model.
        BackendUnavailable: a package is missing; the message names it.
        ValueError: adaptation, or refinement or another working size of a baseline.
    """
    if config.model in BASELINES:
        if config.adapt != "none" or config.refine or config.long_side_px is not None:
            raise ValueError(
                f"{config.model}: a baseline can neither be adapted nor refined, nor be given a "
                "working size"
            )
        return BASELINES[config.model]()
    if config.adapt != "none":
        raise ValueError(f"adapt: expected none where nothing learns, got {config.adapt!r}")
    method = ModelMethod(load_segmenter(config, threads), config.focus)
    return RefinedMethod(method) if config.refine else method


def load_segmenter(config: EvaluationConfig, threads: int | None = None) -> Segmenter:
    """The bundle of an evaluation, on working images of the size that it asks for.

    Raises:
        BundleError: no such model.
    """
    segmenter = Segmenter.load(config.model, threads=threads)
    if config.long_side_px is None:
        return segmenter
    manifest = replace(segmenter.bundle.manifest, long_side_px=config.long_side_px)
    return Segmenter(replace(segmenter.bundle, manifest=manifest), segmenter.engines)
