"""The state of a session after each of its events, and how one follows from another.

A state is a pure function of the list of events: nothing else enters. Undo and redo move along the
list; they compute nothing and are exact.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import cv2
import numpy as np

from trtseg.runtime.encoded import EncodedImage
from trtseg.runtime.engine import Array
from trtseg.runtime.maps.candidates import CandidateMaps, Correction
from trtseg.runtime.maps.choice import Preference
from trtseg.runtime.maps.correction import keep_local
from trtseg.runtime.maps.denial import denies, meant
from trtseg.runtime.maps.edges import Edges
from trtseg.runtime.maps.focus import (
    covers,
    focus_region,
    image_box,
    object_box,
    resample,
    seam_weight,
)
from trtseg.runtime.maps.tidy import Tidy
from trtseg.runtime.pipeline import Candidates, Pipeline
from trtseg.runtime.session.events import Added, Event, MaskSet, Selected
from trtseg.runtime.session.observation import Adapter, Weights, observe
from trtseg.runtime.session.saved import Options
from trtseg.types import Click, Prompt, Region, Timing

KEPT_CROPS = 2


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A state; its arrays are never written again.

    Attributes:
        before: what it followed from; None for the first.
        event: what made it of that.
        prompts: all that count, the oldest first.
        region: where `candidates` lie in the image.
        candidates: M probability maps [H, W] on the base grid; None while nothing is selected.
        scores: float32 [M] of the selector.
        selected: index of the map that is shown; -1 while nothing is selected.
        wide: the last map [H, W] over all that was encoded, before any focus crop.
        carried: such a map of the candidate that the event went on from; None before the first.
        surround: in a crop, what its border fades into, float32 [H, W].
        preference: the candidate that the user chose, if any.
        given: a mask that was set, packed by `np.packbits`; shown as it is.
        box: around the mask in the image; filled in when the mask has been composed.
        weights: what the adapter made of the clicks up to here.
        composed: uint8 of the region's size, the mask of the map that is shown, where the click
            has made it on its way; dropped when it has been shown.
        edges: what refines the candidates before masks are composed of them, if anything does.
    """

    region: Region
    before: Snapshot | None = None
    event: Event | None = None
    prompts: tuple[Prompt, ...] = ()
    candidates: CandidateMaps | None = None
    scores: np.ndarray | None = None
    selected: int = -1
    wide: Array | None = None
    carried: Array | None = None
    surround: np.ndarray | None = None
    preference: Preference | None = None
    given: np.ndarray | None = None
    box: Region | None = None
    weights: Weights = None
    composed: np.ndarray | None = None
    edges: Edges | None = None

    @property
    def clicks(self) -> tuple[Click, ...]:
        """Those of the prompts that are clicks."""
        return tuple(prompt for prompt in self.prompts if isinstance(prompt, Click))

    def drawn(self, index: int) -> Array:
        """The map [H, W] of a candidate that its mask is composed of."""
        assert self.candidates is not None
        values = self.candidates[index]
        if self.edges is None:
            return values
        return self.edges.refine(values, self.region, self.prompts)

    @property
    def history(self) -> tuple[Snapshot, ...]:
        """All that it followed from, the first one first, and itself."""
        found = [self]
        while found[-1].before is not None:
            found.append(found[-1].before)
        return tuple(reversed(found))

    @property
    def events(self) -> tuple[Event, ...]:
        """What led here, the oldest first: of `history`, each but the first one's."""
        return tuple(step.event for step in self.history if step.event is not None)


