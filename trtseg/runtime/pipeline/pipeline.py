"""Encode once, click cheaply: the chain of networks and kernels over fixed buffers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from time import perf_counter
from typing import TypeVar

import numpy as np

from trtseg.bundle import Bundle
from trtseg.errors import EngineError, OutOfMemory
from trtseg.runtime.encoded import EncodedImage
from trtseg.runtime.engine import Array, Engine, Engines, TensorSpec, on_host
from trtseg.runtime.image import Picture, working_size
from trtseg.runtime.maps.edges import Guide
from trtseg.runtime.pipeline.buffers import Model
from trtseg.runtime.pipeline.lanes import Lanes
from trtseg.runtime.pipeline.trial import check_networks
from trtseg.runtime.prompts import on_grid
from trtseg.types import Prompt, Region

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Candidates:
    """What one pass of the networks gives; owned by whoever receives it.

    Attributes:
        probabilities: [M, H, W] on the base grid, in the backend's memory.
        scores: float32 [M], the selector's; all 0 without a selector: the first one leads.
        mask: uint8 on the host, of the size that was asked for: the mask of the leading one; None
            where it was not asked for, or the backend composes no masks on the way.
        guidance_ms, segment_ms, select_ms: what the phases took; a replayed graph is one phase,
            and counts as `segment_ms`.
    """

    probabilities: Array
    scores: np.ndarray
    mask: np.ndarray | None
    guidance_ms: float
    segment_ms: float
    select_ms: float


class Pipeline:
    """The stages of one model on one backend. Threads share it; buffers are lent per call."""

    def __init__(self, bundle: Bundle, engines: Engines) -> None:
        self.manifest, self.engines, self.model = bundle.manifest, engines, bundle.fingerprint
        self._check_names()
        check_networks(self.manifest, engines)
        memory = engines.memory
        parameters = {name: memory.array(values) for name, values in bundle.parameters.items()}
        self.stages = Model(self.manifest, engines, parameters)
        self.lanes = Lanes(self.stages)

    def _check_names(self) -> None:
        manifest, engines = self.manifest, self.engines
        levels = {f"level_{i}" for i in range(manifest.levels)}
        maps = {f"map_{i}" for i in range(len(manifest.maps))}
        wanted: list[tuple[str, Engine | None, set[str], set[str]]] = [
            ("encoder", engines.encoder, {"image"}, levels | maps),
            ("segment", engines.segment, {"x"} | maps, {"masks"}),
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
        return self.stages.grid(size)

    def with_room(self, call: Callable[[], _T]) -> _T:
        """A call that gets, if there is no room for it, the memory of all idle buffers.

        Raises:
            OutOfMemory: that was not enough. And what the call raises.
        """
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
        return self.with_room(lambda: self._encode(picture, region, size))

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
        grid_image = None
        with self.lanes.encoders(size) as (memory, buffers):
            base = self.stages.empty_base(memory, size)
            buffers.prepare(picture, region)
            buffers.encode()
            buffers.hypercolumn(base)
            maps = tuple(
                self.stages.inputs[f"map_{index}"].empty(memory, one.shape)
                for index, one in enumerate(buffers.maps)
            )
            for source, array in zip(buffers.maps, maps, strict=True):
                memory.copy(source, array)
            if "image" in manifest.select_inputs:
                grid_image = buffers.cell_means()
            guide = buffers.guide()
            memory.synchronize()
        for array in (base, grid_image, guide.fine, guide.coarse, *maps):
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
            maps=maps,
            guide=guide,
        )

    def adopt(self, encoded: EncodedImage) -> EncodedImage:
        """The encoding in this pipeline's memory, precision and layout.

        It may come from a file, or from another backend that runs the same model.
        """
        specs = self.stages.inputs
        base = self._own(encoded.base, specs["x"])
        maps = [self._own(one, specs[f"map_{i}"]) for i, one in enumerate(encoded.maps)]
        image = encoded.grid_image
        if image is not None:
            image = self._own(image, TensorSpec("grid_image", np.dtype(np.float32), ()))
        guide = encoded.guide
        same = base is encoded.base and image is encoded.grid_image
        if same and all(a is b for a, b in zip(maps, encoded.maps, strict=True)):
            return encoded
        if guide is not None:
            grey = TensorSpec("guide", np.dtype(np.float32), ())
            guide = Guide(self._own(guide.fine, grey), self._own(guide.coarse, grey))
        return replace(encoded, base=base, maps=tuple(maps), grid_image=image, guide=guide)

    def _own(self, values: Array, spec: TensorSpec) -> Array:
        """An array in this pipeline's memory, of this dtype and layout; the very same where it is
        one. Its batch of 1 may be left out."""
        memory = self.engines.memory
        if type(values) is type(memory.empty((1,), spec.dtype)) and spec.takes(values):
            return values
        array = spec.empty(memory, (1, *values.shape[-3:]))
        if len(values.shape) < len(array.shape):
            array = array[0]
        memory.copy(on_host(values), array)
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
        return array

    def click(
        self,
        encoded: EncodedImage,
        prompts: Sequence[Prompt],
        previous: Array | None,
        segment: Engine | None = None,
        *,
        compose: bool = False,
    ) -> Candidates:
        """One pass of `segment` and `select`.

        Allocates nothing but the result once the buffers of this working size are there.

        Args:
            encoded: what `encode` gave.
            prompts: all prompts of the object, in image pixels.
            previous: the probability map [H, W] before the newest prompt, None at the first.
            segment: an engine to use in place of the model's own, for adapted weights.
            compose: make the leading candidate's mask, of the region's size in the image, where
                clicks are recorded: it then costs the host no wait for the scores.

        Raises:
            EngineError: a network failed; `OutOfMemory` where there is no room.
        """
        return self.with_room(
            lambda: self._click(encoded, prompts, previous, segment, compose)
        )

    def _click(
        self,
        encoded: EncodedImage,
        prompts: Sequence[Prompt],
        previous: Array | None,
        segment: Engine | None,
        compose: bool,
    ) -> Candidates:
        times = [perf_counter()]
        region, mask_size, mask = encoded.region, None, None
        if compose and self.engines.recorder is not None:
            mask_size = region[2] - region[0], region[3] - region[1]
        with self.lanes.clicks(encoded.working_size) as (memory, buffers):
            drawn = on_grid(prompts, region, self.grid(encoded.working_size))
            buffers.load(encoded, drawn, previous)
            run = buffers.run(segment or self.engines.segment, mask_size)
            times += run.marks or [perf_counter()]
            masks = buffers.outputs["masks"]
            probabilities = memory.empty(masks.shape[1:], masks.dtype)
            memory.copy(masks[0], probabilities)
            if run.mask is not None:
                mask = memory.fetch(run.mask)
            memory.synchronize()
            times.append(perf_counter())
            scores = np.array(buffers.host_scores[0], np.float32)
            buffers.unload()
        if isinstance(probabilities, np.ndarray):
            probabilities.flags.writeable = False
        if not np.isfinite(scores).all():
            raise EngineError("select: the scores are not finite")
        phases = [(b - a) * 1e3 for a, b in pairwise(times)]
        return Candidates(probabilities, scores, mask, *phases, *[0.0] * (3 - len(phases)))
