"""The TensorRT backend around the GPU: a stand-in for TensorRT computes with ONNX Runtime, a
stand-in for CuPy hands out host memory, and our CUDA kernels run in the emulation. The order of
calls, addresses, profiles, CUDA graphs and numbers are checked; speed, streams and TensorRT's own
kernels are not. Long, for all of it needs the same stand-ins."""

from __future__ import annotations

import importlib.util
import pickle
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tensorrt_fixture import device, fake_cupy, fake_tensorrt, graphs
from tiny_model import write_tiny

from trtseg import bundle as bundles
from trtseg.benchmark.layers import tensorrt_layers
from trtseg.cli import main
from trtseg.errors import BackendUnavailable, EngineError, OutOfMemory
from trtseg.runtime import tensorrt
from trtseg.runtime.engine import TensorSpec, pixels_of
from trtseg.runtime.pipeline.buffers import RECORDED_CLICKS, ROOM
from trtseg.runtime.pipeline.lanes import LANES
from trtseg.runtime.pipeline.recording import RUNS_BEFORE_RECORDING, Recorded
from trtseg.runtime.segmenter import Segmenter
from trtseg.runtime.tensorrt.build import BuildCancelled, build_engine
from trtseg.runtime.tensorrt.build_options import BuildOptions, Profile
from trtseg.runtime.tensorrt.bundle_plans import requests
from trtseg.runtime.tensorrt.device_memory import (
    CudaMemory,
    Gpu,
    describe_gpu,
    load_cupy,
    record_cuda_graph,
)
from trtseg.runtime.tensorrt.execution import TensorRTEngine
from trtseg.runtime.tensorrt.library import load_tensorrt
from trtseg.runtime.tensorrt.plan_cache import EngineCache
from trtseg.runtime.tensorrt.refit import RefitPair


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch):
    return device.install(monkeypatch)


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch, cupy):
    module = fake_tensorrt.make()
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


@pytest.fixture
def memory(cupy) -> CudaMemory:
    return CudaMemory(load_cupy())


def static(height, width):
    return Profile(*((height, width),) * 3)


def small_engine(trt, memory: CudaMemory, folder: Path, **options) -> TensorRTEngine:
    path = graphs.segment(folder / "small.onnx", dtype="float32", channels=8, dilations=(1, 2))
    build = BuildOptions(precision="fp32", refittable=options.pop("refittable", ()))
    profiles = [static(12, 16), Profile((4, 4), (12, 16), (32, 32))]
    plan = build_engine(path, profiles, options=build).plan
    return TensorRTEngine(load_tensorrt(), plan, "small", memory=memory, **options)


def bound(engine: TensorRTEngine, size: tuple[int, int], seed: int = 0, memory=None):
    """On the engine's own memory, or on a lane of it."""
    memory = memory or engine.memory
    x = np.random.default_rng(seed).standard_normal((1, 8, *size)).astype(np.float32)
    shapes = {"x": x.shape, **engine.output_shapes({"x": x.shape})}
    specs = (*engine.inputs, *engine.outputs)
    buffers = {spec.name: spec.empty(memory, shapes[spec.name]) for spec in specs}
    memory.copy(x, buffers["x"])
    return engine.bind(buffers, memory.stream), buffers, x


def expected(engine: TensorRTEngine, x: np.ndarray) -> np.ndarray:
    return engine.handle.session.run(["masks"], {"x": x})[0]


class Replayed:
    """A binding by itself, recorded as a click is."""

    def __init__(self, binding, memory: CudaMemory) -> None:
        self._binding, self._recorded = binding, Recorded(memory, record_cuda_graph)

    recorded = property(lambda self: self._recorded.recorded)

    def run(self) -> None:
        self._recorded.run(self._binding.run, self._binding.graph_key)


def test_an_engine_runs_and_replays_one_graph(trt, memory, tmp_path: Path) -> None:
    engine = small_engine(trt, memory, tmp_path)
    assert [*engine.inputs, *engine.outputs] == [
        TensorSpec("x", np.dtype(np.float32), (1, 8, None, None), channels_last=True),
        TensorSpec("masks", np.dtype(np.float32), (1, 6, None, None)),
    ]
    binding, buffers, x = bound(engine, (12, 16))
    network = Replayed(binding, memory)
    for run in range(5):
        memory.fill(buffers["masks"], np.nan)
        network.run()
        np.testing.assert_array_equal(memory.host(buffers["masks"]), expected(engine, x))
        assert network.recorded == (run >= RUNS_BEFORE_RECORDING)
    memory.copy(x + 1, buffers["x"])
    network.run()
    np.testing.assert_array_equal(memory.host(buffers["masks"]), expected(engine, x + 1))


def test_rtx_captures_by_itself(monkeypatch, memory, tmp_path: Path) -> None:
    trt = fake_tensorrt.make(flavour="tensorrt_rtx", own_graphs=True)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", trt)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    binding, _, _ = bound(small_engine(trt, memory, tmp_path), (12, 16))
    network = Replayed(binding, memory)
    for _ in range(5):
        network.run()
    assert not network.recorded
    configs = [value for what, value in trt.calls if what == "context"]
    assert {config.cuda_graph_strategy.name for config in configs} == {"WHOLE_GRAPH_CAPTURE"}


