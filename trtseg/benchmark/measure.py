"""Timing the runtime: stage by stage on the device's clock, and whole on the wall's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from trtseg.runtime.image import as_picture
from trtseg.runtime.maps.compose import compose
from trtseg.runtime.pipeline import Pipeline
from trtseg.runtime.pipeline.buffers import ClickBuffers, EncodeBuffers
from trtseg.runtime.pipeline.recording import Recorded
from trtseg.runtime.prompts import on_grid
from trtseg.runtime.segmenter import Segmenter
from trtseg.runtime.session import Session
from trtseg.types import Click


@dataclass(frozen=True)
class Spread:
    """How long something took, in milliseconds."""

    count: int
    p50: float
    p95: float
    p99: float
    least: float
    mean: float

    @classmethod
    def of(cls, times_ms: Iterable[float]) -> Spread:
        """Percentiles by linear interpolation. Raises ValueError without a time."""
        values = np.fromiter(times_ms, float)
        if not len(values):
            raise ValueError("times_ms: expected at least one")
        p50, p95, p99 = (float(v) for v in np.percentile(values, (50, 95, 99)))
        return cls(len(values), p50, p95, p99, float(values.min()), float(values.mean()))


def picture_of(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A smooth random photograph, uint8 [H, W, 3]: what is timed must not depend on the data."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    waves = [
        np.sin(x / random.uniform(9, 90) + random.uniform(0, 6))
        + np.cos(y / random.uniform(9, 90) + random.uniform(0, 6))
        for _ in range(3)
    ]
    return (np.stack(waves, -1) * 60 + 128).astype(np.uint8)


def clicks_on(size: tuple[int, int], count: int, seed: int = 0) -> list[Click]:
    """The first click in the middle and positive, the others anywhere and of both kinds."""
    random = np.random.default_rng(seed)
    clicks = [Click(size[1] / 2, size[0] / 2)]
    for index in range(1, count):
        x, y = random.uniform(0, size[1] - 1), random.uniform(0, size[0] - 1)
        clicks.append(Click(x, y, index % 2 == 0))
    return clicks


# Written before every timed stage: more than any cache holds, and enough work to keep the GPU
# busy while the host queues the stage.
FLUSH_BYTES = 2**28
FLUSHES = 8


class StageClock:
    """Times single calls: by CUDA events where the memory is a GPU's, else by the wall.

    On a GPU the stage is queued behind other work, which also empties the caches: on an idle
    stream a short stage would take as long as the host takes to queue it, and it would find in the
    cache what a click finds in memory.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._memory: Any = pipeline.engines.memory
        self._cupy = getattr(self._memory, "cupy", None)
        self._flushed: Any = None
        if self._cupy is not None:
            self._flushed = self._memory.empty((FLUSH_BYTES,), np.dtype(np.uint8))
        self.times: dict[str, list[float]] = {}

    def run(self, stage: str, call: Callable[[], Any]) -> Any:
        """Call, and note what it took in milliseconds."""
        if self._cupy is None:
            start = perf_counter()
            result = call()
            self._note(stage, (perf_counter() - start) * 1e3)
            return result
        events = [self._cupy.cuda.Event() for _ in range(2)]
        self._memory.synchronize()
        for _ in range(FLUSHES):
            self._memory.fill(self._flushed, 0)
        events[0].record(self._memory.cupy_stream)
        result = call()
        events[1].record(self._memory.cupy_stream)
        events[1].synchronize()
        self._note(stage, float(self._cupy.cuda.get_elapsed_time(*events)))
        return result

    def _note(self, stage: str, time_ms: float) -> None:
        self.times.setdefault(stage, []).append(time_ms)


def time_stages(
    segmenter: Segmenter, image: np.ndarray, *, repeats: int, warmup: int
) -> dict[str, Spread]:
    """Every stage of an encode and of a click by itself, nothing overlapping.

    Returns:
        Spreads of upload (with the resizing on the CPU), encoder, hypercolumn, guidance, f, g,
        download (the scores) and compose (the mask, and its way back from a GPU); stages that
        the model does not have are left out.
    """
    pipeline = segmenter.pipeline
    memory, engines = pipeline.engines.memory, pipeline.engines
    picture = as_picture(image)
    region = (0, 0, *picture.size)
    size = pipeline.working_size(*picture.size)
    grid = pipeline.grid(size)
    encoded = pipeline.encode(picture, region)
    encode = EncodeBuffers(pipeline.stages, memory, size)
    click = ClickBuffers(pipeline.stages, memory, size)
    base = pipeline.stages.empty_base(memory, size)

    def recorded(stage: Callable[[], None]) -> Callable[[], None]:
        """A stage by itself as it runs within a click: replayed, where clicks are."""
        recording = Recorded(memory, engines.recorder)
        return lambda: recording.run(stage, partial(click.graph_key, engines.segment))

    segment = recorded(partial(click.segment, engines.segment))
    select = recorded(click.select)
    mask = np.empty(picture.size, np.uint8)
    clicks = clicks_on(picture.size, 2)

    def guide(shift: float) -> None:
        moved = [Click(each.x + shift, each.y, each.positive) for each in clicks]
        click.load(encoded, on_grid(moved, region, grid), None)
        click.draw()

    def download() -> int:
        click.download()
        memory.synchronize()
        return int(click.host_scores[0].argmax())

    def show(best: int) -> None:
        candidates = click.outputs["masks"][0]
        compose(memory, candidates[best], region, pipeline.manifest.threshold, mask)

    clock = StageClock(pipeline)
    for index in range(warmup + repeats):
        if index == warmup:
            clock.times.clear()
        clock.run("upload", partial(encode.prepare, picture, region))
        if engines.encoder is not None:
            clock.run("encoder", encode.encode)
        clock.run("hypercolumn", partial(encode.hypercolumn, base))
        clock.run("guidance", partial(guide, float(index % 5)))
        clock.run("f", segment)
        if engines.select is not None:
            clock.run("g", select)
        best = clock.run("download", download)
        clock.run("compose", partial(show, best))
    return {stage: Spread.of(times) for stage, times in clock.times.items()}


