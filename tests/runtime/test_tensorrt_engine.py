"""The TensorRT backend around the GPU: a stand-in for TensorRT computes with ONNX Runtime, a
stand-in for CuPy hands out host memory, and our CUDA kernels run in the emulation. The order of
calls, addresses, profiles, CUDA graphs and numbers are checked; speed, streams and TensorRT's own
kernels are not."""

from __future__ import annotations

import importlib.util
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tensorrt_fixture import device, fake_cupy, fake_tensorrt, graphs
from tiny_model import write_tiny

from trtseg import bundle as bundles
from trtseg.errors import BackendUnavailable, EngineError
from trtseg.runtime import bundle_engines, tensorrt
from trtseg.runtime.build_options import BuildOptions, Profile
from trtseg.runtime.cache import EngineCache
from trtseg.runtime.cuda_memory import CudaMemory, Scratch, describe_gpu, load_cupy
from trtseg.runtime.segmenter import Segmenter
from trtseg.runtime.tensorrt_build import BuildCancelled, build_engine
from trtseg.runtime.tensorrt_engine import TensorRTEngine
from trtseg.runtime.tensorrt_library import load_tensorrt
from trtseg.runtime.tensorrt_refit import RefitPair


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


def small_engine(trt, memory: CudaMemory, folder: Path, scratch=None, **options) -> TensorRTEngine:
    path = graphs.segment(folder / "small.onnx", dtype="float32", channels=8, dilations=(1, 2))
    build = BuildOptions(precision="fp32", refittable=options.pop("refittable", ()))
    profiles = [Profile.static((12, 16)), Profile((4, 4), (12, 16), (32, 32))]
    plan = build_engine(path, profiles, options=build).plan
    scratch = scratch or Scratch(memory)
    library = load_tensorrt()
    return TensorRTEngine(library, plan, "small", memory=memory, scratch=scratch, **options)


def bound(engine: TensorRTEngine, size: tuple[int, int], seed: int = 0):
    memory = engine.memory
    x = np.random.default_rng(seed).standard_normal((1, 8, *size)).astype(np.float32)
    shapes = engine.output_shapes({"x": x.shape})
    buffers = {"x": memory.array(x), "masks": memory.empty(shapes["masks"], np.float32)}
    return engine.bind(buffers, memory.stream), buffers, x


def expected(engine: TensorRTEngine, x: np.ndarray) -> np.ndarray:
    return engine.handle.session.run(["masks"], {"x": x})[0]


def test_an_engine_runs_and_replays_one_graph(trt, memory, tmp_path: Path) -> None:
    engine = small_engine(trt, memory, tmp_path)
    assert [(s.name, s.dtype, s.shape) for s in (*engine.inputs, *engine.outputs)] == [
        ("x", np.float32, (1, 8, None, None)),
        ("masks", np.float32, (1, 6, None, None)),
    ]
    binding, buffers, x = bound(engine, (12, 16))
    for run in range(5):
        memory.fill(buffers["masks"], np.nan)
        binding.run()
        np.testing.assert_array_equal(memory.host(buffers["masks"]), expected(engine, x))
        assert binding.captured == (run >= 2)
    memory.copy(x + 1, buffers["x"])
    binding.run()
    np.testing.assert_array_equal(memory.host(buffers["masks"]), expected(engine, x + 1))


def test_graphs_can_be_switched_off(trt, memory, tmp_path: Path) -> None:
    binding, _, _ = bound(small_engine(trt, memory, tmp_path, cuda_graphs=False), (12, 16))
    for _ in range(5):
        binding.run()
    assert not binding.captured


def test_rtx_captures_by_itself(monkeypatch, memory, tmp_path: Path) -> None:
    trt = fake_tensorrt.make(flavour="tensorrt_rtx", own_graphs=True)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", trt)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    binding, _, _ = bound(small_engine(trt, memory, tmp_path), (12, 16))
    for _ in range(5):
        binding.run()
    assert not binding.captured
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
    scratch = Scratch(memory)
    first = small_engine(trt, memory, tmp_path, scratch)
    second = small_engine(trt, memory, tmp_path, scratch)
    small, small_buffers, x_small = bound(first, (4, 4), 1)
    for _ in range(4):
        small.run()
    assert small.captured
    before = scratch.size_bytes
    large, large_buffers, x_large = bound(second, (32, 32), 2)
    assert scratch.size_bytes > before
    large.run()
    small.run()
    # The scratch moved: the graph with its old address is gone.
    assert not small.captured
    np.testing.assert_array_equal(memory.host(small_buffers["masks"]), expected(first, x_small))
    np.testing.assert_array_equal(memory.host(large_buffers["masks"]), expected(second, x_large))


