"""Encode once, click cheaply: the chain of networks and kernels over fixed buffers."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from time import perf_counter
from typing import Generic, TypeVar

import numpy as np

from trtseg import ops
from trtseg.bundle import Bundle
from trtseg.errors import EngineError, OutOfMemory
from trtseg.runtime.encoded import EncodedImage
from trtseg.runtime.engine import Array, Binding, Engine, Engines, Memory, Recorder, on_host
from trtseg.runtime.guidance import GuidanceMaps, Region, grid_points
from trtseg.runtime.image import Picture, prepare, working_size
from trtseg.runtime.recording import Recorded
from trtseg.runtime.trial import check_networks
from trtseg.types import Click

SLOPE = 0.2  # of the leaky ReLU that follows the first layer
LANES = 4  # calls at the same moment; more wait for one of them
IDLE_WORKSPACES = 4  # sizes of each kind that a lane keeps buffers for
BOUND_SEGMENTS = 2  # the model's own engine and one with adapted weights
RECORDED_CLICKS = 4  # per size: with and without a mask, of the own engine and adapted ones
ROOM = 32  # clicks of a kind for which a recording need not be made anew
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Candidates:
    """What one pass of the networks gives; owned by whoever receives it.

    Attributes:
        maps: probabilities [M, H, W] on the base grid, in the backend's memory.
        scores: float32 [M], the selector's; all 0 without a selector: the first map leads.
        mask: uint8 on the host, of the size that was asked for: the mask of the leading map; None
            where it was not asked for, or the backend composes no masks on the way.
        guidance_ms, segment_ms, select_ms: what the phases took; a replayed graph is one phase,
            and counts as `segment_ms`.
    """

    maps: Array
    scores: np.ndarray
    mask: np.ndarray | None
    guidance_ms: float
    segment_ms: float
    select_ms: float


class _BySize(Generic[_T]):
    """Buffers by size: made on demand, the least recently used dropped."""

    def __init__(self, make: Callable[[tuple[int, int]], _T]) -> None:
        self._make = make
        self.kept: OrderedDict[tuple[int, int], _T] = OrderedDict()

    def take(self, size: tuple[int, int]) -> _T:
        """Those of a size; `keep` gives them back. What is not given back is dropped."""
        kept = self.kept.pop(size, None)
        return self._make(size) if kept is None else kept

    def keep(self, size: tuple[int, int], buffers: _T) -> None:
        self.kept[size] = buffers
        while len(self.kept) > IDLE_WORKSPACES:
            self.kept.popitem(last=False)


class Lane:
    """What one call at a time needs: a stream with its scratch memory, and buffers by size."""

    def __init__(self, pipeline: Pipeline) -> None:
        memory = pipeline.engines.memory.lane()
        self.memory = memory
        self.encoders = _BySize(lambda size: _EncodeBuffers(pipeline, memory, size))
        self.clicks = _BySize(lambda size: ClickBuffers(pipeline, memory, size))

    def clear(self) -> None:
        """Give back the memory of all buffers."""
        self.encoders.kept.clear()
        self.clicks.kept.clear()


class _Lanes:
    """At most `LANES` lanes: made on demand, lent to one thread at a time, kept."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._free = threading.Condition()
        self._idle: list[Lane] = []
        self._count = 0

    @contextmanager
    def encoders(self, size: tuple[int, int]) -> Iterator[tuple[Memory, _EncodeBuffers]]:
        """A lane's memory and its buffers for encoding at a working size."""
        with self._lend(lambda lane: size in lane.encoders.kept) as lane:
            buffers = lane.encoders.take(size)
            yield lane.memory, buffers
            # On an error the buffers are dropped: what they hold is then unknown.
            lane.encoders.keep(size, buffers)

    @contextmanager
    def clicks(self, size: tuple[int, int]) -> Iterator[tuple[Memory, ClickBuffers]]:
        """A lane's memory and its buffers for clicks at a working size."""
        with self._lend(lambda lane: size in lane.clicks.kept) as lane:
            buffers = lane.clicks.take(size)
            yield lane.memory, buffers
            lane.clicks.keep(size, buffers)

    def clear(self) -> None:
        """Give back the memory of all buffers that no call is using."""
        with self._free:
            for lane in self._idle:
                lane.clear()

    @contextmanager
    def _lend(self, suits: Callable[[Lane], bool]) -> Iterator[Lane]:
        with self._free:
            while not self._idle and self._count == LANES:
                self._free.wait()
            if self._idle:
                # The last one used, among those that have the buffers if there are such.
                lane = max(
                    enumerate(self._idle), key=lambda item: (suits(item[1]), item[0])
                )[1]
                self._idle.remove(lane)
            else:
                lane = Lane(self._pipeline)
                self._count += 1
        try:
            # What was queued outside of any lane, such as the map that a click starts from.
            lane.memory.follow(self._pipeline.engines.memory)
            yield lane
        except BaseException:
            # Buffers that a failing call used are dropped, and what is queued still writes there.
            with suppress(RuntimeError):  # the device's own: what failed first is told
                lane.memory.synchronize()
            raise
        finally:
            with self._free:
                self._idle.append(lane)
                self._free.notify()


