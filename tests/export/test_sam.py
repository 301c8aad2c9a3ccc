"""Segment Anything's graphs of a bundle, in ONNX Runtime, against sessions on the bundle."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch

from trtseg import Segmenter, bundle, cli
from trtseg.export.bundle import export_bundle
from trtseg.nn.config import NetworkConfig, lite_config
from trtseg.nn.network import LatentDiversity

SMALL = {"width": 8, "dilations": (1, 2, 1), "select_width": 8, "select_dilations": (1, 1),
         "working_long_side_px": 128}  # fmt: skip
VARIANTS = {
    "lite": lite_config(**SMALL),
    # clicks as points, g reads the image, everything at full resolution
    "paper": NetworkConfig(**SMALL, encoder="none", previous_mask=True),
}
CLICKS = np.array([[80.0, 60, 1], [20, 20, 0], [110, 70, 1]], np.float32)


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


@pytest.fixture(scope="module", params=sorted(VARIANTS))
def exported(request, tmp_path_factory: pytest.TempPathFactory) -> tuple[Segmenter, Graphs]:
    folder = tmp_path_factory.mktemp("sam")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = LatentDiversity(VARIANTS[request.param]).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.normal_(std=0.1)  # equal tensors would be stored once
    export_bundle(network, folder / "small", name="small", fp16=False)
    assert cli.main(["export-sam", str(folder / "small"), str(folder / "out")]) == 0
    return Segmenter.load(folder / "small", threads=1), Graphs(folder / "out")


def picture(height: int, width: int) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def test_the_graphs_answer_as_a_session_does(exported) -> None:
    segmenter, graphs = exported
    image = picture(96, 128)  # the working size: nothing is resized
    session = segmenter.session(segmenter.encode(image), focus=None)
    embedding = graphs.encode(image)
    mask = None
    for count in (1, 2, 3):
        x, y, label = CLICKS[count - 1]
        p = session.add_click(x, y, bool(label))
        masks, scores, low = graphs.decode(embedding, (96, 128), CLICKS[:count], mask)
        assert masks.shape == (1, 3, 96, 128)
        assert low.shape == (1, 3, 256, 256)
        # the same sums in another order; from the second click on, the mask of before has been
        # through the frame of 256 cells, as logits
        tolerance = 1e-4 if count == 1 else 0.02
        best = np.argsort(-p.scores, kind="stable")[:3]
        np.testing.assert_allclose(scores[0], p.scores[best], atol=tolerance)
        difference = np.abs(sigmoid(masks[0, 0]) - p.probability)
        # a session also corrects the few cells that an untrained network answers wrongly
        assert np.median(difference) < tolerance
        mask = low[:, :1]


@pytest.mark.parametrize("size", [(120, 160), (75, 200), (300, 90)])
def test_images_of_any_size(exported, size: tuple[int, int]) -> None:
    segmenter, graphs = exported
    image = picture(*size)
    session = segmenter.session(segmenter.encode(image), focus=None)
    click = np.array([[size[1] * 0.6, size[0] * 0.4, 1]])
    p = session.add_click(*click[0, :2])
    masks, _, low = graphs.decode(graphs.encode(image), size, click)
    assert masks.shape == (1, 3, *size)
    # a triangle filter over floats here, a box filter over bytes there
    assert np.abs(sigmoid(masks[0, 0]) - p.probability).mean() < 0.03
    # the low-resolution mask is the same picture in the padded frame
    height, width = (round(side * 256 / max(size)) for side in size)
    seen = cv2.resize(low[0, 0, :height, :width], (size[1], size[0]))
    assert ((seen > 0) == (masks[0, 0] > 0)).mean() > 0.95


def test_a_box_is_its_clicks(exported) -> None:
    _, graphs = exported
    embedding = graphs.encode(picture(96, 128))
    box = np.array([[30, 20, 2], [200, 80, 3]])  # beyond the image: taken back to its border
    clicks = np.array([[78.5, 50, 1], [30, 20, 0], [127, 20, 0], [30, 80, 0], [127, 80, 0]])
    by_box = graphs.decode(embedding, (96, 128), box)
    by_clicks = graphs.decode(embedding, (96, 128), clicks)
    for ours, theirs in zip(by_box, by_clicks, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


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