def test_the_tightest_profile_is_chosen(trt, memory, tmp_path: Path) -> None:
    engine = small_engine(trt, memory, tmp_path)
    assert engine.choose_profile({"x": (1, 8, 12, 16)}) == 0
    assert engine.choose_profile({"x": (1, 8, 16, 12)}) == 1
    assert engine.smallest_shapes() == {"x": (1, 8, 4, 4)}
    with pytest.raises(EngineError, match=r"x \[1, 8, 33, 16\] fits no profile .* 32\]"):
        engine.output_shapes({"x": (1, 8, 33, 16)})


def test_one_scratch_serves_all_sizes_and_engines(trt, memory, tmp_path: Path) -> None:
    first, second = (small_engine(trt, memory, tmp_path) for _ in range(2))
    binding, small_buffers, x_small = bound(first, (4, 4), 1)
    small = Replayed(binding, memory)
    for _ in range(5):
        small.run()
    assert small.recorded
    before = memory.scratch_bytes
    large, large_buffers, x_large = bound(second, (32, 32), 2)
    assert memory.scratch_bytes > before
    large.run()
    small.run()
    # The scratch moved: the graph with its old address is gone.
    assert not small.recorded
    np.testing.assert_array_equal(memory.host(small_buffers["masks"]), expected(first, x_small))
    np.testing.assert_array_equal(memory.host(large_buffers["masks"]), expected(second, x_large))


def test_wrong_buffers_are_refused(trt, memory, tmp_path: Path) -> None:
    engine = small_engine(trt, memory, tmp_path)
    x = engine.inputs[0].empty(memory, (1, 8, 12, 16))
    planar = memory.empty((1, 8, 12, 16), np.float32)
    masks = memory.empty((1, 6, 12, 16), np.float32)
    shifted = memory.empty((6 * 12 * 16 + 1,), np.float32)[1:].reshape(1, 6, 12, 16)
    for buffers, words in (
        ({"x": x}, "no buffer for 'masks'"),
        ({"x": planar, "masks": masks}, "x: expected channels-last float32"),
        ({"x": x, "masks": masks[:, :5]}, "expected contiguous"),
        ({"x": x, "masks": memory.empty((1, 6, 12, 16), np.float16)}, "got float16"),
        ({"x": x, "masks": memory.empty((1, 6, 13, 16), np.float32)}, "expected shape"),
        ({"x": x, "masks": shifted}, "multiple of 256"),
    ):
        with pytest.raises(EngineError, match=words):
            engine.bind(buffers, memory.stream)
    with pytest.raises(EngineError, match="stream"):
        engine.bind({"x": x, "masks": masks}, 12345)


@pytest.mark.parametrize(
    ("dtype", "channels", "layout"),
    # HWC8 would pad 12 channels to 16
    [("float16", 16, "HWC8"), ("float32", 16, "HWC"), ("float16", 12, "LINEAR")],
)
def test_features_are_channels_last_where_they_fill_accesses(
    trt, memory, tmp_path: Path, dtype, channels, layout
) -> None:
    path = graphs.segment(tmp_path / "f.onnx", dtype=dtype, channels=channels, dilations=(1,))
    build = BuildOptions(precision="fp16" if dtype == "float16" else "fp32")
    plan = build_engine(path, [static(12, 16)], options=build).plan
    engine = TensorRTEngine(load_tensorrt(), plan, "f", memory=memory)
    assert engine.handle.get_tensor_format("x").name == layout
    assert engine.handle.get_tensor_format("masks").name == "LINEAR"
    (x,), (masks,) = engine.inputs, engine.outputs
    assert x.channels_last == (layout != "LINEAR")
    values = np.random.default_rng(0).standard_normal((1, channels, 12, 16)).astype(dtype)
    buffers = {"x": x.empty(memory, values.shape), "masks": masks.empty(memory, (1, 6, 12, 16))}
    memory.copy(values, buffers["x"])
    np.testing.assert_array_equal(memory.host(buffers["x"]), values)
    engine.bind(buffers, memory.stream).run()
    np.testing.assert_array_equal(memory.host(buffers["masks"]), expected(engine, values))


def test_a_failing_run_says_what_tensorrt_said(trt, memory, tmp_path: Path) -> None:
    binding, buffers, x = bound(small_engine(trt, memory, tmp_path), (12, 16))
    trt.fail_execution = True
    with pytest.raises(EngineError, match="small: TensorRT cannot run: CUDA error 700"):
        binding.run()
    trt.fail_execution = False
    binding.run()
    np.testing.assert_array_equal(memory.host(buffers["masks"]), expected(binding._engine, x))


def test_shapes_and_scratch_that_cannot_be_told(trt, memory, tmp_path: Path) -> None:
    engine = small_engine(trt, memory, tmp_path)
    trt.fail_scratch = True
    with pytest.raises(EngineError, match="how much memory it needs: the partition is invalid"):
        bound(engine, (12, 16))
    trt.fail_scratch, trt.fail_shapes = False, True
    with pytest.raises(EngineError, match="shapes are refused: shape inference failed"):
        bound(engine, (16, 12))
    trt.fail_shapes = False
    bound(engine, (12, 16))[0].run()


