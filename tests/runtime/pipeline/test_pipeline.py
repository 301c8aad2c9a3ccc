from __future__ import annotations

import gc
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from reference import prepare_image
from tiny_model import write_tiny

from trtseg import BundleError, Click, EngineError, Segmenter, bundle
from trtseg.runtime.engine import Engines
from trtseg.runtime.image import as_picture
from trtseg.runtime.onnxruntime import OnnxEngine
from trtseg.runtime.pipeline import Pipeline
from trtseg.runtime.pipeline.lanes import IDLE_WORKSPACES, LANES


def upsampled(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, half-pixel, float64."""
    for axis, length in ((1, size[0]), (2, size[1])):
        at = (np.arange(length) + 0.5) * values.shape[axis] / length - 0.5
        at = np.clip(at, 0, values.shape[axis] - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, values.shape[axis] - 1)
        shape = [1, 1, 1]
        shape[axis] = length
        part = (at - low).reshape(shape)
        values = values.take(low, axis) * (1 - part) + values.take(high, axis) * part
    return values


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"previous_mask": False, "click_map": "point"},
        {"inputs": ("image", "guidance", "masks")},
        {"stride": 1, "inputs": ("image", "masks"), "long_side_px": 64},
        {"candidates": 1},
        {"stride": 2, "seed": 5},
    ],
)
def test_the_chain_is_its_definition(tmp_path: Path, options: dict) -> None:
    """Encoder -> hypercolumn -> guidance -> segment -> select, against the formulas in NumPy."""
    made = bundle.read(write_tiny(tmp_path / "tiny", **options))
    m = made.manifest
    pipeline = Segmenter.load(made.path, threads=1).pipeline
    image = np.random.default_rng(3).integers(0, 256, (90, 120, 3), np.uint8)
    encoded = pipeline.encode(as_picture(image), (0, 0, 90, 120))

    def run(role: str, **feeds: np.ndarray) -> dict[str, np.ndarray]:
        session = onnxruntime.InferenceSession(made.graph(role))
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, feeds), strict=True))

    height, width = encoded.working_size
    normal = prepare_image(image, (height, width), m.mean, m.scale).astype(np.float32)
    grid = height // m.base_stride, width // m.base_stride
    levels = run("encoder", image=normal[None])
    base = made.parameters["bias"][:, None, None].astype(np.float64)
    for index in range(m.levels):
        base = base + upsampled(levels[f"level_{index}"][0].astype(np.float64), grid)
    if m.image_term:
        base = base + np.einsum("ck,khw->chw", made.parameters["image_weight"], normal)
    np.testing.assert_allclose(encoded.base, base, atol=1e-4, rtol=1e-4)

    clicks = (Click(60, 45), Click(70, 40), Click(10, 80, False))
    previous = np.random.default_rng(4).random(grid, np.float32)
    y, x = np.mgrid[: grid[0], : grid[1]]
    maps = np.zeros((m.guidance.channels, *grid))
    limit = 255 / m.base_stride
    for kind in (0, 1):
        nearest = np.full(grid, limit)
        for click in clicks:
            if click.positive == (kind == 0):
                cy = (click.y + 0.5) * grid[0] / 90 - 0.5
                cx = (click.x + 0.5) * grid[1] / 120 - 0.5
                nearest = np.minimum(nearest, np.hypot(y - cy, x - cx))
                if m.guidance.click_map == "point":
                    maps[kind, int(cy + 0.5), int(cx + 0.5)] = 1
        if m.guidance.click_map == "gaussian":
            maps[kind] = np.exp(-(nearest**2) / (2 * m.guidance.sigma_grid_px**2))
        maps[2 + kind] = nearest / limit
    if m.guidance.previous_mask:
        maps[4] = previous
    x = base + np.einsum("cg,ghw->chw", made.parameters["guidance_weight"], maps)
    x = np.where(x > 0, x, 0.2 * x).astype(np.float32)[None]
    outputs = run("segment", x=x)
    found = pipeline.click(encoded, clicks, previous)
    np.testing.assert_allclose(found.probabilities, outputs["masks"][0], atol=1e-4)
    if m.candidates > 1:
        cells = normal.reshape(3, grid[0], m.base_stride, grid[1], m.base_stride).mean((2, 4))
        everything = {"guidance": maps[None].astype(np.float32), "image": cells[None], **outputs}
        feeds = {name: everything[name] for name in m.select_inputs}
        scores = run("select", **feeds)["scores"][0]
        np.testing.assert_allclose(found.scores, scores, atol=1e-3)
    else:
        assert found.scores.tolist() == [0]


def test_nothing_is_allocated_after_the_first_click_of_a_size(segmenter: Segmenter) -> None:
    image = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    session = segmenter.session(segmenter.encode(image), focus=None)
    out = np.empty((600, 800), np.uint8)
    for x in (300, 320, 340):
        session.add_click(x, 300, out=out)
    kept = session.prediction.grid_probabilities.nbytes
    gc.collect()
    tracemalloc.start()
    for x in range(360, 460, 20):
        gc.collect()  # what waits for it is not kept
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        session.add_click(x, 300, x % 40 == 0, out=out)
        peak = tracemalloc.get_traced_memory()[1]
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
        # The candidates stay for undo; beside them Python's small objects and, in passing, the
        # few maps of the grid by which they are tidied and clicks are made to hold.
        assert peak - before < 6 * kept + 24_000
        assert after - before < kept + 12_000
    tracemalloc.stop()


def test_buffers_are_reused_and_bounded(segmenter: Segmenter, tiny_path: Path) -> None:
    pipeline = Segmenter.load(tiny_path, threads=1).pipeline
    for width in range(40, 400, 40):
        image = np.zeros((200, width, 3), np.uint8)
        encoded = pipeline.encode(as_picture(image), (0, 0, 200, width))
        pipeline.click(encoded, (Click(5, 5),), None)
    (lane,) = pipeline.lanes._idle
    assert len(lane.clicks.kept) == len(lane.encoders.kept) == IDLE_WORKSPACES
    borrow = pipeline.lanes.clicks
    with borrow((128, 128)) as (_, first), borrow((128, 128)) as (_, second):
        assert first is not second
    with borrow((128, 128)) as (_, third):
        assert third in (first, second)


def test_more_threads_than_lanes_wait(tiny_path: Path) -> None:
    pipeline = Segmenter.load(tiny_path, threads=1).pipeline
    held, go, seen = threading.Semaphore(0), threading.Event(), []

    def hold() -> None:
        with pipeline.lanes.clicks((64, 64)) as (_, buffers):
            seen.append(buffers)
            held.release()
            go.wait()

    threads = [threading.Thread(target=hold) for _ in range(LANES + 3)]
    for thread in threads:
        thread.start()
    for _ in range(LANES):
        held.acquire()
    assert len({id(buffers) for buffers in seen}) == LANES
    go.set()
    for thread in threads:
        thread.join()
    assert len({id(buffers) for buffers in seen}) == LANES
    assert len(pipeline.lanes._idle) == LANES


def test_buffers_that_a_failing_call_used_are_dropped(tiny_path: Path) -> None:
    pipeline = Segmenter.load(tiny_path, threads=1).pipeline
    error = EngineError("broken")

    def fail() -> None:
        with pipeline.lanes.clicks((64, 64)):
            raise error

    with pytest.raises(EngineError, match="broken"):
        fail()
    (lane,) = pipeline.lanes._idle
    assert not lane.clicks.kept


def test_networks_that_break_the_agreement_are_refused(tmp_path: Path, tiny_path: Path) -> None:
    good = Segmenter.load(tiny_path, threads=1)
    engines = good.engines

    def refused(message: str, **changes: object) -> None:
        merged = {name: getattr(engines, name) for name in Engines.__dataclass_fields__} | changes
        with pytest.raises(EngineError, match=message):
            Pipeline(good.bundle, Engines(**merged))

    refused(r"encoder: expected inputs \['image'\], got x", encoder=engines.segment)
    refused(r"segment: expected inputs \['x'\], got image", segment=engines.encoder)
    refused("select: expected inputs", select=engines.segment)
    other = Segmenter.load(write_tiny(tmp_path / "o", inputs=("masks",)), threads=1)
    refused("segment: no output features", segment=other.engines.segment)


def test_a_graph_that_is_none_is_refused(tmp_path: Path, tiny_path: Path) -> None:
    read = bundle.read(tiny_path)
    files = {p.name: p.read_bytes() for p in tiny_path.iterdir() if p.name != "manifest.json"}
    manifest = {k: v for k, v in read.manifest.raw.items() if k not in ("format", "files")}
    with pytest.raises(BundleError, match=r"select\.onnx \(select, fp32\): not ONNX"):
        bundle.write(tmp_path / "bad", manifest, {**files, "select.onnx": b"no graph"})
    with pytest.raises(EngineError, match="tiny/select: cannot be loaded"):
        OnnxEngine(b"no graph", "tiny/select", ["CPUExecutionProvider"])


def test_buffers_that_do_not_fit_are_refused(segmenter: Segmenter) -> None:
    engine = segmenter.engines.segment
    x = np.zeros((1, 8, 4, 4), np.float32)
    shapes = engine.output_shapes({"x": x.shape})
    outputs = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    engine.bind({"x": x, **outputs}).run()
    for bad in (x.astype(np.float16), x[:, :4], x[0], x[..., ::2]):
        with pytest.raises(EngineError, match="segment: x: expected contiguous float32"):
            engine.bind({"x": bad, **outputs})
    with pytest.raises(EngineError, match="no buffer for 'x'"):
        engine.bind(outputs)
