"""The fixed buffers of a working size, and the stages that work on them."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import numpy as np

from trtseg import ops
from trtseg.bundle import Manifest
from trtseg.runtime.encoded import EncodedImage
from trtseg.runtime.engine import (
    Array,
    Binding,
    Engine,
    Engines,
    HostMemory,
    Memory,
    Recorder,
    TensorSpec,
)
from trtseg.runtime.image import Picture, prepare
from trtseg.runtime.maps.edges import Guide, make_guide
from trtseg.runtime.pipeline.guidance_maps import GuidanceMaps
from trtseg.runtime.pipeline.recording import Recorded
from trtseg.runtime.prompts import GridPrompts
from trtseg.types import Region

SLOPE = 0.2  # of the leaky ReLU that follows the first layer
BOUND_SEGMENTS = 2  # the model's own engine and one with adapted weights
RECORDED_CLICKS = 4  # per size: with and without a mask, of the own engine and adapted ones
ROOM = 32  # clicks of a kind for which a recording need not be made anew


@dataclass(frozen=True, eq=False)
class Model:
    """What all buffers of one model on one backend share.

    Attributes:
        manifest: of the bundle.
        engines: the networks.
        parameters: of the bundle, in the backend's memory.
    """

    manifest: Manifest
    engines: Engines
    parameters: Mapping[str, Array]

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """The base grid of a working size."""
        return size[0] // self.manifest.base_stride, size[1] // self.manifest.base_stride

    def map_shapes(self, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        """The image maps that `segment` reads, by name, at a working size."""
        return {
            f"map_{index}": (1, one.channels, size[0] // one.stride, size[1] // one.stride)
            for index, one in enumerate(self.manifest.maps)
        }

    def segment_shapes(self, size: tuple[int, int]) -> dict[str, tuple[int, ...]]:
        """All that `segment` reads, by name, at a working size."""
        x = (1, self.manifest.channels, *self.grid(size))
        return {"x": x, **self.map_shapes(size)}

    @property
    def inputs(self) -> dict[str, TensorSpec]:
        """What `segment` reads, by name. An image's base, which becomes x, lies as that does."""
        return {spec.name: spec for spec in self.engines.segment.inputs}

    def empty_base(self, memory: Memory, size: tuple[int, int]) -> Array:
        """Room for the base of an image at a working size, [C, h, w]."""
        return self.inputs["x"].empty(memory, (1, self.manifest.channels, *self.grid(size)))[0]


class EncodeBuffers:
    """All that encoding reads and writes at one working size, and its stages: `prepare`, `encode`,
    `hypercolumn`.

    Attributes:
        image: [1, 3, H, W], the encoder's input.
        levels: its outputs that make the base, [C, h, w] each.
        maps: its other outputs, [1, C, h, w] each.
    """

    def __init__(self, model: Model, memory: Memory, size: tuple[int, int]) -> None:
        manifest, engine = model.manifest, model.engines.encoder
        self._model, self._memory, self._grid = model, memory, model.grid(size)
        self._staged = np.empty((1, 3, *size), np.float32)
        self._network: Binding | None = None
        self._recorded = Recorded(memory, model.engines.recorder)
        # without an encoder there is only the network that reads the base to go by
        dtype = (engine or model.engines.segment).inputs[0].dtype
        self.image: Array = memory.empty(self._staged.shape, dtype)
        if engine is None:
            # nothing but the image: one level of a single pixel, which adds zero everywhere
            nothing = memory.empty((manifest.channels, 1, 1), dtype)
            memory.fill(nothing, 0)
            self.levels: list[Array] = [nothing]
            self.maps: list[Array] = []
            return
        shapes = engine.output_shapes({"image": self._staged.shape})
        outputs = {o.name: o.empty(memory, shapes[o.name]) for o in engine.outputs}
        self.levels = [outputs[f"level_{i}"][0] for i in range(manifest.levels)]
        self.maps = [outputs[name] for name in model.map_shapes(size)]
        self._network = engine.bind({"image": self.image, **outputs}, memory.stream)

    def prepare(self, picture: Picture, region: Region) -> None:
        """Bring a part of an image into the encoder's input, resized and normalised: on the device
        where there is one, from the bytes of the image."""
        memory, manifest = self._memory, self._model.manifest
        y0, x0, y1, x1 = region
        pixels = picture.pixels[y0:y1, x0:x1]
        if not picture.on_device:
            if isinstance(memory, HostMemory) or pixels.dtype != np.uint8:
                prepare(picture, region, manifest.mean, manifest.scale, self._staged)
                memory.copy(self._staged, self.image)
                return
            uploaded = memory.empty(pixels.shape, pixels.dtype)
            memory.copy(pixels, uploaded)
            pixels = uploaded
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
                self.image[0],
                mean=manifest.mean,
                scale=manifest.scale,
                bgr=picture.image_format in ("BGR", "BGRA"),
                stream=memory.stream,
            )

    def encode(self) -> None:
        """Make the levels; nothing for a model without an encoder."""
        if self._network is not None:
            self._recorded.run(self._network.run, self._network.graph_key)

    def hypercolumn(self, base: Array) -> None:
        """Write the first layer of `segment` without its guidance term, [C, h, w]."""
        parameters = self._model.parameters
        with self._memory.queueing():
            ops.hypercolumn(
                self.levels,
                self._grid,
                image=self.image[0] if self._model.manifest.image_term else None,
                image_weight=parameters.get("image_weight"),
                bias=parameters["bias"],
                out=base,
                stream=self._memory.stream,
            )

    def guide(self) -> Guide:
        """The prepared image in grey."""
        return make_guide(self._memory, self.image, self._model.manifest.base_stride)

    def cell_means(self) -> Array:
        """The prepared image on the base grid, float32 [1, 3, h, w]."""
        return self._memory.cell_means(self.image, self._model.manifest.base_stride)


