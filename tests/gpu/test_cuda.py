"""The runtime on a real GPU: CuPy, CUDA graphs and the torch engines; without one, skipped.

Against the CPU in float32, and against itself: replayed as queued, in threads as alone.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from devices import require_cuda

torch = pytest.importorskip("torch")

from trtseg import bundle as bundles  # noqa: E402
from trtseg.benchmark.measure import clicks_on, picture_of  # noqa: E402
from trtseg.errors import BackendUnavailable, EngineError, OutOfMemory  # noqa: E402
from trtseg.nn import engines  # noqa: E402
from trtseg.nn.bundle_weights import load_network  # noqa: E402
from trtseg.runtime.engine import TensorSpec, pixels_of  # noqa: E402
from trtseg.runtime.pipeline.recording import RUNS_BEFORE_RECORDING  # noqa: E402
from trtseg.runtime.segmenter import Segmenter  # noqa: E402
from trtseg.runtime.tensorrt.device_memory import CudaMemory, load_cupy, record_cuda_graph  # noqa: E402

SIZE = (480, 640)
CLICKS = clicks_on(SIZE, RUNS_BEFORE_RECORDING + 4)


@pytest.fixture(scope="module")
def cupy():
    if not torch.cuda.is_available():
        require_cuda("torch finds no GPU")
    try:
        found = load_cupy()
        from trtseg import _cuda
    except (BackendUnavailable, ImportError) as error:
        require_cuda(str(error))
    if not _cuda.devices():
        require_cuda("trtseg._cuda finds no GPU")
    return found


@pytest.fixture
def memory(cupy) -> CudaMemory:
    return CudaMemory(cupy)


@pytest.fixture(scope="module")
def load(cupy):
    """The shipped model on torch engines."""
    model = bundles.read("lite")
    network = load_network(model)
    return lambda **options: Segmenter(model, engines.load(network, **options))


def clicked(segmenter: Segmenter, image: np.ndarray | None = None) -> list:
    """(mask, probabilities, scores) after every click."""
    image = picture_of(SIZE) if image is None else image
    session = segmenter.session(segmenter.encode(image), focus=None)
    found = []
    for click in CLICKS:
        p = session.add_click(click.x, click.y, click.positive)
        found.append((p.mask.copy(), np.array(p.grid_probabilities), np.array(p.scores)))
    return found


def same(first: list, second: list) -> bool:
    return all(
        np.array_equal(a, b)
        for one, two in zip(first, second, strict=True)
        for a, b in zip(one, two, strict=True)
    )


def test_copies_go_there_and_back_and_convert_cuda(memory) -> None:
    values = np.random.default_rng(0).standard_normal((3, 33, 65)).astype(np.float32)
    array = memory.array(values)
    np.testing.assert_array_equal(memory.host(array), values)
    half = memory.empty(values.shape, np.dtype(np.float16))
    memory.copy(array, half)
    np.testing.assert_array_equal(memory.host(half), values.astype(np.float16))
    tensor = torch.from_numpy(values).cuda() + 1
    np.testing.assert_array_equal(memory.host(memory.adopt(tensor)), values + 1)
    strided = np.ascontiguousarray(values.transpose(2, 0, 1)).transpose(1, 2, 0)
    memory.copy(strided, array)
    np.testing.assert_array_equal(memory.host(array), values)


def test_channels_last_goes_there_and_back_cuda(memory) -> None:
    spec = TensorSpec("x", np.dtype(np.float16), (1, 16, None, None), channels_last=True)
    values = np.random.default_rng(0).standard_normal((1, 16, 33, 65)).astype(np.float16)
    first, second = (spec.empty(memory, values.shape) for _ in range(2))
    memory.copy(values, first)
    memory.copy(first, second)
    assert spec.takes(second)
    np.testing.assert_array_equal(memory.host(second), values)
    planar = memory.empty(values.shape, spec.dtype)
    memory.copy(second, planar)
    np.testing.assert_array_equal(memory.host(planar), values)


def test_features_are_channels_last_cuda(load) -> None:
    """From the encoder to the selector, and the copies between torch's tensors and the buffers
    keep the layout."""
    segmenter = load()
    encoded = segmenter.encode(picture_of(SIZE))
    segmenter.session(encoded, focus=None).add_click(320, 240)
    (lane,) = segmenter.pipeline.lanes._idle
    (encode,), (click,) = lane.encoders.kept.values(), lane.clicks.kept.values()
    for array in (encoded.base, *encode.levels, click.x, click.outputs["features"]):
        assert pixels_of(array).flags.c_contiguous
        assert not array.flags.c_contiguous


def test_a_limit_holds_cuda(cupy) -> None:
    limited = CudaMemory(cupy, limit_mib=1)
    with pytest.raises(OutOfMemory, match="1 MiB allowed"):
        limited.empty((2**21,), np.dtype(np.uint8))
    assert limited.empty((2**19,), np.dtype(np.uint8)).nbytes == 2**19


def test_lanes_follow_one_another_cuda(memory) -> None:
    lane = memory.lane()
    source, out = memory.empty((2**26,), np.dtype(np.uint8)), memory.empty((2**26,), np.dtype("u1"))
    for value in range(20):
        memory.fill(source, value)
        lane.follow(memory)
        lane.copy(source, out)
        memory.follow(lane)
    assert (lane.host(out) == 19).all()


def test_a_recording_replays_and_a_failed_one_leaves_the_stream_cuda(memory) -> None:
    source, out = memory.array(np.arange(5.0)), memory.array(np.zeros(5))
    replay = record_cuda_graph(memory, lambda: memory.transfer(source, out))
    memory.copy(np.arange(5.0) * 2, source)
    replay()
    np.testing.assert_array_equal(memory.host(out), np.arange(5.0) * 2)
    with pytest.raises(EngineError, match="cannot be recorded"):
        record_cuda_graph(memory, memory.synchronize)  # waiting cannot be captured
    np.testing.assert_array_equal(memory.host(memory.array(np.ones(3))), np.ones(3))


@pytest.mark.parametrize("half", [True, False])
def test_replayed_as_queued_cuda(load, half: bool) -> None:
    """Bit for bit: a recording launches the same kernels on the same buffers."""
    queued = clicked(load(half=half, cuda_graphs=False))
    replayed = clicked(load(half=half, cuda_graphs=True))
    assert same(queued, replayed)


@pytest.mark.parametrize(("half", "probability", "pixels"), [
    # FP16 keeps 11 bits of about 20 layers' activations; masks differ where the map is near 0.5
    (True, 0.1, 0.01),
    # float32 sums in another order
    (False, 1e-3, 1e-4),
])  # fmt: skip
def test_near_float32_on_the_cpu_cuda(load, half: bool, probability: float, pixels: float) -> None:
    # failed on an H100, by 0.18: the CPU's pipeline rounded the reduced image to 8 bits; mended,
    # and not run on a GPU since
    ours, theirs = load(half=half), Segmenter.load("lite", backend="onnxruntime", device="cpu")
    # each click from the same state: the mask before is the CPU's
    image = picture_of(SIZE)
    encoded = [segmenter.encode(image) for segmenter in (ours, theirs)]
    previous = None
    for count in range(1, len(CLICKS) + 1):
        wanted = theirs.pipeline.click(encoded[1], CLICKS[:count], previous)
        given = None if previous is None else ours.engines.memory.array(
            previous.astype(ours.engines.segment.inputs[0].dtype)
        )
        found = ours.pipeline.click(encoded[0], CLICKS[:count], given)
        maps = ours.engines.memory.host(found.probabilities).astype(np.float32)
        assert np.isfinite(maps).all()
        # all but a thousandth of the cells: at a contour a map can be steep
        difference = np.abs(maps - wanted.probabilities)
        assert float(np.quantile(difference, 0.999)) < probability
        assert float(((maps >= 0.5) != (wanted.probabilities >= 0.5)).mean()) < pixels
        previous = np.array(wanted.probabilities[int(wanted.scores.argmax())])


def test_images_on_the_host_and_on_the_gpu_are_one_cuda(load, cupy) -> None:
    segmenter, image = load(), picture_of((1080, 1920))
    bases = [
        segmenter.engines.memory.host(segmenter.encode(given).base)
        for given in (image, cupy.asarray(image), torch.from_numpy(image).cuda())
    ]
    np.testing.assert_array_equal(bases[0], bases[1])
    np.testing.assert_array_equal(bases[0], bases[2])


def test_eight_threads_as_one_cuda(load) -> None:
    """Up to the algorithm: cuDNN's search is each thread's own, and may end at another one."""
    segmenter = load(half=False)
    images = [np.roll(picture_of(SIZE), 40 * number, axis=1) for number in range(8)]
    alone = [clicked(segmenter, image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda image: clicked(segmenter, image), images))
    for one, two in zip(alone, together, strict=True):
        for (_, maps, scores), (_, other_maps, other_scores) in zip(one, two, strict=True):
            assert float(np.quantile(np.abs(maps - other_maps), 0.999)) < 1e-3
            np.testing.assert_allclose(scores, other_scores, atol=1e-3)


def test_adapted_weights_are_whole_when_they_run_cuda(load) -> None:
    """They are written on torch's stream, and read on a lane."""
    pytest.importorskip("safetensors")
    from trtseg.adapt import ClickAdapter, Learner

    segmenter = load(half=False)
    learner = Learner(segmenter, importance={})
    adapter = ClickAdapter(learner)
    found = []
    for _ in range(2):
        session = segmenter.session(
            segmenter.encode(picture_of(SIZE)), focus=None, adapt=adapter
        )
        for click in CLICKS:
            session.add_click(click.x, click.y, click.positive)
        found.append(np.array(session.prediction.grid_probabilities))
    # atomics in the gradients: not bit for bit
    np.testing.assert_allclose(found[0], found[1], atol=1e-2)