class Stepper:
    """Makes snapshots for one session."""

    def __init__(
        self,
        pipeline: Pipeline,
        encoded: EncodedImage,
        options: Options,
        adapter: Adapter | None,
    ) -> None:
        self.encoded, self._options = encoded, options
        self._pipeline, self._adapter = pipeline, adapter
        self._tidy = Tidy(options.drop_islands_px, options.fill_holes_px)
        self._focus = options.focus and encoded.source is not None
        self._crops: OrderedDict[Region, EncodedImage] = OrderedDict()

    def start(self) -> Snapshot:
        """The state before any event."""
        weights = None if self._adapter is None else self._adapter.start()
        return Snapshot(self.encoded.region, weights=weights)

    def apply(self, before: Snapshot, event: Event) -> tuple[Snapshot, Timing]:
        """The state after an event; `before` is left as it is, whatever happens."""
        if isinstance(event, Added):
            return self._add(before, event)
        if isinstance(event, Selected):
            return self._select(before, event), Timing()
        return self._set_mask(before, event), Timing()

    def _add(self, before: Snapshot, event: Added) -> tuple[Snapshot, Timing]:
        pipeline = self._pipeline
        memory = pipeline.engines.memory
        prompts = (*before.prompts, *event.prompts)
        base = self._meant(before, event.prompts)
        region = self._region(base, prompts)
        encoded, focus_encode_ms = self._encoding(region)
        previous, surround = self._carry(base, region)
        start = perf_counter()
        weights, engine = before.weights, None
        if self._adapter is not None:
            shown = None if previous is None else memory.host(previous)
            observation = observe(
                encoded, prompts, shown, base.selected, len(event.prompts)
            )
            weights = self._adapter.adapt(weights, observation)
            engine = self._adapter.engine(weights)
        adapt_ms = (perf_counter() - start) * 1e3 if self._adapter is not None else 0.0
        edges = self._edges_of(encoded)
        # Only the selector's own choice, unfaded and unrefined, is known before the host has seen
        # the candidates.
        leads = surround is None and before.preference is None and edges is None
        found = pipeline.click(encoded, prompts, previous, engine, compose=leads)
        candidates = found.probabilities
        if surround is not None:
            candidates = self._fade(candidates, surround, region)
        selected = self._choose(before, found, candidates, region, prompts)
        threshold = pipeline.manifest.threshold
        merged = None
        if self._options.local and previous is not None:
            merged = keep_local(
                memory.host(previous), memory.host(candidates[selected]), event.prompts, region,
                threshold,
            )  # fmt: skip
        correction = Correction(
            self._tidy, prompts, region, self.encoded.image_size, threshold
        )
        maps = pipeline.with_room(
            lambda: CandidateMaps(memory, candidates, selected, correction, merged)
        )
        after = Snapshot(
            region=region,
            before=before,
            event=event,
            prompts=prompts,
            candidates=maps,
            scores=found.scores,
            selected=selected,
            wide=maps[selected] if surround is None else base.wide,
            carried=base.wide,
            surround=surround,
            preference=before.preference,
            weights=weights,
            composed=None if maps.changed else found.mask,
            edges=edges,
        )
        return after, Timing(
            focus_encode_ms=focus_encode_ms,
            adapt_ms=adapt_ms,
            guidance_ms=found.guidance_ms,
            segment_ms=found.segment_ms,
            select_ms=found.select_ms,
        )

    def _meant(self, before: Snapshot, newest: tuple[Prompt, ...]) -> Snapshot:
        """`before` as if the candidate that the newest prompts go on from had been shown."""
        maps, scores, region = before.candidates, before.scores, before.region
        clicks = [one for one in newest if isinstance(one, Click) and not one.positive]
        if not clicks or maps is None or scores is None or len(maps) < 2:
            return before
        if before.preference is not None or self._options.local:
            return before  # the user has chosen, or wants what is shown to stay
        host, threshold = self._pipeline.engines.memory.host, self._pipeline.manifest.threshold
        shown = host(maps[before.selected])
        if not any(denies(click, shown, region, threshold) for click in clicks):
            return before
        values = self._pipeline.with_room(lambda: np.stack([host(one) for one in maps]))
        index = meant(maps, values, scores, newest, region, threshold)
        if index is None:
            return before
        return replace(
            before,
            selected=index,
            wide=maps[index] if before.surround is None else before.wide,
            box=image_box(values[index] >= threshold, region),
        )

    def _select(self, before: Snapshot, event: Selected) -> Snapshot:
        index = event.index
        candidates: Any = before.candidates  # the caller has checked that there is an `index`
        shown = self._pipeline.with_room(lambda: candidates[index])
        chosen = np.array(self._pipeline.engines.memory.host(shown), np.float32)
        return replace(
            before,
            before=before,
            event=event,
            selected=index,
            wide=shown if before.surround is None else before.wide,
            preference=Preference(before.region, chosen, len(before.prompts)),
            box=None,
        )

    def _set_mask(self, before: Snapshot, event: MaskSet) -> Snapshot:
        encoded = self.encoded
        image_height, image_width = encoded.image_size
        flat = np.unpackbits(event.packed, count=image_height * image_width)
        mask = flat.reshape(encoded.image_size)
        y0, x0, y1, x1 = encoded.region
        height, width = self._pipeline.grid(encoded.working_size)
        inside = np.ascontiguousarray(mask[y0:y1, x0:x1])
        method = cv2.INTER_AREA if height * width < inside.size else cv2.INTER_LINEAR
        small = cv2.resize(inside * np.uint8(255), (width, height), interpolation=method)
        small = small.astype(np.float32) / 255
        memory = self._pipeline.engines.memory
        candidates = CandidateMaps(memory, memory.array(small[None]), 0)
        return Snapshot(
            region=encoded.region,
            before=before,
            event=event,
            candidates=candidates,
            scores=np.zeros(1, np.float32),
            selected=0,
            wide=candidates[0],
            given=event.packed,
            weights=before.weights,
        )

    def _region(self, before: Snapshot, prompts: tuple[Prompt, ...]) -> Region:
        whole = self.encoded.region
        if not self._focus or before.candidates is None:
            return whole
        box = object_box(before.box, prompts, whole)
        return focus_region(
            whole, before.region, box, max(self.encoded.working_size)
        )

    def _encoding(self, region: Region) -> tuple[EncodedImage, float]:
        if region == self.encoded.region:
            return self.encoded, 0.0
        # Popped and put back: two threads of one session at worst encode the same crop twice.
        crop = self._crops.pop(region, None)
        encode_ms = 0.0
        if crop is None:
            assert self.encoded.source is not None  # or there would be no focus
            crop = self._pipeline.encode(self.encoded.source, region, self.encoded.working_size)
            encode_ms = crop.encode_ms
        self._crops[region] = crop
        while len(self._crops) > KEPT_CROPS:
            try:
                self._crops.popitem(last=False)
            except KeyError:
                break
        return crop, encode_ms

    def _edges_of(self, encoded: EncodedImage) -> Edges | None:
        if not self._options.edges or encoded.guide is None:
            return None
        manifest = self._pipeline.manifest
        return Edges(
            memory=self._pipeline.engines.memory,
            guide=encoded.guide,
            tidy=self._tidy,
            image_size=self.encoded.image_size,
            threshold=manifest.threshold,
            scale=sum(manifest.scale) / len(manifest.scale),
        )

    def _carry(
        self, before: Snapshot, region: Region
    ) -> tuple[Array | None, np.ndarray | None]:
        """(previous map, surround) for a click on `region`."""
        if before.candidates is None:
            return None, None
        memory, whole = self._pipeline.engines.memory, self.encoded.region
        shown = before.candidates[before.selected]
        if region == before.region:
            return shown, before.surround
        carried = resample(memory.host(before.wide), whole, region)
        if before.region != whole:
            finer = resample(memory.host(shown), before.region, region)
            carried = np.where(covers(carried.shape, before.region, region), finer, carried)
        return memory.array(carried), None if region == whole else carried

    def _fade(self, candidates: Array, surround: np.ndarray, region: Region) -> Array:
        """Candidates of a crop, fading into what surrounds it."""
        memory = self._pipeline.engines.memory
        weight = seam_weight(surround.shape, region, self.encoded.region)
        values = memory.host(candidates)
        faded = surround + weight * (values.astype(np.float32) - surround)
        result = memory.array(faded.astype(values.dtype, copy=False))
        if isinstance(result, np.ndarray):
            result.flags.writeable = False
        return result

    def _choose(
        self,
        before: Snapshot,
        found: Candidates,
        candidates: Array,
        region: Region,
        prompts: tuple[Prompt, ...],
    ) -> int:
        if before.preference is None:
            return int(found.scores.argmax())
        values = self._pipeline.engines.memory.host(candidates)
        threshold = self._pipeline.manifest.threshold
        return before.preference.choose(values, region, prompts, threshold)