class _EncodeBuffers:
    """Input and outputs of the encoder at one working size."""

    def __init__(self, pipeline: Pipeline, memory: Memory, size: tuple[int, int]) -> None:
        self.staged = np.empty((1, 3, *size), np.float32)
        self._network: Binding | None = None
        self._recorded = Recorded(memory, pipeline.engines.recorder)
        self.levels: list[Array] = []
        engine = pipeline.engines.encoder
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
        self._network = engine.bind({"image": self.image, **outputs}, memory.stream)

    def run(self) -> None:
        """Make the levels of the image in the buffer."""
        if self._network is not None:
            self._recorded.run(self._network.run, self._network.graph_key)


class ClickBuffers:
    """All that a click reads and writes, at one working size. See `recording` for what of it
    becomes one CUDA graph."""

    def __init__(self, pipeline: Pipeline, memory: Memory, size: tuple[int, int]) -> None:
        manifest, engines = pipeline.manifest, pipeline.engines
        segment, select = engines.segment, engines.select
        self._memory, self._recorder = memory, engines.recorder
        self._weight, self._threshold = pipeline.guidance_weight, manifest.threshold
        grid = pipeline.grid(size)
        dtype = segment.inputs[0].dtype
        self.x: Array = memory.empty((1, manifest.channels, *grid), dtype)
        shapes = segment.output_shapes({"x": self.x.shape})
        self.outputs = {o.name: memory.empty(shapes[o.name], o.dtype) for o in segment.outputs}
        self.guidance = GuidanceMaps(
            manifest.guidance, grid, manifest.base_stride, memory, dtype,
            room=ROOM if self._recorder is not None else 0,
        )  # fmt: skip
        # A recording has the base's address baked in: each image's is copied here. Elsewhere the
        # encoding's own array is read.
        self.base: Array = None
        if self._recorder is not None:
            self.base = memory.empty((manifest.channels, *grid), dtype)
        self._loaded: weakref.ref[EncodedImage] | None = None
        self.scores: Array | None = None
        self.host_scores = np.zeros((1, manifest.candidates), np.float32)
        self.select: Binding | None = None
        self._image: Array | None = None
        # What the selector reads in another dtype is copied for it.
        self._copies: list[tuple[Array, Array]] = []
        if select is not None:
            dtype = select.outputs[0].dtype
            self.scores = memory.empty((1, manifest.candidates), dtype)
            self.host_scores = memory.staging((1, manifest.candidates), dtype)
            shared = {"guidance": self.guidance.maps, **self.outputs}
            inputs = {}
            for spec in select.inputs:
                source = shared.get(spec.name)
                array = source
                if source is None:
                    array = self._image = memory.empty((1, 3, *grid), spec.dtype)
                elif source.dtype != spec.dtype:
                    array = memory.empty(source.shape, spec.dtype)
                    self._copies.append((source, array))
                inputs[spec.name] = array
            self.select = select.bind({**inputs, "scores": self.scores}, memory.stream)
        self._segments: OrderedDict[Engine, Binding] = OrderedDict()
        self._runs: OrderedDict[tuple[Binding, tuple[int, int] | None], _ClickRun] = OrderedDict()

    def segment(self, engine: Engine) -> Binding:
        """The binding of an engine for `segment`: the usual one, or one with adapted weights."""
        binding = self._segments.get(engine)
        if binding is None:
            binding = engine.bind({"x": self.x, **self.outputs}, self._memory.stream)
            self._segments[engine] = binding
            if len(self._segments) > BOUND_SEGMENTS:
                _, old = self._segments.popitem(last=False)
                for key in [key for key in self._runs if key[0] is old]:
                    del self._runs[key]
        return binding

    def load(
        self, encoded: EncodedImage, points: Sequence[np.ndarray], previous: Array | None
    ) -> None:
        """Take over what differs from click to click, see `GuidanceMaps.load`."""
        if self._loaded is None or self._loaded() is not encoded:
            self._loaded = None
            if self._recorder is None:
                self.base = encoded.base
            else:
                self._memory.copy(encoded.base, self.base)
            if self._image is not None:
                self._memory.copy(encoded.grid_image, self._image)
            self._loaded = weakref.ref(encoded)
        self.guidance.load(points, previous)

    def unload(self) -> None:
        """Keep no image's encoding alive."""
        if self._recorder is None:
            self.base = self._loaded = None

    def draw(self) -> None:
        """Guidance maps, and the input of `segment`."""
        self.guidance.draw()
        ops.add_guidance(
            self.base,
            self.guidance.maps[0],
            self._weight,
            slope=SLOPE,
            out=self.x[0],
            stream=self._memory.stream,
        )

    def run_select(self) -> None:
        """Score the candidates in the buffers; nothing for models without a selector."""
        if self.select is None:
            return
        for source, array in self._copies:
            self._memory.copy(source, array)
        self.select.run()
        self._memory.transfer(self.scores, self.host_scores)

    def compose(self, shown: Array, mask: Array) -> None:
        """The mask of the leading candidate; `shown` [h, w] is written, too."""
        masks, stream = self.outputs["masks"][0], self._memory.stream
        if self.scores is None:
            shown = masks[0]
        else:
            ops.best_map(masks, self.scores[0], shown, stream=stream)
        ops.compose_mask(shown, mask.shape, threshold=self._threshold, out=mask, stream=stream)

    def run(self, engine: Engine, mask_size: tuple[int, int] | None) -> _ClickRun:
        """Queue a click: from what was loaded to masks, scores and, if asked for, the mask.

        Args:
            engine: for `segment`.
            mask_size: (height, width) of a mask to compose; None for none.

        Returns:
            Where the mask is, and when the phases ended.
        """
        segment = self.segment(engine)
        run = self._runs.pop((segment, mask_size), None)
        if run is None:
            run = _ClickRun(self._memory, self._recorder, mask_size, self.outputs["masks"])
        self._runs[segment, mask_size] = run
        if len(self._runs) > RECORDED_CLICKS:
            self._runs.popitem(last=False)
        run.marks.clear()
        run.recorded.run(partial(self._work, segment, run), partial(self._key, segment))
        return run

    def _work(self, segment: Binding, run: _ClickRun) -> None:
        run.marks.clear()
        self.draw()
        run.marks.append(perf_counter())
        segment.run()
        run.marks.append(perf_counter())
        self.run_select()
        if run.mask is not None:
            self.compose(run.shown, run.mask)

    def _key(self, segment: Binding) -> Hashable | None:
        keys = [segment.graph_key(), () if self.select is None else self.select.graph_key()]
        return None if None in keys else (*keys, self.guidance.points.shape)


