"""The torch engines under the runtime's pipeline, against the network itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from networks import grid_config  # noqa: E402

from trtseg import bundle as bundles  # noqa: E402
from trtseg.benchmark.measure import clicks_on, picture_of  # noqa: E402
from trtseg.errors import BackendUnavailable, EngineError  # noqa: E402
from trtseg.export.bundle import PARAMETERS, _parameters, manifest_of  # noqa: E402
from trtseg.nn import engines  # noqa: E402
from trtseg.nn.config import lite_config  # noqa: E402
from trtseg.nn.network import LatentDiversity  # noqa: E402
from trtseg.nn.predictor import Predictor  # noqa: E402
from trtseg.runtime.segmenter import Segmenter  # noqa: E402

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


def made(name: str, folder: Path) -> tuple[LatentDiversity, Segmenter]:
    """A network and the pipeline over it; the bundle's graphs are never read."""
    torch.manual_seed(0)
    network = LatentDiversity(CONFIGS[name]).eval()
    loaded = engines.load(network, device="cpu", half=False)
    roles = [role for role in ("encoder", "segment", "select") if getattr(loaded, role)]
    files = {PARAMETERS: _parameters(network), "none.onnx": b"not used"}
    graphs = {role: {"fp32": "none.onnx"} for role in roles}
    manifest = {**manifest_of(network, "made"), "graphs": graphs}
    bundle = bundles.read(bundles.write(folder / "made", manifest, files))
    return network, Segmenter(bundle, loaded)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_pipeline_gives_what_the_network_gives(name: str, tmp_path: Path) -> None:
    network, segmenter = made(name, tmp_path)
    image = picture_of(SIZE)
    pipeline = segmenter.pipeline
    encoded = segmenter.encode(image)
    predictor = Predictor(network)
    encoding = predictor.encode(image)
    previous = None
    clicks = clicks_on(SIZE, 3)
    for count in range(1, 4):
        found = pipeline.click(
            encoded, clicks[:count], None if previous is None else previous.numpy()
        )
        maps, selected = predictor.click(encoding, clicks[:count], previous)
        # Two orders of summation of float32 products, through a sigmoid.
        np.testing.assert_allclose(found.probabilities, maps.numpy(), atol=1e-4)
        assert int(found.scores.argmax()) == selected
        previous = maps[selected]


def test_names_and_types_are_checked(tmp_path: Path) -> None:
    segment = made("rank", tmp_path)[1].engines.segment
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
