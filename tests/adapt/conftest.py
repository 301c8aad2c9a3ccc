"""A small model that adapts: one layer of features, f of three, on a grid of 16 x 16."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from trtseg import bundle  # noqa: E402
from trtseg.adapt import AdaptConfig, Learner, Learning  # noqa: E402
from trtseg.nn.config import NetworkConfig  # noqa: E402
from trtseg.nn.network import segment_network  # noqa: E402
from trtseg.runtime.segmenter import Segmenter  # noqa: E402

CONFIG = NetworkConfig(
    encoder="mobilenet_v2",
    base_stride=4,
    image_term=False,
    width=8,
    click_map="gaussian",
    previous_mask=True,
    dilations=(1, 2, 1),
    residual=True,
    candidates=3,
    select="rank",
    working_long_side_px=64,
)
IMAGE = Learning(5, 1e-3, 1.0, 1.0, guidance="earlier")
SEQUENCE = Learning(1, 1e-3, 0.5, 2.0, guidance="subset")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def _serialise(nodes: list, initialisers: list, inputs: dict, outputs: dict) -> bytes:
    ends = [
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in values.items()]
        for values in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, "g", *ends, initialisers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def encoder_graph(rng: np.random.Generator) -> bytes:
    """A stand-in for the encoder, which does not adapt: one convolution of stride 4."""
    weight = rng.normal(0, 0.2, (CONFIG.width, 3, 4, 4)).astype(np.float32)
    node = helper.make_node("Conv", ["image", "w"], ["level_0"], strides=[4, 4])
    return _serialise(
        [node],
        [numpy_helper.from_array(weight, "w")],
        {"image": [1, 3, "h", "w"]},
        {"level_0": [1, CONFIG.width, "H", "W"]},
    )


def segment_graph(segment: torch.nn.Module, half_storage: bool = False) -> bytes:
    """f as the exporter writes it; optionally with weights stored as FP16 and cast."""
    nodes, initialisers = [], []
    state = segment.state_dict()

    def convolution(x: str, name: str, y: str, dilation: int) -> None:
        inputs = [x]
        for kind in ("weight", "bias"):
            key, values = f"segment.{name}.{kind}", state[f"{name}.{kind}"].numpy()
            inputs.append(key)
            if half_storage and kind == "weight":
                values = values.astype(np.float16)
                nodes.append(helper.make_node("Cast", [key], [f"{key}.wide"], to=TensorProto.FLOAT))
                inputs[-1] = f"{key}.wide"
            initialisers.append(numpy_helper.from_array(values, key))
        pad = dilation if state[f"{name}.weight"].shape[2] == 3 else 0
        nodes.append(
            helper.make_node("Conv", inputs, [y], dilations=[dilation] * 2, pads=[pad] * 4)
        )

    x = "x"
    for index, dilation in enumerate(CONFIG.dilations):
        convolution(x, f"context.layers.{index}", f"c{index}", dilation)
        nodes.append(helper.make_node("LeakyRelu", [f"c{index}"], [f"r{index}"], alpha=0.2))
        nodes.append(helper.make_node("Add", [x, f"r{index}"], [f"x{index}"]))
        x = f"x{index}"
    convolution(x, "head", "logits", 1)
    nodes.append(helper.make_node("Sigmoid", ["logits"], ["masks"]))
    return _serialise(
        nodes,
        initialisers,
        {"x": [1, CONFIG.width, "H", "W"]},
        {"masks": [1, CONFIG.candidates, "H", "W"]},
    )


def write_adaptable(path: Path, *, half_storage: bool = False) -> Path:
    """A bundle of a network with random weights that react to clicks."""
    torch.manual_seed(3)
    segment = segment_network(CONFIG)
    rng = np.random.default_rng(3)
    archive = io.BytesIO()
    np.savez(
        archive,
        guidance_weight=rng.normal(size=(CONFIG.width, 5)).astype(np.float32),
        bias=np.zeros(CONFIG.width, np.float32),
    )
    files = {
        "encoder.onnx": encoder_graph(rng),
        "segment.onnx": segment_graph(segment, half_storage),
        "parameters.npz": archive.getvalue(),
    }
    manifest = {
        "name": "adaptable",
        "kind": "latent-diversity",
        "network": json.loads(json.dumps(CONFIG.to_dict())),
        "working_size": {"long_side_px": 64, "multiple_px": 32},
        "image": {"mean": [127.5] * 3, "scale": [1 / 127.5] * 3},
        "base": {"stride": 4, "channels": CONFIG.width, "levels": 1, "image_term": False},
        "guidance": {
            "channels": 5,
            "click_map": "gaussian",
            "sigma_grid_px": 2.0,
            "distance_limit_px": 255.0,
            "previous_mask": True,
        },
        "candidates": CONFIG.candidates,
        "threshold": 0.5,
        "select_inputs": [],
        "graphs": {role: {"fp32": f"{role}.onnx"} for role in ("encoder", "segment")},
        "parameters": "parameters.npz",
    }
    return bundle.write(path, manifest, files)


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return Segmenter.load(write_adaptable(tmp_path_factory.mktemp("model") / "a"), threads=1)


@pytest.fixture(scope="session")
def importance(segmenter: Segmenter) -> dict:
    learner = Learner(segmenter, AdaptConfig(), importance={})
    generator = torch.Generator().manual_seed(5)
    return {
        name: torch.rand(value.shape, generator=generator)
        for name, value in learner.model.initial.items()
    }


def make_learner(segmenter: Segmenter, importance: dict, **changes: object) -> Learner:
    values = {"image": IMAGE, "sequence": SEQUENCE, "bf16": False, **changes}
    route = values.pop("route", None)
    return Learner(segmenter, AdaptConfig(**values), importance=importance, route=route)


@pytest.fixture
def learner(segmenter: Segmenter, importance: dict) -> Learner:
    return make_learner(segmenter, importance)


@pytest.fixture
def photo() -> np.ndarray:
    """uint8 [24, 32, 3]: a bright disk on a dark ground."""
    y, x = np.mgrid[:24, :32]
    disk = ((y - 12) ** 2 + (x - 14) ** 2 < 60)[..., None]
    noise = np.random.default_rng(0).integers(0, 40, (24, 32, 3))
    return np.where(disk, 200 + noise, 30 + noise).astype(np.uint8)


CLICKS = ((14, 12, True), (3, 3, False), (18, 15, True), (28, 20, False))


def click_through(session, count: int = len(CLICKS)) -> list[np.ndarray]:
    """Masks after each of the first clicks."""
    return [session.add_click(x, y, positive).mask for x, y, positive in CLICKS[:count]]
