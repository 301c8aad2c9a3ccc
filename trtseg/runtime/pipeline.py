"""Encode once, click cheaply: the chain of networks and kernels over fixed buffers."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from time import perf_counter
from typing import Generic, TypeVar

import numpy as np

from trtseg import ops
from trtseg.bundle import Bundle
from trtseg.errors import EngineError
from trtseg.runtime.encoded import EncodedImage, on_host
from trtseg.runtime.engine import Array, Binding, Engine, Engines
from trtseg.runtime.guidance import GuidanceMaps, Region, grid_points
from trtseg.runtime.image import Picture, prepare, working_size
from trtseg.types import Click

SLOPE = 0.2  # of the leaky ReLU that follows the first layer
IDLE_WORKSPACES = 4
BOUND_SEGMENTS = 2  # the model's own engine and one with adapted weights
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Candidates:
    """What one pass of the networks gives; owned by whoever receives it.

    Attributes:
        maps: probabilities [M, H, W] on the base grid, in the backend's memory.
        scores: float32 [M], the selector's logits; all 0 without a selector: the first map leads.
        guidance_ms, segment_ms, select_ms: what the phases took.
    """

    maps: Array
    scores: np.ndarray
    guidance_ms: float
    segment_ms: float
    select_ms: float


class _Pool(Generic[_T]):
    """Buffers by size: made on demand, lent to one user at a time, few kept idle."""

    def __init__(self, make: Callable[[tuple[int, int]], _T]) -> None:
        self._make, self._lock = make, threading.Lock()
        self._idle: OrderedDict[int, tuple[tuple[int, int], _T]] = OrderedDict()

    @contextmanager
    def borrow(self, size: tuple[int, int]) -> Iterator[_T]:
        with self._lock:
            fitting = [key for key, (idle_size, _) in self._idle.items() if idle_size == size]
            workspace = self._idle.pop(fitting[-1])[1] if fitting else None
        if workspace is None:
            workspace = self._make(size)
        # On an error the buffers are dropped: what they hold is then unknown.
        yield workspace
        with self._lock:
            self._idle[id(workspace)] = (size, workspace)
            while len(self._idle) > IDLE_WORKSPACES:
                self._idle.popitem(last=False)


class _EncodeBuffers:
    """Input and outputs of the encoder at one working size."""

    def __init__(self, pipeline: Pipeline, size: tuple[int, int]) -> None:
        self.staged = np.empty((1, 3, *size), np.float32)
        self.binding: Binding | None = None
        self.levels: list[Array] = []
        memory, engine = pipeline.engines.memory, pipeline.engines.encoder
        # without an encoder there is only the network that reads the base to go by
        dtype = (engine or pipeline.engines.segment).inputs[0].dtype
        self.image: Array = memory.empty(self.staged.shape, dtype)
        if engine is None:
            # nothing but the image: one level of a single pixel, which adds zero everywhere
            nothing = memory.empty((pipeline.manifest.channels, 1, 1), dtype)
            memory.fill(nothing, 0)
            self.levels = [nothing]
            return
        shapes = engine.output_shapes({"image": self.staged.shape})
        outputs = {o.name: memory.empty(shapes[o.name], o.dtype) for o in engine.outputs}
        self.levels = [outputs[f"level_{i}"][0] for i in range(pipeline.manifest.levels)]
        self.binding = engine.bind({"image": self.image, **outputs}, memory.stream)


class ClickBuffers:
    """All that a click writes, at one working size."""

    def __init__(self, pipeline: Pipeline, size: tuple[int, int]) -> None:
        manifest, engines = pipeline.manifest, pipeline.engines
        memory, segment, select = engines.memory, engines.segment, engines.select
        self._memory = memory
        grid = pipeline.grid(size)
        self.x: Array = memory.empty((1, manifest.channels, *grid), segment.inputs[0].dtype)
        shapes = segment.output_shapes({"x": self.x.shape})
        self.outputs = {o.name: memory.empty(shapes[o.name], o.dtype) for o in segment.outputs}
        self.guidance = GuidanceMaps(
            manifest.guidance, grid, manifest.base_stride, memory, self.x.dtype
        )
        self.scores: Array | None = None
        self.select: Binding | None = None
        # What the selector reads in another dtype, or from the encoding, is copied for it.
        self.copies: list[tuple[str, Array]] = []
        if select is not None:
            self.scores = memory.empty((1, manifest.candidates), select.outputs[0].dtype)
            shared = {"guidance": self.guidance.maps, **self.outputs}
            inputs = {}
            for spec in select.inputs:
                array = shared.get(spec.name)
                if array is None or array.dtype != spec.dtype:
                    shape = (1, 3, *grid) if array is None else array.shape
                    array = memory.empty(shape, spec.dtype)
                    self.copies.append((spec.name, array))
                inputs[spec.name] = array
            self.select = select.bind({**inputs, "scores": self.scores}, memory.stream)
        self._segment: OrderedDict[Engine, Binding] = OrderedDict()

    def segment(self, engine: Engine) -> Binding:
        """The binding of an engine for `segment`: the usual one, or one with adapted weights."""
        binding = self._segment.get(engine)
        if binding is None:
            binding = engine.bind({"x": self.x, **self.outputs}, self._memory.stream)
            self._segment[engine] = binding
            if len(self._segment) > BOUND_SEGMENTS:
                self._segment.popitem(last=False)
        return binding

    def run_select(self, encoded: EncodedImage) -> None:
        """Score the candidates in the buffers; for models that have a selector."""
        if self.select is None:
            raise EngineError("select: this model has no selector")
        sources = {"image": encoded.grid_image, "guidance": self.guidance.maps, **self.outputs}
        for name, array in self.copies:
            self._memory.copy(sources[name], array)
        self.select.run()


class Pipeline:
    """The stages of one model on one backend. Threads share it; buffers are lent per call."""

    def __init__(self, bundle: Bundle, engines: Engines) -> None:
        self.manifest, self.engines, self.model = bundle.manifest, engines, bundle.fingerprint
        self._check_names()
        self._mean = np.array(self.manifest.mean, np.float32)
        self._scale = np.array(self.manifest.scale, np.float32)
        self._parameters = {
            name: engines.memory.array(values) for name, values in bundle.parameters.items()
        }
        self._encode_buffers = _Pool(lambda size: _EncodeBuffers(self, size))
        self._click_buffers = _Pool(lambda size: ClickBuffers(self, size))

    def _check_names(self) -> None:
        manifest, engines = self.manifest, self.engines
        levels = {f"level_{i}" for i in range(manifest.levels)}
        wanted: list[tuple[str, Engine | None, set[str], set[str]]] = [
            ("encoder", engines.encoder, {"image"}, levels),
            ("segment", engines.segment, {"x"}, {"masks"}),
            ("select", engines.select, set(manifest.select_inputs), {"scores"}),
        ]
        for role, engine, inputs, outputs in wanted:
            if engine is None:
                continue
            if {s.name for s in engine.inputs} != inputs:
                have = ", ".join(s.name for s in engine.inputs)
                raise EngineError(f"{role}: expected inputs {sorted(inputs)}, got {have}")
            missing = outputs - {s.name for s in engine.outputs}
            if missing:
                raise EngineError(f"{role}: no output {', '.join(sorted(missing))}")
        features = "features" in manifest.select_inputs
        if features and "features" not in {s.name for s in engines.segment.outputs}:
            raise EngineError("segment: no output features, which the selector reads")

    def working_size(self, height: int, width: int) -> tuple[int, int]:
        """The size at which the encoder sees a region of that size."""
        m = self.manifest
        return working_size(
            height, width, long_side_px=m.long_side_px, multiple_px=m.multiple_px
        )

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """The base grid of a working size."""
        return size[0] // self.manifest.base_stride, size[1] // self.manifest.base_stride

    def encode(
        self, picture: Picture, region: Region, size: tuple[int, int] | None = None
    ) -> EncodedImage:
        """Do all the work that no click changes.

        Args:
            picture: the image.
            region: which part, (y0, x0, y1, x1) in pixels, half open, inside the image.
            size: the working size; by default `working_size` of the region.

        Raises:
            EngineError: the encoder failed.
        """
        start = perf_counter()
        memory, manifest = self.engines.memory, self.manifest
        size = size or self.working_size(region[2] - region[0], region[3] - region[1])
        grid = self.grid(size)
        base = memory.empty((manifest.channels, *grid), self.engines.segment.inputs[0].dtype)
        grid_image = None
        with self._encode_buffers.borrow(size) as buffers:
            prepare(picture, region, self._mean, self._scale, buffers.staged)
            memory.copy(buffers.staged, buffers.image)
            if buffers.binding is not None:
                buffers.binding.run()
            ops.hypercolumn(
                buffers.levels,
                grid,
                image=buffers.image[0] if manifest.image_term else None,
                image_weight=self._parameters.get("image_weight"),
                bias=self._parameters["bias"],
                out=base,
                stream=memory.stream,
            )
            if "image" in manifest.select_inputs:
                stride = manifest.base_stride
                cells = buffers.staged.reshape(1, 3, grid[0], stride, grid[1], stride)
                grid_image = memory.array(cells.mean((3, 5), dtype=np.float32))
            memory.synchronize()
        for array in (base, grid_image):
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
        return EncodedImage(
            model=self.model,
            image_size=picture.size,
            region=region,
            working_size=size,
            base=base,
            grid_image=grid_image,
            source=picture,
            encode_ms=(perf_counter() - start) * 1e3,
        )

    def adopt(self, encoded: EncodedImage) -> EncodedImage:
        """The encoding in this pipeline's memory and precision.

        It may come from a file, or from another backend that runs the same model.
        """
        memory = self.engines.memory
        dtypes = {"base": self.engines.segment.inputs[0].dtype, "grid_image": np.dtype(np.float32)}
        moved = {}
        for name, dtype in dtypes.items():
            values = getattr(encoded, name)
            kind = type(memory.empty((1,), dtype))
            if values is None or (type(values) is kind and values.dtype == dtype):
                continue
            array = memory.empty(values.shape, dtype)
            memory.copy(on_host(values), array)
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
            moved[name] = array
        return replace(encoded, **moved) if moved else encoded

    def click(
        self,
        encoded: EncodedImage,
        clicks: Sequence[Click],
        previous: Array | None,
        segment: Engine | None = None,
    ) -> Candidates:
        """One pass of `segment` and `select`.

        Allocates nothing but the result once the buffers of this working size are there.

        Args:
            encoded: what `encode` gave.
            clicks: all clicks of the object, in image pixels.
            previous: the probability map [H, W] before the newest click, None at the first.
            segment: an engine to use in place of the model's own, for adapted weights.

        Raises:
            EngineError: a network failed.
        """
        memory, stream = self.engines.memory, self.engines.memory.stream
        times = [perf_counter()]
        with self._click_buffers.borrow(encoded.working_size) as buffers:
            grid = self.grid(encoded.working_size)
            points = (
                grid_points(clicks, encoded.region, grid, positive=True),
                grid_points(clicks, encoded.region, grid, positive=False),
            )
            buffers.guidance.update(points, previous)
            times.append(perf_counter())
            ops.add_guidance(
                encoded.base,
                buffers.guidance.maps[0],
                self._parameters["guidance_weight"],
                slope=SLOPE,
                out=buffers.x[0],
                stream=stream,
            )
            buffers.segment(segment or self.engines.segment).run()
            times.append(perf_counter())
            masks = buffers.outputs["masks"]
            if buffers.select is not None:
                buffers.run_select(encoded)
                scores = np.array(memory.host(buffers.scores)[0], np.float32)
            else:
                scores = np.zeros(self.manifest.candidates, np.float32)
            maps = memory.empty(masks.shape[1:], masks.dtype)
            memory.copy(masks[0], maps)
            memory.synchronize()
            times.append(perf_counter())
        if isinstance(maps, np.ndarray):
            maps.flags.writeable = False
        if not np.isfinite(scores).all():
            raise EngineError("select: the scores are not finite")
        phases = [(b - a) * 1e3 for a, b in pairwise(times)]
        return Candidates(maps, scores, *phases)