class _ClickRun:
    """What a click with one engine and one size of mask has for itself.

    Attributes:
        recorded: its recording.
        mask: uint8 [H, W] in the backend's memory, or None.
        shown: the leading candidate's map [h, w], where there is a mask.
        marks: when the phases ended at the host, in seconds; empty after a replay.
    """

    def __init__(
        self,
        memory: Memory,
        recorder: Recorder | None,
        mask_size: tuple[int, int] | None,
        masks: Array,
    ) -> None:
        self.recorded = Recorded(memory, recorder)
        self.mask = self.shown = None
        if mask_size is not None:
            self.mask = memory.empty(mask_size, np.dtype(np.uint8))
            self.shown = memory.empty(masks.shape[2:], masks.dtype)
        self.marks: list[float] = []


class Pipeline:
    """The stages of one model on one backend. Threads share it; buffers are lent per call."""

    def __init__(self, bundle: Bundle, engines: Engines) -> None:
        self.manifest, self.engines, self.model = bundle.manifest, engines, bundle.fingerprint
        self._check_names()
        check_networks(self.manifest, engines)
        self._mean = np.array(self.manifest.mean, np.float32)
        self._scale = np.array(self.manifest.scale, np.float32)
        self._parameters = {
            name: engines.memory.array(values) for name, values in bundle.parameters.items()
        }
        self.guidance_weight = self._parameters["guidance_weight"]
        self.lanes = _Lanes(self)

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

    def _with_room(self, call: Callable[[], _T]) -> _T:
        """A call that gets, if there is no room for it, the memory of all idle buffers."""
        try:
            return call()
        except OutOfMemory:
            pass  # and with the error goes what the failed call held
        self.lanes.clear()
        return call()

    def encode(
        self, picture: Picture, region: Region, size: tuple[int, int] | None = None
    ) -> EncodedImage:
        """Do all the work that no click changes.

        Args:
            picture: the image; on a device only where the backend computes on it.
            region: which part, (y0, x0, y1, x1) in pixels, half open, inside the image.
            size: the working size; by default `working_size` of the region.

        Raises:
            TypeError, ValueError: the image is on another device.
            EngineError: the encoder failed; `OutOfMemory` where there is no room.
        """
        return self._with_room(lambda: self._encode(picture, region, size))

    def _encode(
        self, picture: Picture, region: Region, size: tuple[int, int] | None
    ) -> EncodedImage:
        start = perf_counter()
        manifest = self.manifest
        if picture.on_device:
            try:
                pixels = self.engines.memory.adopt(picture.pixels)
            except (TypeError, ValueError) as error:
                raise type(error)(f"image: {error}") from None
            picture = replace(picture, pixels=pixels)
        size = size or self.working_size(region[2] - region[0], region[3] - region[1])
        grid = self.grid(size)
        grid_image = None
        with self.lanes.encoders(size) as (memory, buffers):
            base = memory.empty((manifest.channels, *grid), self.engines.segment.inputs[0].dtype)
            if picture.on_device:
                self._prepare_on_device(memory, picture, region, buffers.image[0])
            else:
                prepare(picture, region, self._mean, self._scale, buffers.staged)
                memory.copy(buffers.staged, buffers.image)
            buffers.run()
            with memory.queueing():
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
                grid_image = memory.cell_means(buffers.image, manifest.base_stride)
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

    def _prepare_on_device(
        self, memory: Memory, picture: Picture, region: Region, out: Array
    ) -> None:
        y0, x0, y1, x1 = region
        pixels = picture.pixels[y0:y1, x0:x1]
        if len(pixels.shape) == 2:
            pixels = pixels[:, :, None]
        elif pixels.strides[2] != pixels.dtype.itemsize:
            # channels that lie apart, as in torch's order
            dense = memory.empty(pixels.shape, pixels.dtype)
            memory.copy(pixels, dense)
            pixels = dense
        with memory.queueing():
            ops.prepare_image(
                pixels,
                out,
                mean=self.manifest.mean,
                scale=self.manifest.scale,
                bgr=picture.image_format in ("BGR", "BGRA"),
                stream=memory.stream,
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
        *,
        compose: bool = False,
    ) -> Candidates:
        """One pass of `segment` and `select`.

        Allocates nothing but the result once the buffers of this working size are there.

        Args:
            encoded: what `encode` gave.
            clicks: all clicks of the object, in image pixels.
            previous: the probability map [H, W] before the newest click, None at the first.
            segment: an engine to use in place of the model's own, for adapted weights.
            compose: make the leading candidate's mask, of the region's size in the image, where
                clicks are recorded: it then costs the host no wait for the scores.

        Raises:
            EngineError: a network failed; `OutOfMemory` where there is no room.
        """
        return self._with_room(
            lambda: self._click(encoded, clicks, previous, segment, compose)
        )

    def _click(
        self,
        encoded: EncodedImage,
        clicks: Sequence[Click],
        previous: Array | None,
        segment: Engine | None,
        compose: bool,
    ) -> Candidates:
        times = [perf_counter()]
        region, mask_size, mask = encoded.region, None, None
        if compose and self.engines.recorder is not None:
            mask_size = region[2] - region[0], region[3] - region[1]
        with self.lanes.clicks(encoded.working_size) as (memory, buffers):
            grid = self.grid(encoded.working_size)
            points = (
                grid_points(clicks, region, grid, positive=True),
                grid_points(clicks, region, grid, positive=False),
            )
            buffers.load(encoded, points, previous)
            run = buffers.run(segment or self.engines.segment, mask_size)
            times += run.marks or [perf_counter()]
            masks = buffers.outputs["masks"]
            maps = memory.empty(masks.shape[1:], masks.dtype)
            memory.copy(masks[0], maps)
            if run.mask is not None:
                mask = memory.fetch(run.mask)
            memory.synchronize()
            times.append(perf_counter())
            scores = np.array(buffers.host_scores[0], np.float32)
            buffers.unload()
        if isinstance(maps, np.ndarray):
            maps.flags.writeable = False
        if not np.isfinite(scores).all():
            raise EngineError("select: the scores are not finite")
        phases = [(b - a) * 1e3 for a, b in pairwise(times)]
        return Candidates(maps, scores, mask, *phases, *[0.0] * (3 - len(phases)))