def test_wrong_buffers_are_refused(trt, memory, tmp_path: Path) -> None:
    engine = small_engine(trt, memory, tmp_path)
    x = memory.empty((1, 8, 12, 16), np.float32)
    masks = memory.empty((1, 6, 12, 16), np.float32)
    shifted = memory.empty((6 * 12 * 16 + 1,), np.float32)[1:].reshape(1, 6, 12, 16)
    for buffers, words in (
        ({"x": x}, "no buffer for 'masks'"),
        ({"x": x, "masks": masks[:, :5]}, "expected contiguous"),
        ({"x": x, "masks": memory.empty((1, 6, 12, 16), np.float16)}, "got float16"),
        ({"x": x, "masks": memory.empty((1, 6, 13, 16), np.float32)}, "expected shape"),
        ({"x": x, "masks": shifted}, "multiple of 256"),
    ):
        with pytest.raises(EngineError, match=words):
            engine.bind(buffers, memory.stream)
    with pytest.raises(EngineError, match="stream"):
        engine.bind({"x": x, "masks": masks}, 12345)


def test_a_failing_run_says_what_tensorrt_said(trt, memory, tmp_path: Path) -> None:
    binding, buffers, x = bound(small_engine(trt, memory, tmp_path), (12, 16))
    trt.fail_execution = True
    with pytest.raises(EngineError, match="small: TensorRT cannot run: CUDA error 700"):
        binding.run()
    trt.fail_execution = False
    binding.run()
    np.testing.assert_array_equal(memory.host(buffers["masks"]), expected(binding._engine, x))


def test_a_capture_that_fails_leaves_plain_runs(trt, memory, tmp_path: Path) -> None:
    binding, _, _ = bound(small_engine(trt, memory, tmp_path), (12, 16))
    binding.run()
    binding.run()
    trt.fail_execution = True
    with pytest.raises(EngineError):
        binding.run()
    trt.fail_execution = False
    binding.run()
    assert not binding.captured


def test_threads_share_an_engine(trt, memory, tmp_path: Path) -> None:
    engine = small_engine(trt, memory, tmp_path)
    wrong = []

    def work(seed: int) -> None:
        binding, buffers, x = bound(engine, (4 + seed, 8), seed)
        for _ in range(6):
            binding.run()
        if not np.array_equal(memory.host(buffers["masks"]), expected(engine, x)):
            wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_corrupt_plan(trt, memory) -> None:
    with pytest.raises(EngineError, match="small: TensorRT cannot load this engine: the plan's"):
        TensorRTEngine(load_tensorrt(), b"x", "small", memory=memory, scratch=Scratch(memory))


def test_memory_has_a_hard_limit(cupy) -> None:
    memory = CudaMemory(load_cupy(), limit_mib=1)
    kept = memory.empty((1 << 19,), np.uint8)
    with pytest.raises(EngineError, match=r"2\.0 MiB more are needed, 0\.5 MiB of the 1 MiB"):
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

    class Foreign:
        on_device = np.full((3, 2), 7, np.float32)

    for attribute in ("__dlpack__", "__cuda_array_interface__"):
        memory.fill(again, 0)
        memory.copy(type("Array", (Foreign,), {attribute: None})(), again)
        np.testing.assert_array_equal(memory.host(again), Foreign.on_device)
    with pytest.raises(TypeError, match="on the GPU, got list"):
        memory.copy([1], again)


def test_click_maps(memory) -> None:
    distance = memory.array(np.array([[0, 1], [2, 300]], np.float32))
    out = memory.empty((2, 2), np.float16)
    memory.ramp(distance, 255.0, out)
    np.testing.assert_allclose(memory.host(out), np.array([[0, 1], [2, 300]]) / 255, rtol=1e-3)
    memory.gaussian(distance, 2.0, out)
    np.testing.assert_allclose(
        memory.host(out), np.exp(-np.array([[0, 1], [4, 9e4]]) / 8), rtol=1e-3
    )
    memory.dots(np.array([[1, 0]]), out)
    np.testing.assert_array_equal(memory.host(out), [[0, 0], [1, 0]])
    memory.dots(np.zeros((0, 2), np.int64), out)
    assert not memory.host(out).any()


def test_refit_swaps_two_engines(trt, memory, tmp_path: Path) -> None:
    scratch = Scratch(memory)
    pair = RefitPair(
        lambda: small_engine(trt, memory, tmp_path, scratch, refittable=("head.bias",))
    )
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
    for _ in range(4):
        binding.run()
    assert pair.refit({"head.bias": memory.array(0 * bias)}) is old
    assert pair.refit({"head.bias": memory.array(2 * bias)}) is new
    binding.run()
    assert not binding.captured


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
    scratch = Scratch(memory)
    pair = RefitPair(
        lambda: small_engine(trt, memory, tmp_path, scratch, refittable=("head.bias",))
    )
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
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)


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
        bundle_engines.requests(
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
    build_engine(path, [Profile.static((8, 8))], options=options)
    (config,) = [value for what, value in trt.calls if what == "build"]
    assert ("workspace", 7 << 20) in trt.calls
    assert config.builder_optimization_level == 5
    assert config.hardware_compatibility_level is trt.HardwareCompatibilityLevel.AMPERE_PLUS
    assert config.flags == [trt.BuilderFlag.REFIT_INDIVIDUAL]
    with pytest.raises(EngineError, match="no weights named 'tail'"):
        build_engine(path, [Profile.static((8, 8))], options=replace(options, refittable=("tail",)))
    with pytest.raises(ValueError, match="only TensorRT for RTX"):
        build_engine(
            path,
            [Profile.static((8, 8))],
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