def test_layers_are_timed_one_by_one(trt, memory, tmp_path: Path) -> None:
    engine = small_engine(trt, memory, tmp_path)
    shapes = {"x": (1, engine.inputs[0].shape[1], 12, 16)}
    rows = tensorrt_layers(engine, shapes, repeats=2)
    assert rows == [("conv + relu", "", 0.25), ("head", "", 0.25)]
    trt.timed_layers = ()
    with pytest.raises(EngineError, match="small: TensorRT tells no times of its layers"):
        tensorrt_layers(engine, shapes, repeats=2)


def test_a_recording_that_fails_leaves_plain_runs(trt, memory, tmp_path: Path) -> None:
    binding, buffers, x = bound(small_engine(trt, memory, tmp_path), (12, 16))
    network = Replayed(binding, memory)
    for _ in range(RUNS_BEFORE_RECORDING):
        network.run()
    trt.fail_execution = True
    with pytest.raises(EngineError):
        network.run()
    trt.fail_execution = False
    memory.fill(buffers["masks"], np.nan)
    network.run()
    assert not network.recorded
    np.testing.assert_array_equal(memory.host(buffers["masks"]), expected(binding._engine, x))


def test_threads_share_an_engine_and_nothing_else(trt, memory, tmp_path: Path) -> None:
    engine = small_engine(trt, memory, tmp_path)
    together, right = threading.Barrier(4), []

    def work(seed: int) -> None:
        lane = memory.lane()
        binding, buffers, x = bound(engine, (4 + seed, 8), seed, lane)
        network = Replayed(binding, lane)
        together.wait()
        for _ in range(6):
            network.run()
        right.append(np.array_equal(lane.host(buffers["masks"]), expected(engine, x)))
        together.wait()  # until all have run, no lane is gone

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 4
    runs = [value for what, value in trt.calls if what == "run"]
    for distinct in zip(*runs, strict=True):  # contexts, streams, scratch buffers
        assert len(set(distinct)) == 4


def test_a_lane_waits_for_what_it_follows(memory) -> None:
    lane = memory.lane()
    source = memory.array(np.arange(6, dtype=np.float32))  # still queued
    out = lane.empty((6,), np.dtype(np.float32))
    lane.follow(memory)
    lane.copy(source, out)
    np.testing.assert_array_equal(lane.host(out), np.arange(6))
    assert lane.stream != memory.stream
    assert memory.lane_of(lane.stream) is lane
    with pytest.raises(EngineError, match="of no lane"):
        memory.lane_of(99)


def test_a_corrupt_plan(trt, memory) -> None:
    with pytest.raises(EngineError, match="small: TensorRT cannot load this engine: the plan's"):
        TensorRTEngine(load_tensorrt(), b"x", "small", memory=memory)


def test_memory_has_a_hard_limit(cupy) -> None:
    memory = CudaMemory(load_cupy(), limit_mib=1)
    kept = memory.empty((1 << 19,), np.uint8)
    with pytest.raises(OutOfMemory, match=r"2\.0 MiB more are needed, 0\.5 MiB of the 1 MiB"):
        memory.empty((1 << 21,), np.uint8)
    assert memory.used_bytes() == 1 << 19
    del kept
    assert memory.used_bytes() == 0
    assert memory.empty((1 << 20,), np.uint8).shape == (1 << 20,)


def test_copies_between_host_device_and_other_libraries(memory) -> None:
    values = np.arange(12, dtype=np.float64).reshape(3, 4)[:, ::2]
    out = memory.empty((3, 2), np.float16)
    memory.copy(values, out)
    np.testing.assert_array_equal(memory.host(out), values)
    again = memory.empty((3, 2), np.float32)
    memory.copy(out, again)
    np.testing.assert_array_equal(memory.host(again), values)

    wanted = np.full((3, 2), 7, np.float32)
    for foreign in (
        fake_cupy.DlpackArray(wanted, fake_cupy.Stream()),
        fake_cupy.InterfaceArray(wanted, fake_cupy.Stream.null),
    ):
        memory.fill(again, 0)
        memory.copy(foreign, again)
        np.testing.assert_array_equal(memory.host(again), wanted)
    with pytest.raises(TypeError, match="on the GPU, got list"):
        memory.copy([1], again)


def test_refit_swaps_two_engines(trt, memory, tmp_path: Path) -> None:
    pair = RefitPair(lambda: small_engine(trt, memory, tmp_path, refittable=("head.bias",)))
    old = pair.engine
    binding, buffers, _ = bound(old, (12, 16))
    for _ in range(4):
        binding.run()
    before = memory.host(buffers["masks"])
    bias = np.linspace(-1, 1, 6, dtype=np.float32)
    new = pair.refit({"head.bias": memory.array(bias)})
    assert new is pair.engine
    assert new is not old
    binding.run()
    np.testing.assert_array_equal(memory.host(buffers["masks"]), before)
    logits = np.log(before / (1 - before))
    binding, buffers, _ = bound(new, (12, 16))
    binding.run()
    got = memory.host(buffers["masks"])
    np.testing.assert_allclose(np.log(got / (1 - got)), logits + bias[:, None, None], atol=1e-4)
    # The engine that answered first is refitted next: a graph of old weights is not replayed.
    network = Replayed(binding, memory)
    for _ in range(5):
        network.run()
    assert network.recorded
    assert pair.refit({"head.bias": memory.array(0 * bias)}) is old
    assert pair.refit({"head.bias": memory.array(2 * bias)}) is new
    network.run()
    assert not network.recorded


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"head.weight": np.zeros((6, 8, 1, 1), np.float32)}, "cannot be replaced"),
        ({"nothing": np.zeros(6, np.float32)}, "cannot be replaced"),
        ({"head.bias": np.zeros(7, np.float32)}, "count or type differs"),
        ({"head.bias": np.zeros(6, np.float16)}, "count or type differs"),
        ({"head.bias": np.zeros(6, np.int32)}, "float16 or float32, got int32"),
        ({"head.bias": np.full(6, np.nan, np.float32)}, "not finite"),
    ],
)
def test_a_refit_that_fails_leaves_the_answering_engine(
    trt, memory, tmp_path: Path, weights, words
) -> None:
    pair = RefitPair(lambda: small_engine(trt, memory, tmp_path, refittable=("head.bias",)))
    old = pair.engine
    with pytest.raises(EngineError, match=words):
        pair.refit({name: memory.array(values) for name, values in weights.items()})
    assert pair.engine is old
    new = pair.refit({"head.bias": memory.array(np.zeros(6, np.float32))})
    assert new is not old