def time_whole(
    segmenter: Segmenter, image: np.ndarray, *, clicks: int, repeats: int, warmup: int
) -> dict[str, Any]:
    """Encodes and clicks as a program sees them: the time until the mask is there.

    Args:
        clicks: on each object.
        repeats, warmup: objects that count, and before them objects that do not.

    Returns:
        "first_encode_ms" and "first_click_ms" (nothing warm but the loaded model); spreads
        "encode" and "click" (all clicks), and "click_N" for the Nth.
    """
    start = perf_counter()
    encoded = segmenter.encode(image)
    first_encode = (perf_counter() - start) * 1e3
    encode_times, click_times = [], []
    by_number: list[list[float]] = [[] for _ in range(clicks)]
    first_click = None
    out = np.empty(image.shape[:2], np.uint8)
    for index in range(warmup + repeats):
        start = perf_counter()
        encoded = segmenter.encode(image)
        encode_ms = (perf_counter() - start) * 1e3
        session = segmenter.session(encoded, focus=None)
        for number, click in enumerate(clicks_on(image.shape[:2], clicks, index)):
            click_ms = _timed_click(session, click, out)
            first_click = first_click or click_ms
            if index >= warmup:
                click_times.append(click_ms)
                by_number[number].append(click_ms)
        if index >= warmup:
            encode_times.append(encode_ms)
    result: dict[str, Any] = {
        "first_encode_ms": first_encode,
        "first_click_ms": first_click,
        "encode": Spread.of(encode_times),
        "click": Spread.of(click_times),
    }
    for number in sorted({0, clicks // 2, clicks - 1}):
        result[f"click_{number + 1}"] = Spread.of(by_number[number])
    return result


def time_adaptation(
    sequence: Any, image: np.ndarray, *, clicks: int, repeats: int, warmup: int
) -> dict[str, Spread]:
    """Clicks that are learnt from, and the ends of images.

    Args:
        sequence: a `trtseg.adapt.Sequence` that adapts by "both".
        image: as elsewhere.
        clicks: on each object, at least 2: the first one corrects nothing.
        repeats, warmup: objects.

    Returns:
        Spreads "adapted click" (all but the first), "learning" (its part of those) and "end of
        image".
    """
    out = np.empty(image.shape[:2], np.uint8)
    encoded = sequence.learner.segmenter.encode(image)
    times: dict[str, list[float]] = {"adapted click": [], "learning": [], "end of image": []}
    for index in range(warmup + repeats):
        if index == warmup:
            for values in times.values():
                values.clear()
        with sequence.image(encoded, focus=None) as session:
            for number, click in enumerate(clicks_on(image.shape[:2], max(clicks, 2), index)):
                click_ms = _timed_click(session, click, out)
                if number:
                    times["adapted click"].append(click_ms)
                    times["learning"].append(session.prediction.timing.adapt_ms)
            start = perf_counter()
        times["end of image"].append((perf_counter() - start) * 1e3)
    return {name: Spread.of(values) for name, values in times.items()}


def time_concurrent(
    segmenter: Segmenter, image: np.ndarray, *, threads: int, clicks: int, repeats: int
) -> dict[str, Any]:
    """Sessions that click at the same time, each in a thread of its own.

    Returns:
        "threads", "clicks_per_s" of all together, and the spread "click" of what each waits for.
    """
    encoded = segmenter.encode(image)

    def work(number: int) -> list[float]:
        out = np.empty(image.shape[:2], np.uint8)
        times = []
        for index in range(repeats):
            session = segmenter.session(encoded, focus=None)
            for click in clicks_on(image.shape[:2], clicks, number * repeats + index):
                times.append(_timed_click(session, click, out))
        return times

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))  # every lane makes its buffers
        start = perf_counter()
        times = [time_ms for found in pool.map(work, range(threads)) for time_ms in found]
        elapsed_s = perf_counter() - start
    return {
        "threads": threads,
        "clicks_per_s": len(times) / elapsed_s,
        "click": Spread.of(times),
    }


def _timed_click(session: Session, click: Click, out: np.ndarray) -> float:
    """Milliseconds until the mask is there."""
    start = perf_counter()
    session.add_click(click.x, click.y, click.positive, out=out)
    return (perf_counter() - start) * 1e3
