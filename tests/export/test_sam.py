"""Segment Anything's graphs of a bundle, in ONNX Runtime, against sessions on the bundle."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn import functional as F

from trtseg import Segmenter, bundle, cli
from trtseg.export.bundle import manifest_of, pack
from trtseg.export.graphs import network_graphs
from trtseg.nn.config import NetworkConfig
from trtseg.nn.network import LatentDiversity

SMALL = {"width": 8, "dilations": (1, 2, 1), "select_width": 8, "select_dilations": (1, 1),
         "working_long_side_px": 128}  # fmt: skip
# clicks as points, g reads the image, everything at full resolution
PAPER = NetworkConfig(**SMALL, encoder="none", previous_mask=True, region=True)
CLICKS = np.array([[0.62, 0.47, 1], [0.16, 0.16, 0], [0.86, 0.55, 1]])  # of the longer side


class Graphs:
    """The two graphs, used as an annotation tool uses them."""

    def __init__(self, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.encoder, self.decoder = (
            onnxruntime.InferenceSession(folder / name, options, ["CPUExecutionProvider"])
            for name in ("encoder.onnx", "decoder.onnx")
        )

    def encode(self, image: np.ndarray) -> np.ndarray:
        return self.encoder.run(None, {"image": image.astype(np.float32)})[0]

    def decode(
        self, embedding: np.ndarray, size: tuple[int, int], points: np.ndarray,
        mask: np.ndarray | None = None,
    ) -> list[np.ndarray]:  # fmt: skip
        """`points` [N, 3], (x, y, label) in pixels; one of padding is added, as tools do."""
        height, width = size
        scale = 1024 / max(size)
        frame = np.array([int(width * scale + 0.5) / width, int(height * scale + 0.5) / height])
        points = np.concatenate([points, [[0, 0, -1]]])
        return self.decoder.run(
            ["masks", "iou_predictions", "low_res_masks"],
            {
                "image_embeddings": embedding,
                "point_coords": (points[None, :, :2] * frame).astype(np.float32),
                "point_labels": points[None, :, 2].astype(np.float32),
                "mask_input": np.zeros((1, 1, 256, 256), np.float32) if mask is None else mask,
                "has_mask_input": np.array([mask is not None], np.float32),
                "orig_im_size": np.array(size, np.float32),
            },
        )


@pytest.fixture(scope="module", params=["lite", "paper"])
def exported(request, tmp_path_factory: pytest.TempPathFactory) -> tuple[Segmenter, Graphs]:
    folder = tmp_path_factory.mktemp("sam")
    name = request.param
    if name == "paper":
        torch.manual_seed(0)
        torch.set_num_threads(1)
        network = LatentDiversity(PAPER).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                if parameter.ndim == 1:
                    parameter.normal_(std=0.1)  # equal tensors would be stored once
        name = str(folder / "small")
        names, files = pack(network, network_graphs(network, fp16=False))
        bundle.write(folder / "small", {**manifest_of(network, "small"), "graphs": names}, files)
    assert cli.main(["export-sam", name, str(folder / "out")]) == 0
    return Segmenter.load(name, threads=1), Graphs(folder / "out")


def picture(height: int, width: int) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def working_picture(segmenter: Segmenter) -> tuple[np.ndarray, int]:
    """An image of the working size, so that nothing is resized, and its longer side."""
    manifest = segmenter.bundle.manifest
    height = manifest.long_side_px * 3 // 4 // manifest.multiple_px * manifest.multiple_px
    return picture(height, manifest.long_side_px), manifest.long_side_px


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


@pytest.mark.slow
def test_the_graphs_answer_as_a_session_does(exported) -> None:
    segmenter, graphs = exported
    image, long_side = working_picture(segmenter)
    size = image.shape[:2]
    clicks = CLICKS * [long_side, long_side, 1]
    session = segmenter.session(segmenter.encode(image), focus=None)
    embedding = graphs.encode(image)
    mask = None
    for count in (1, 2, 3):
        x, y, label = clicks[count - 1]
        p = session.add_click(x, y, bool(label))
        masks, scores, low = graphs.decode(embedding, size, clicks[:count], mask)
        assert masks.shape == (1, 3, *size)
        assert low.shape == (1, 3, 256, 256)
        # the same sums in another order; from the second click on, the mask of before has been
        # through the frame of 256 cells, as logits
        tolerance = 1e-4 if count == 1 else 0.02
        best = np.argsort(-p.scores, kind="stable")[:3]
        np.testing.assert_allclose(scores[0], p.scores[best], atol=tolerance)
        difference = np.abs(sigmoid(masks[0, 0]) - p.probability)
        # a session also corrects the few cells that a network answers wrongly
        assert np.median(difference) < tolerance
        mask = low[:, :1]


@pytest.mark.parametrize("size", [(120, 160), (75, 200), (300, 90)])
def test_images_of_any_size(exported, size: tuple[int, int]) -> None:
    segmenter, graphs = exported
    image = picture(*size)
    # a triangle filter over floats there, a box filter over bytes in a session: one that is given
    # the working image has none, and sees the same
    stride = segmenter.bundle.manifest.base_stride
    working = [stride * side for side in segmenter.encode(image).base.shape[-2:]]
    planes = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    planes = F.interpolate(planes, working, mode="bilinear", antialias=True)[0]
    session = segmenter.session(
        segmenter.encode(planes.permute(1, 2, 0).contiguous().numpy()), focus=None
    )
    click = np.array([[size[1] * 0.6, size[0] * 0.4, 1]])
    placed = zip(click[0, 1::-1], working, size, strict=True)
    y, x = ((place + 0.5) * a / b - 0.5 for place, a, b in placed)
    p = session.add_click(x, y)
    masks, _, low = graphs.decode(graphs.encode(image), size, click)
    assert masks.shape == (1, 3, *size)
    # at the image's size both are interpolated, once there and twice here
    expected = cv2.resize(p.probability, size[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.abs(sigmoid(masks[0, 0]) - expected).mean() < 0.01
    # the low-resolution mask is the same picture in the padded frame
    height, width = (round(side * 256 / max(size)) for side in size)
    seen = cv2.resize(low[0, 0, :height, :width], (size[1], size[0]))
    assert ((seen > 0) == (masks[0, 0] > 0)).mean() > 0.95


@pytest.mark.parametrize(
    "box", [(0.2, 0.16, 0.7, 0.55), (0.5, 0.4, 4, 0.55), (-0.1, -0.1, 8, 8)], ids=str
)
def test_a_box_is_heard_as_a_session_hears_it(exported, box: tuple[float, ...]) -> None:
    segmenter, graphs = exported
    image, long_side = working_picture(segmenter)
    size = image.shape[:2]
    session = segmenter.session(segmenter.encode(image), focus=None)
    embedding = graphs.encode(image)
    x0, y0, x1, y1 = np.multiply(box, long_side)
    p = session.add_box(x0, y0, x1, y1)
    for corners in ([[x0, y0, 2], [x1, y1, 3]], [[x1, y1, 3], [x0, y0, 2]]):
        masks, scores, _ = graphs.decode(embedding, size, np.array(corners))
        np.testing.assert_allclose(scores[0], np.sort(p.scores)[::-1][:3], atol=1e-4)
        assert np.median(np.abs(sigmoid(masks[0, 0]) - p.probability)) < 1e-4
    click = [long_side * 0.5, long_side * 0.3, 1]
    alone = graphs.decode(embedding, size, np.array([[x0, y0, 2], click]))
    for ours, theirs in zip(alone, graphs.decode(embedding, size, np.array([click])), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)  # one corner is no box


def test_a_model_that_takes_no_boxes_is_refused(tmp_path: Path, capsys, monkeypatch) -> None:
    network = LatentDiversity(NetworkConfig(**SMALL, encoder="none"))
    monkeypatch.setattr("trtseg.export.sam.load_network", lambda bundle: network)
    assert cli.main(["export-sam", "lite", str(tmp_path / "out")]) == 2
    assert "expected a model that takes boxes" in capsys.readouterr().err


def test_the_command_tells_what_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Model:
        def SerializeToString(self) -> bytes:
            return b"graph"

    monkeypatch.setattr("trtseg.export.sam.sam_graphs", lambda bundle: (Model(), Model()))
    out = tmp_path / "out"
    name = bundle.names()[0]
    assert cli.main(["export-sam", name, str(out)]) == 0
    written = capsys.readouterr().out.split()
    assert [Path(path).name for path in written] == [
        "encoder.onnx", "decoder.onnx", "x-anylabeling.yaml"
    ]  # fmt: skip
    yaml = (out / "x-anylabeling.yaml").read_text()
    assert "type: segment_anything\n" in yaml
    assert f"name: trtseg-{name}\n" in yaml
    assert cli.main(["export-sam", name, str(out)]) == 2
    assert "exists already; pass --force" in capsys.readouterr().err
    assert cli.main(["export-sam", name, str(out), "--force"]) == 0