def test_a_refit_that_breaks_off_reloads_the_engine(trt, memory, tmp_path: Path) -> None:
    loads = []

    def make() -> TensorRTEngine:
        loads.append(1)
        return small_engine(trt, memory, tmp_path, refittable="all")

    pair = RefitPair(make)
    bias = {"head.bias": memory.array(np.ones(6, np.float32))}
    trt.fail_refit = True
    with pytest.raises(EngineError, match="the refit failed: the refit broke off"):
        pair.refit(bias)
    trt.fail_refit = False
    pair.refit(bias)
    assert len(loads) == 3


# -- the whole backend ----------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny.trtseg")


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)


@pytest.fixture
def image(pixels: np.ndarray) -> np.ndarray:
    """As floats, which are prepared on the host whatever the backend: equal bit for bit."""
    return pixels.astype(np.float32) / 255


def test_the_same_masks_as_onnx_runtime(trt, tiny, image, tmp_path: Path) -> None:
    bundle = bundles.read(tiny)
    engines = tensorrt.load(bundle, cache=EngineCache(tmp_path / "cache"))
    assert engines.description == "tensorrt 11.4.0 on NVIDIA Imaginary, fp32"
    ours = Segmenter(bundle, engines)
    theirs = Segmenter.load(tiny, backend="onnxruntime")
    sessions = [segmenter.session(segmenter.encode(image)) for segmenter in (ours, theirs)]
    for x, y, positive in ((30, 40, True), (80, 20, True), (60, 60, False), (5, 5, True)):
        masks = [session.add_click(x, y, positive=positive).mask for session in sessions]
        np.testing.assert_array_equal(*masks)
    masks = [session.undo().mask for session in sessions]
    np.testing.assert_array_equal(*masks)


def test_the_shipped_model_runs_on_its_profiles(trt, image, tmp_path: Path) -> None:
    """Its networks read maps of several strides, each within the range of its own grid."""
    bundle = bundles.read("lite")
    engines = tensorrt.load(bundle, cache=EngineCache(tmp_path / "cache"), precision="fp32")
    pair = Segmenter(bundle, engines), Segmenter.load("lite", backend="onnxruntime", threads=1)
    masks = []
    for segmenter in pair:
        session = segmenter.session(segmenter.encode(image))
        session.add_box(20, 10, 70, 60)
        masks.append(session.add_click(40, 30).mask)
    np.testing.assert_array_equal(*masks)


def is_planar(array) -> bool:
    return array.flags.c_contiguous


def test_nothing_is_reformatted_between_networks_and_kernels(
    monkeypatch, trt, tiny, image, tmp_path: Path
) -> None:
    """Features channels-last, all else plane by plane, as the next one reads it."""
    ours = both(tiny, tmp_path)[0]
    copy = CudaMemory.copy

    def same_layout(self, source, out) -> None:
        if len(out.shape) >= 3 and not isinstance(source, np.ndarray):
            assert is_planar(source) == is_planar(out)
        copy(self, source, out)

    monkeypatch.setattr(CudaMemory, "copy", same_layout)
    session = ours.session(ours.encode(image), focus=None)
    for x, y, positive in POSITIONS[: RUNS_BEFORE_RECORDING + 2]:
        session.add_click(x, y, positive)
    (lane,) = ours.pipeline.lanes._idle
    (encode,), (click,) = lane.encoders.kept.values(), lane.clicks.kept.values()
    features = [*encode.levels, session.encoded.base, click.base, click.x]
    assert len(features) == 6
    for array in features:
        assert pixels_of(array).flags.c_contiguous
        assert not is_planar(array)
    planes = [encode.image, click.guidance.maps, click.scores, *click.outputs.values()]
    assert all(map(is_planar, planes))


def test_encodings_come_from_other_backends(trt, tiny, image, tmp_path: Path) -> None:
    """C-contiguous, from the host or a file: taken over in this pipeline's layout, and back."""
    ours, theirs = both(tiny, tmp_path)
    wanted = theirs.session(theirs.encode(image), focus=None).add_click(30, 40).mask
    moved = pickle.loads(pickle.dumps(theirs.encode(image))).with_image(image)
    assert not is_planar(ours.pipeline.adopt(moved).base)
    np.testing.assert_array_equal(ours.session(moved, focus=None).add_click(30, 40).mask, wanted)
    back = pickle.loads(pickle.dumps(ours.encode(image))).with_image(image)
    np.testing.assert_array_equal(theirs.session(back, focus=None).add_click(30, 40).mask, wanted)


