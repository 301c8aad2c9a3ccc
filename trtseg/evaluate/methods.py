"""Everything that can be evaluated, behind one interface: models, adapted models, baselines."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from trtseg.evaluate.protocol import SessionLike

BASELINES = {
    "graph-cut": ("graph_cut", "GraphCut"),
    "grabcut": ("grabcut", "GrabCut"),
    "random-walker": ("random_walker", "RandomWalker"),
    "geodesic-matting": ("geodesic_matting", "GeodesicMatting"),
    "euclidean-star": ("star_convexity", "EuclideanStar"),
    "geodesic-star": ("star_convexity", "GeodesicStar"),
}


class Method(Protocol):
    """Encodes an image once and opens a session per object."""

    def describe(self) -> dict[str, Any]:
        """Plain values that identify the method: results of two that differ are never mixed."""

    def encode(self, image: np.ndarray) -> Any:
        """Everything that no click changes; `image` is uint8 RGB [H, W, 3]."""

    def session(self, encoded: Any) -> Any:
        """A context manager whose value answers clicks (`SessionLike`) on one object."""


class ModelMethod:
    """A trained model through the public API, adapted to the corrections if asked for."""

    def __init__(self, segmenter: Any, adapt: str = "none", focus: bool = True) -> None:
        self._segmenter = segmenter
        self._adapt = adapt
        self._focus = "auto" if focus else None
        self._sequence = None
        if adapt in ("sequence", "both"):
            from trtseg.adapt import Sequence

            self._sequence = Sequence(segmenter, adapt)

    def describe(self) -> dict[str, Any]:
        bundle = self._segmenter.bundle
        return {"kind": "model", "name": bundle.name, "fingerprint": bundle.fingerprint,
                "adapt": self._adapt}  # fmt: skip

    def encode(self, image: np.ndarray) -> Any:
        # a sequence encodes by itself, since its weights may differ from image to image
        return image if self._sequence is not None else self._segmenter.encode(image, "RGB")

    @contextmanager
    def session(self, encoded: Any) -> Iterator[SessionLike]:
        if self._sequence is not None:
            with self._sequence.image(encoded, focus=self._focus) as session:
                yield session
        elif self._adapt == "image":
            from trtseg.adapt import ClickAdapter

            adapter = ClickAdapter(self._segmenter)
            yield self._segmenter.session(encoded, focus=self._focus, adapt=adapter)
        else:
            yield self._segmenter.session(encoded, focus=self._focus)


class BaselineMethod:
    """A classical method; see `trtseg.evaluate.baselines`."""

    def __init__(self, name: str) -> None:
        module_name, class_name = BASELINES[name]
        module = importlib.import_module(f"trtseg.evaluate.baselines.{module_name}")
        self._name = name
        self._baseline = getattr(module, class_name)()

    def describe(self) -> dict[str, Any]:
        return {"kind": "baseline", "name": self._name, "parameters": self._baseline.parameters()}

    def encode(self, image: np.ndarray) -> Any:
        return self._baseline.encode(image)

    @contextmanager
    def session(self, encoded: Any) -> Iterator[SessionLike]:
        yield self._baseline.session(encoded)


class RefinedMethod:
    """A model whose probabilities pass through a graph cut (Xu et al. 2016, section 3.3)."""

    def __init__(self, method: ModelMethod) -> None:
        from trtseg.evaluate.baselines.refinement import Refinement

        self._method = method
        self._refinement = Refinement()

    def describe(self) -> dict[str, Any]:
        return {**self._method.describe(), "refinement": self._refinement.parameters()}

    def encode(self, image: np.ndarray) -> Any:
        return self._method.encode(image), self._refinement.encode(image)

    @contextmanager
    def session(self, encoded: Any) -> Iterator[SessionLike]:
        inner, edges = encoded
        with self._method.session(inner) as session:
            yield self._refinement.session(session, edges)


def load_method(
    name: str,
    *,
    threads: int | None = None,
    adapt: str = "none",
    focus: bool = True,
    refine: bool = False,
) -> Method:
    """A method by name.

    Args:
        name: a baseline (`BASELINES`), a model inside the package, or the path of a bundle.
        threads: of the CPU for a model.
        adapt: "none", "image", "sequence" or "both".
        focus: whether a model may look closer at small objects.
        refine: whether a graph cut refines a model's masks.

    Raises:
        BundleError: no such model.
        BackendUnavailable: a package is missing; the message names it.
        ValueError: adaptation or refinement of a baseline.
    """
    if name in BASELINES:
        if adapt != "none" or refine:
            raise ValueError(f"{name}: a baseline can neither be adapted nor refined")
        return BaselineMethod(name)
    from trtseg.runtime.segmenter import Segmenter

    method = ModelMethod(Segmenter.load(name, threads=threads), adapt, focus)
    return RefinedMethod(method) if refine else method