class ClickBuffers:
    """All that a click reads and writes at one working size, and its stages: `draw`, `segment`,
    `select`, `download`, `compose`. See `recording` for what of it becomes one CUDA graph."""

    def __init__(self, model: Model, memory: Memory, size: tuple[int, int]) -> None:
        manifest, engines = model.manifest, model.engines
        segment, select = engines.segment, engines.select
        self._memory, self._recorder = memory, engines.recorder
        self._weight = model.parameters["guidance_weight"]
        self._threshold = manifest.threshold
        grid = model.grid(size)
        inputs = {
            name: model.inputs[name].empty(memory, shape)
            for name, shape in model.segment_shapes(size).items()
        }
        self.x: Array = inputs.pop("x")
        # engines are bound to these, so that each image's maps are copied here
        self.maps: dict[str, Array] = inputs
        dtype = self.x.dtype
        shapes = segment.output_shapes(model.segment_shapes(size))
        self.outputs = {o.name: o.empty(memory, shapes[o.name]) for o in segment.outputs}
        self.guidance = GuidanceMaps(
            manifest.guidance, grid, manifest.base_stride, memory, dtype,
            room=ROOM if self._recorder is not None else 0,
        )  # fmt: skip
        # A recording has the base's address baked in: each image's is copied here. Elsewhere the
        # encoding's own array is read.
        self.base: Array = None
        if self._recorder is not None:
            self.base = model.empty_base(memory, size)
        self._loaded: weakref.ref[EncodedImage] | None = None
        self.scores: Array | None = None
        self.host_scores = np.zeros((1, manifest.candidates), np.float32)
        self._select: Binding | None = None
        self._image: Array | None = None
        # What the selector reads in another dtype or layout is copied for it.
        self._copies: list[tuple[Array, Array]] = []
        if select is not None:
            dtype = select.outputs[0].dtype
            self.scores = memory.empty((1, manifest.candidates), dtype)
            self.host_scores = memory.staging((1, manifest.candidates), dtype)
            shared = {"guidance": self.guidance.maps, **self.outputs}
            given = {}
            for spec in select.inputs:
                source = shared.get(spec.name)
                array = source
                if source is None:
                    array = self._image = spec.empty(memory, (1, 3, *grid))
                elif not spec.takes(source):
                    array = spec.empty(memory, source.shape)
                    self._copies.append((source, array))
                given[spec.name] = array
            self._select = select.bind({**given, "scores": self.scores}, memory.stream)
        self._segments: OrderedDict[Engine, Binding] = OrderedDict()
        self._runs: OrderedDict[tuple[Binding, tuple[int, int] | None], _ClickRun] = OrderedDict()

    def bound(self, engine: Engine) -> Binding:
        """The binding of an engine for `segment`: the usual one, or one with adapted weights."""
        binding = self._segments.get(engine)
        if binding is None:
            buffers = {"x": self.x, **self.maps, **self.outputs}
            binding = engine.bind(buffers, self._memory.stream)
            self._segments[engine] = binding
            if len(self._segments) > BOUND_SEGMENTS:
                _, old = self._segments.popitem(last=False)
                for key in [key for key in self._runs if key[0] is old]:
                    del self._runs[key]
        return binding

    def load(
        self, encoded: EncodedImage, prompts: GridPrompts, previous: Array | None
    ) -> None:
        """Take over what differs from click to click, see `GuidanceMaps.load`."""
        if self._loaded is None or self._loaded() is not encoded:
            self._loaded = None
            if self._recorder is not None:
                self._memory.copy(encoded.base, self.base)
            for source, array in zip(encoded.maps, self.maps.values(), strict=True):
                self._memory.copy(source, array)
            if self._image is not None:
                self._memory.copy(encoded.grid_image, self._image)
            self._loaded = weakref.ref(encoded)
        if self._recorder is None:
            self.base = encoded.base
        self.guidance.load(prompts, previous)

    def unload(self) -> None:
        """Keep no image's encoding alive."""
        if self._recorder is None:
            self.base = None

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

    def segment(self, engine: Engine) -> None:
        """The candidates, by an engine for `segment`."""
        self.bound(engine).run()

    def select(self) -> None:
        """Score the candidates; nothing for models without a selector."""
        if self._select is None:
            return
        for source, array in self._copies:
            self._memory.copy(source, array)
        self._select.run()

    def download(self) -> None:
        """Queue the scores' way to `host_scores`."""
        if self.scores is not None:
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
        segment = self.bound(engine)
        run = self._runs.pop((segment, mask_size), None)
        if run is None:
            run = _ClickRun(self._memory, self._recorder, mask_size, self.outputs["masks"])
        self._runs[segment, mask_size] = run
        if len(self._runs) > RECORDED_CLICKS:
            self._runs.popitem(last=False)
        run.marks.clear()
        run.recorded.run(partial(self._work, engine, run), partial(self.graph_key, engine))
        return run

    def _work(self, engine: Engine, run: _ClickRun) -> None:
        run.marks.clear()
        self.draw()
        run.marks.append(perf_counter())
        self.segment(engine)
        run.marks.append(perf_counter())
        self.select()
        self.download()
        if run.mask is not None:
            self.compose(run.shown, run.mask)

    def graph_key(self, engine: Engine) -> Hashable | None:
        """What a recorded click has baked in, see `Binding.graph_key`."""
        keys = [
            self.bound(engine).graph_key(),
            () if self._select is None else self._select.graph_key(),
        ]
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