def test_levels_that_lie_otherwise_than_x_are_refused(trt, tiny, tmp_path: Path) -> None:
    engines = both(tiny, tmp_path)[0].engines
    planar = [replace(spec, channels_last=False) for spec in engines.encoder.outputs]
    engines.encoder.outputs = tuple(planar)
    with pytest.raises(EngineError, match="level_0: expected channels-last, as segment's x, got C"):
        Segmenter(bundles.read(tiny), engines)


def both(tiny: Path, folder: Path, **options) -> tuple[Segmenter, Segmenter]:
    """The same model on the stand-ins for a GPU, and on ONNX Runtime."""
    bundle = bundles.read(tiny)
    engines = tensorrt.load(bundle, cache=EngineCache(folder / "cache"), **options)
    return Segmenter(bundle, engines), Segmenter.load(tiny, backend="onnxruntime", threads=1)


POSITIONS = [(10 + 7 * i % 100, 8 + 11 * i % 75, i % 3 != 1) for i in range(12)]


@pytest.mark.parametrize("edges", [True, False], ids=["edges", "mask in the graph"])
def test_a_click_is_one_graph(trt, tiny, image, tmp_path: Path, edges: bool) -> None:
    """Two images in turn on one set of buffers: what differs must come in by the buffers."""
    ours, theirs = both(tiny, tmp_path)
    images = [image, np.ascontiguousarray(image[::-1])]
    pairs = [
        [each.session(each.encode(one), focus=None, edges=edges) for each in (ours, theirs)]
        for one in images
    ]
    trt.calls.clear()
    fake_cupy.graphs_launched.clear()
    for number, (x, y, positive) in enumerate(POSITIONS):
        mine, wanted = (s.add_click(x, y, positive) for s in pairs[number % 2])
        np.testing.assert_array_equal(mine.mask, wanted.mask)
        assert mine.selected == wanted.selected
        assert mine.changed == wanted.changed
        plain = sum(what == "run" for what, _ in trt.calls)
        # `segment` and `select`, three times one by one and once more while they are recorded
        assert plain == 2 * min(number + 1, RUNS_BEFORE_RECORDING + 1)
        assert len(fake_cupy.graphs_launched) == max(0, number + 1 - RUNS_BEFORE_RECORDING)
    assert len({id(graph) for graph in fake_cupy.graphs_launched}) == 1
    for sessions in pairs:
        mine, wanted = (session.undo() for session in sessions)
        np.testing.assert_array_equal(mine.mask, wanted.mask)


def test_a_preferred_candidate_is_composed_after_the_graph(
    trt, tiny, image, tmp_path: Path
) -> None:
    sessions = [each.session(each.encode(image), focus=None) for each in both(tiny, tmp_path)]
    for x, y, positive in POSITIONS[:5]:
        for session in sessions:
            session.add_click(x, y, positive)
    for session in sessions:
        session.select(2)
    for x, y, positive in POSITIONS[5:]:
        mine, wanted = (session.add_click(x, y, positive) for session in sessions)
        assert mine.selected == wanted.selected
        np.testing.assert_array_equal(mine.mask, wanted.mask)


def test_more_clicks_than_there_is_room_for(trt, tiny, image, tmp_path: Path) -> None:
    sessions = [each.session(each.encode(image), focus=None) for each in both(tiny, tmp_path)]
    for number in range(ROOM + RUNS_BEFORE_RECORDING + 2):
        fake_cupy.graphs_launched.clear()
        x, y = number * 37 % 120, number * 23 % 90
        mine, wanted = (session.add_click(x, y) for session in sessions)
        np.testing.assert_array_equal(mine.mask, wanted.mask)
        grown = RUNS_BEFORE_RECORDING > number - ROOM >= 0
        warming = number < RUNS_BEFORE_RECORDING or grown
        assert len(fake_cupy.graphs_launched) == (0 if warming else 1)


def test_idle_buffers_make_room(trt, tiny, image, tmp_path: Path) -> None:
    """A call that does not fit beside buffers of other sizes gets their memory, at once."""
    ours, _ = both(tiny, tmp_path)
    memory = ours.engines.memory
    wide, tall = image, np.ascontiguousarray(image.transpose(1, 0, 2))
    session = ours.session(ours.encode(wide), focus=None, edges=False)
    for x, y, positive in POSITIONS[:5]:
        session.add_click(x, y, positive)
    (lane,) = ours.pipeline.lanes._idle
    assert list(lane.clicks.kept) == [(96, 128)]
    encoded = ours.encode(tall)
    memory._pool.set_limit(memory.used_bytes() + (100 << 10))
    ours.session(encoded, focus=None, edges=False).add_click(20, 30)
    assert list(lane.clicks.kept) == [(128, 96)]
    session.add_click(*POSITIONS[5])  # and back


