"""The torch engines under the runtime's pipeline, against the network itself."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from networks import grid_config, lite_config  # noqa: E402
from tensorrt_fixture import fake_cupy  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from trtseg.benchmark.measure import clicks_on, picture_of  # noqa: E402
from trtseg.errors import BackendUnavailable, EngineError  # noqa: E402
from trtseg.nn import engines  # noqa: E402
from trtseg.nn.layers.guidance import guidance_maps  # noqa: E402
from trtseg.nn.network import LatentDiversity, normalisation  # noqa: E402
from trtseg.runtime.engine import TensorSpec  # noqa: E402
from trtseg.runtime.image import as_picture, prepare  # noqa: E402
from trtseg.runtime.segmenter import Segmenter  # noqa: E402
from trtseg.runtime.tensorrt.device_memory import CudaMemory  # noqa: E402
from trtseg.types import Click  # noqa: E402

SIZE = (64, 96)
SMALL = {"working_long_side_px": 96}
CONFIGS = {
    "lite": lite_config(**SMALL),
    "rank": grid_config(select="rank", **SMALL),
    "grid": grid_config(**SMALL),
    "image": grid_config(
        base_stride=1, image_term=True, select_inputs=("image", "guidance", "masks"), **SMALL
    ),
}


def made(name: str) -> tuple[LatentDiversity, Segmenter]:
    """A network and the runtime over it."""
    torch.manual_seed(0)
    network = LatentDiversity(CONFIGS[name]).eval()
    return network, engines.segmenter(network, device="cpu", half=False)


class ByHand:
    """The network's own methods in turn, on one image at its working size."""

    def __init__(self, network: LatentDiversity, image: np.ndarray) -> None:
        self.network = network
        mean, scale = normalisation(network.config)
        staged = np.empty((1, 3, *SIZE), np.float32)
        prepare(as_picture(image), (0, 0, *image.shape[:2]), mean, scale, staged)
        self.image = torch.from_numpy(staged)
        with torch.inference_mode():
            self.encoded = network.encode(self.image)

    def click(
        self, clicks: list[Click], previous: torch.Tensor | None
    ) -> tuple[torch.Tensor, int]:
        rows = torch.tensor([[(c.y, c.x, float(c.positive)) for c in clicks]])
        config, grid = self.network.config, self.encoded[0].shape[2:]
        with torch.inference_mode():
            guidance = guidance_maps(
                rows, (grid[0], grid[1]), config, None if previous is None else previous[None]
            )
            masks, features = self.network.masks(self.encoded, guidance)
            image = F.avg_pool2d(self.image, config.base_stride)
            scores = self.network.scores(masks, guidance, features, image)
        return masks[0], int(scores[0].argmax())


@pytest.mark.parametrize("name", CONFIGS)
def test_the_pipeline_gives_what_the_network_gives(name: str) -> None:
    network, segmenter = made(name)
    image = picture_of(SIZE)
    pipeline = segmenter.pipeline
    encoded = segmenter.encode(image)
    by_hand = ByHand(network, image)
    previous = None
    clicks = clicks_on(SIZE, 3)
    for count in range(1, 4):
        found = pipeline.click(
            encoded, clicks[:count], None if previous is None else previous.numpy()
        )
        maps, selected = by_hand.click(clicks[:count], previous)
        # Two orders of summation of float32 products, through a sigmoid.
        np.testing.assert_allclose(found.probabilities, maps.numpy(), atol=1e-4)
        assert int(found.scores.argmax()) == selected
        previous = maps[selected]


def test_names_and_types_are_checked() -> None:
    segment = made("rank")[1].engines.segment
    x = np.zeros((1, CONFIGS["rank"].width, 8, 8), np.float32)
    count = CONFIGS["rank"].candidates
    assert segment.output_shapes({"x": x.shape}) == {"masks": (1, count, 8, 8)}
    with pytest.raises(EngineError, match="no buffer for 'masks'"):
        segment.bind({"x": x})
    with pytest.raises(EngineError, match="got float64"):
        segment.bind({"x": x.astype(float), "masks": x[:, :count]})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_said() -> None:
    with pytest.raises(BackendUnavailable, match="torch finds no GPU"):
        engines.load(LatentDiversity(CONFIGS["rank"]))


def engine_of(function, device: str = "cpu") -> engines.TorchEngine:
    specs = [TensorSpec(name, np.dtype(np.float32), (1, 1, None, None)) for name in ("x", "y")]
    return engines.TorchEngine("test", function, specs[:1], specs[1:], torch.device(device))


def test_algorithms_are_searched_and_fp32_is_not_tf32() -> None:
    seen = []

    def function(given):
        flags = torch.backends.cudnn
        seen.append((flags.benchmark, flags.allow_tf32))
        return (given["x"],)

    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    x, y = np.ones((1, 1, 2, 2), np.float32), np.zeros((1, 1, 2, 2), np.float32)
    engine_of(function).bind({"x": x, "y": y}).run()
    assert seen == [(True, False)]
    assert np.array_equal(x, y)
    # a program's own settings stay as they were
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32) == before


class Stream:
    """A stand-in for a CUDA stream that runs what is queued when it is waited for."""

    def __init__(self) -> None:
        self.queued: list = []

    def synchronize(self) -> None:
        while self.queued:
            self.queued.pop(0)()


def test_weights_that_are_still_being_written_are_waited_for(monkeypatch) -> None:
    stream, weights = Stream(), []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    stream.queued.append(lambda: weights.append("written"))
    engine_of(lambda given: (given["x"],), "cuda")
    assert weights == ["written"]


def test_a_capture_is_tried_before_and_gives_the_stream_back_if_it_fails(monkeypatch) -> None:
    """This thread runs the work once outside: what cuDNN searches cannot be captured."""
    current, done = ["the caller's"], []
    lane = SimpleNamespace(synchronize=lambda: done.append("waited"))

    class Capture:
        """As torch's: what ends a failed capture raises before the stream is left."""

        def __init__(self, graph, **options) -> None:
            self.stream = options["stream"]

        def __enter__(self) -> None:
            done.append("captures")
            current[0] = self.stream

        def __exit__(self, *error) -> None:
            raise RuntimeError("CUDA error: operation failed due to a previous error")

    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda *_: lane)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext(done.append(stream)))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", Capture)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: current[0])
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: current.__setitem__(0, stream))
    memory = CudaMemory(fake_cupy.make())
    with pytest.raises(EngineError, match="cannot be recorded: CUDA error"):
        engines.record_cuda_graph(memory, lambda: done.append("work"))
    assert current == ["the caller's"]
    assert done == [lane, "work", "waited", "captures", "work"]