def test_recorded_clicks_are_few(trt, tiny, tmp_path: Path) -> None:
    ours, _ = both(tiny, tmp_path)
    for width in range(120, 170, 5):  # of one working size, all of them
        encoded = ours.encode(np.zeros((width * 3 // 4, width, 3), np.uint8))
        ours.session(encoded, focus=None).add_click(5, 5)
    (lane,) = ours.pipeline.lanes._idle
    assert max(len(buffers._runs) for buffers in lane.clicks.kept.values()) <= RECORDED_CLICKS


def test_without_graphs_the_masks_are_the_same(trt, tiny, image, tmp_path: Path) -> None:
    ours, theirs = both(tiny, tmp_path, cuda_graphs=False)
    sessions = [each.session(each.encode(image)) for each in (ours, theirs)]
    for x, y, positive in POSITIONS:
        mine, wanted = (session.add_click(x, y, positive) for session in sessions)
        np.testing.assert_array_equal(mine.mask, wanted.mask)
    assert fake_cupy.graphs_launched == []


def test_sessions_in_threads_overlap_and_equal_serial(trt, tiny, image, tmp_path: Path) -> None:
    ours, theirs = both(tiny, tmp_path)
    wanted = theirs.session(theirs.encode(image))
    masks = [wanted.add_click(x, y, positive).mask for x, y, positive in POSITIONS]
    together, right = threading.Barrier(LANES), []
    borrow = ours.pipeline.lanes.clicks

    def work() -> None:
        session = ours.session(ours.encode(image))
        # All at once hold a lane, so that there are as many contexts, streams and scratches.
        with borrow(session.encoded.working_size) as (memory, _):
            right.append(memory.stream)
            together.wait()
        found = [session.add_click(x, y, positive).mask for x, y, positive in POSITIONS]
        right.append(all(map(np.array_equal, found, masks)))

    threads = [threading.Thread(target=work) for _ in range(LANES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right.count(True) == LANES
    assert len({each for each in right if each is not True}) == LANES


# -- images that are on the GPU ----------------------------------------------------------------

# pixels in float16 that are half a thousandth off, behind a normalisation and a random encoder
RESIZED = {"rtol": 0, "atol": 5e-3}
# sums in another order behind the same
ONE_IMAGE = {"rtol": 0, "atol": 2e-5}


@pytest.mark.parametrize("inputs", [("masks",), ("image", "guidance", "masks")], ids=len)
@pytest.mark.parametrize("library", ["cupy", "dlpack", "interface"])
def test_an_image_on_the_gpu_stays_there(
    monkeypatch, trt, cupy, pixels, tmp_path: Path, library, inputs
) -> None:
    ours, theirs = both(write_tiny(tmp_path / "tiny.trtseg", inputs=inputs), tmp_path)
    wanted, on_the_cpu = ours.encode(pixels), theirs.encode(pixels)
    if library == "cupy":
        stream = fake_cupy.Stream()  # the caller's current one, with work under way
        with stream:
            given = cupy.empty(pixels.shape, np.uint8)
            stream.queue(lambda: np.copyto(given.values, pixels))
    elif library == "dlpack":
        stream = fake_cupy.Stream()
        given = fake_cupy.DlpackArray(pixels, stream)
    else:
        stream = fake_cupy.Stream.null
        given = fake_cupy.InterfaceArray(pixels, stream)

    def refuse(self, *arguments: object, **options: object) -> None:
        raise AssertionError("a copy to the host")

    with monkeypatch.context() as patch, stream:
        patch.setattr(fake_cupy.DeviceArray, "get", refuse)
        found = ours.encode(given)
    memory = ours.engines.memory
    np.testing.assert_array_equal(memory.host(found.base), memory.host(wanted.base))
    np.testing.assert_allclose(memory.host(found.base), on_the_cpu.base, **ONE_IMAGE)
    if wanted.grid_image is not None:
        np.testing.assert_allclose(
            memory.host(found.grid_image), on_the_cpu.grid_image, **ONE_IMAGE
        )
    masks = [ours.session(each).add_click(60, 45).mask for each in (found, wanted)]
    np.testing.assert_array_equal(*masks)
    # A cutout needs the pixels on the host.
    cut = ours.session(found).add_click(60, 45).cutout()
    np.testing.assert_array_equal(cut[..., :3], np.where(cut[..., 3:] > 0, pixels, 0))


@pytest.mark.parametrize("image_format", ["GRAY", "BGR", "RGBA", "BGRA"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_formats_of_images_on_the_gpu(trt, tiny, tmp_path: Path, image_format, dtype) -> None:
    ours, _ = both(tiny, tmp_path)
    shape = (90, 120) if image_format == "GRAY" else (90, 120, len(image_format))
    levels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    values = levels if dtype == np.uint8 else (levels / 255).astype(dtype)
    region = (10, 4, 110, 80)
    given = fake_cupy.DlpackArray(values, fake_cupy.Stream())
    found = ours.encode(given, image_format, region=region)
    wanted = ours.encode(levels.astype(np.float32) / 255, image_format, region=region)
    memory = ours.engines.memory
    np.testing.assert_allclose(memory.host(found.base), memory.host(wanted.base), **RESIZED)


def test_channels_that_lie_apart(trt, tiny, pixels, tmp_path: Path) -> None:
    ours, _ = both(tiny, tmp_path)
    given = fake_cupy.DlpackArray(pixels, fake_cupy.Stream())
    apart = fake_cupy.DlpackArray(pixels, fake_cupy.Stream())
    apart.values = np.ascontiguousarray(pixels.transpose(2, 0, 1)).transpose(1, 2, 0)
    found = [ours.engines.memory.host(ours.encode(each).base) for each in (given, apart)]
    np.testing.assert_array_equal(*found)


def test_images_on_the_gpu_are_checked(trt, tiny, pixels, tmp_path: Path) -> None:
    ours, theirs = both(tiny, tmp_path)
    stream = fake_cupy.Stream()
    for values, error, words in (
        (pixels.astype(np.uint16), TypeError, "image: expected uint8, float16 or float32 on a dev"),
        (pixels[..., :2], ValueError, r"image: expected \[H, W\] or \[H, W, 1\|3\|4\]"),
    ):
        with pytest.raises(error, match=words):
            ours.encode(fake_cupy.DlpackArray(values, stream))
    other = ours.engines.memory
    other.index = 1
    with pytest.raises(ValueError, match="image: expected an array on GPU 1, where the model runs"):
        ours.encode(fake_cupy.DlpackArray(pixels, stream))
    words = r"image: expected an array in host memory.*DlpackArray on a device.*array.get\(\)"
    with pytest.raises(TypeError, match=words):
        theirs.encode(fake_cupy.DlpackArray(pixels, stream))


def test_bytes_on_the_host_are_prepared_on_the_gpu(
    monkeypatch, trt, tiny, image, pixels, tmp_path: Path
) -> None:
    ours, _ = both(tiny, tmp_path)
    region = (10, 4, 110, 80)
    wanted = ours.encode(image, region=region)

    def refuse(*arguments: object) -> None:
        raise AssertionError("prepared on the host")

    monkeypatch.setattr("trtseg.runtime.pipeline.buffers.prepare", refuse)
    found = ours.encode(pixels, region=region)
    memory = ours.engines.memory
    np.testing.assert_allclose(memory.host(found.base), memory.host(wanted.base), **RESIZED)
    # what is kept for crops and cutouts stays the caller's own
    assert found.source.pixels is pixels
    # rows and pixels that lie apart, in another order of channels
    turned = ours.encode(pixels[::-1, ::-1, ::-1], "BGR")
    plain = ours.encode(np.ascontiguousarray(pixels[::-1, ::-1]))
    np.testing.assert_array_equal(memory.host(turned.base), memory.host(plain.base))


def test_engines_are_built_once_and_rebuilt_for_another_tensorrt(
    monkeypatch, trt, tiny, tmp_path: Path
) -> None:
    bundle, cache = bundles.read(tiny), EngineCache(tmp_path / "cache")
    roles = len(bundle.manifest.graphs)

    def builds(module) -> int:
        return sum(what == "build" for what, _ in module.calls)

    tensorrt.load(bundle, cache=cache)
    tensorrt.load(bundle, cache=cache)
    assert builds(trt) == roles
    assert len(cache.entries()) == roles
    newer = fake_tensorrt.make("11.5.0")
    monkeypatch.setitem(sys.modules, "tensorrt", newer)
    tensorrt.load(bundle, cache=cache)
    assert builds(newer) == roles


def test_engines_of_other_sizes_and_options_are_found_with_them(trt, tiny, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    command = ["build-engine", str(tiny), "--output", str(folder), "--profile", "96x128"]
    assert main([*command, "--optimization-level", "5"]) == 0
    builds = [what for what, _ in trt.calls].count("build")
    assert builds == len(bundles.read(tiny).manifest.graphs)
    wanted = {
        "sizes": [((96, 128), (96, 128), (96, 128))],
        "options": BuildOptions(optimization_level=5),
    }
    tensorrt.load(bundles.read(tiny), cache=EngineCache(folder), **wanted)
    assert [what for what, _ in trt.calls].count("build") == builds
    tensorrt.load(bundles.read(tiny), cache=EngineCache(folder))
    assert [what for what, _ in trt.calls].count("build") == 2 * builds


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"sizes": [((96, 128), (96, 128))]}, ValueError, "sizes: expected"),
        ({"sizes": ["512"]}, ValueError, "sizes: expected"),
        ({"sizes": [((96.5, 96), (96, 96), (96, 96))]}, ValueError, "sizes: expected"),
        ({"sizes": [(96, 96, 96)]}, ValueError, "sizes: expected"),
        ({"sizes": [((128, 128), (96, 96), (96, 96))]}, ValueError, "in this order"),
        ({"sizes": [((48, 64), (48, 64), (48, 64))]}, ValueError, "multiples of 32"),
        ({"options": {}}, TypeError, "options: expected BuildOptions, got dict"),
    ],
)
def test_sizes_and_options_are_checked(trt, tiny, tmp_path: Path, arguments, error, words) -> None:
    with pytest.raises(error, match=words):
        tensorrt.load(bundles.read(tiny), cache=EngineCache(tmp_path / "cache"), **arguments)


def test_tensorrt_for_rtx_builds_for_the_card_at_hand(tiny) -> None:
    gpu = Gpu(0, "NVIDIA Imaginary", "8.9", 1)
    bundle = bundles.read(tiny)
    for request in requests(bundle, flavour="tensorrt_rtx", version="1.7.1", gpu=gpu):
        assert request.options.compute_capabilities == ("8.9",)
        assert request.key.compute_capability == "8.9"
    for request in requests(bundle, flavour="tensorrt", version="11.4", gpu=gpu):
        assert request.options.compute_capabilities == ()


def test_progress_and_cancellation_reach_the_build(trt, tiny, tmp_path: Path) -> None:
    bundle, cache = bundles.read(tiny), EngineCache(tmp_path / "cache")
    seen = []
    tensorrt.load(bundle, cache=cache, progress=lambda fraction, phase: seen.append(fraction))
    assert seen.count(1.0) >= len(bundle.manifest.graphs)
    cache.prune(0)
    with pytest.raises(BuildCancelled, match="tiny/"):
        tensorrt.load(bundle, cache=cache, cancelled=lambda: True)
    assert cache.entries() == []


def test_the_memory_limit_leaves_the_session_as_it_was(trt, tiny, image, tmp_path: Path) -> None:
    bundle = bundles.read(tiny)
    engines = tensorrt.load(bundle, cache=EngineCache(tmp_path / "cache"), limit_mib=1)
    segmenter = Segmenter(bundle, engines)
    hog = []

    def encode_for_ever() -> None:
        while True:
            hog.append(segmenter.encode(image))

    with pytest.raises(EngineError, match="out of memory"):
        encode_for_ever()
    del hog[1:]
    session = segmenter.session(hog[0])
    assert session.add_click(30, 40).mask.shape == image.shape[:2]


def test_sizes_are_checked(trt, tiny) -> None:
    with pytest.raises(ValueError, match="sizes: expected multiples of"):
        requests(
            bundles.read(tiny),
            flavour="tensorrt",
            version="1",
            gpu=None,
            sizes=[((7, 32),) * 3],
        )


def test_a_timing_cache_is_kept(trt, tiny, tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "cache")
    tensorrt.load(bundles.read(tiny), cache=cache)
    (timings,) = cache.directory.glob("*.timing")
    assert timings.read_bytes() == b"t" * len(bundles.read(tiny).manifest.graphs)
    timings.write_bytes(b"of another GPU")
    cache.prune(0)
    tensorrt.load(bundles.read(tiny), cache=cache)
    assert timings.read_bytes().startswith(b"t")


def test_options_reach_tensorrt(trt, tmp_path: Path) -> None:
    path = graphs.segment(tmp_path / "g.onnx", channels=8, dilations=(1,))
    options = BuildOptions(
        workspace_mib=7,
        optimization_level=5,
        hardware_compatibility="ampere_plus",
        refittable=("head.bias",),
    )
    build_engine(path, [static(8, 8)], options=options)
    (config,) = [value for what, value in trt.calls if what == "build"]
    assert ("workspace", 7 << 20) in trt.calls
    assert config.builder_optimization_level == 5
    assert config.hardware_compatibility_level is trt.HardwareCompatibilityLevel.AMPERE_PLUS
    assert config.flags == [trt.BuilderFlag.REFIT_INDIVIDUAL]
    with pytest.raises(EngineError, match="no weights named 'tail'"):
        build_engine(path, [static(8, 8)], options=replace(options, refittable=("tail",)))
    with pytest.raises(ValueError, match="only TensorRT for RTX"):
        build_engine(
            path,
            [static(8, 8)],
            options=BuildOptions(compute_capabilities=("8.6",)),
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "int8"}, "precision"),
        ({"workspace_mib": 0}, "workspace_mib"),
        ({"optimization_level": 6}, "optimization_level"),
        ({"hardware_compatibility": "all"}, "hardware_compatibility"),
        ({"compute_capabilities": ("9.0",)}, "compute_capabilities"),
    ],
)
def test_wrong_options(options, words) -> None:
    with pytest.raises(ValueError, match=words):
        BuildOptions(**options)


# -- what is missing is said -----------------------------------------------------------------


def test_the_message_without_tensorrt_names_what_to_install(monkeypatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendUnavailable) as caught:
        load_tensorrt()
    message = str(caught.value)
    for words in ("tensorrt_bindings:", "RTX", "H100", "pip install tensorrt-rtx", "PyPI alone"):
        assert words in message
    with pytest.raises(ValueError, match="target"):
        load_tensorrt("gpu")


def test_availability_says_why_not(monkeypatch, trt, cupy) -> None:
    assert tensorrt.availability().usable
    assert "8.6" in tensorrt.availability().reason
    with monkeypatch.context() as without:
        without.delitem(sys.modules, "trtseg._cuda")
        find = importlib.util.find_spec
        without.setattr(
            importlib.util, "find_spec", lambda name: None if name == "trtseg._cuda" else find(name)
        )
        assert not tensorrt.availability().usable
        assert "CUDA kernels" in tensorrt.availability().reason
    cupy.cuda.runtime.getDeviceCount = lambda: 0
    assert "no GPU" in tensorrt.availability().reason

    def no_driver() -> int:
        raise fake_cupy.CUDARuntimeError("cudaErrorInsufficientDriver")

    cupy.cuda.runtime.getDeviceCount = no_driver
    assert "cudaErrorInsufficientDriver" in tensorrt.availability().reason
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "CuPy" in tensorrt.availability().reason


def test_devices(cupy) -> None:
    assert describe_gpu(cupy, 0).compute_capability == "8.6"
    with pytest.raises(ValueError, match="device: expected 0 to 0, got 1"):
        describe_gpu(cupy, 1)


def test_a_device_by_name(trt, tiny, tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "cache")
    tensorrt.load(bundles.read(tiny), device="cuda:0", cache=cache)
    for name in ("cpu", "cuda:x", "cuda:7"):
        with pytest.raises(ValueError, match="device"):
            tensorrt.load(bundles.read(tiny), device=name, cache=cache)
