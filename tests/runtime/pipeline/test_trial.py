"""Networks that do not do what the manifest says are told when they are loaded, not in a click."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_model import CHANNELS, FEATURES, write_tiny

from trtseg import EngineError, Segmenter, bundle


def network(nodes: list, inputs: dict, outputs: dict, weights: dict) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        *(
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in ends.items()]
            for ends in (inputs, outputs)
        ),
        [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    return model.SerializeToString()


def segment(
    candidates: int = 3, declared: tuple = (1, 3, "H", "W"), weight: float = 0.1, **conv: object
) -> bytes:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["logits"], **conv),
        helper.make_node("Sigmoid", ["logits"], ["masks"]),
        helper.make_node("Conv", ["x", "v"], ["features"]),
    ]
    weights = {
        "w": np.full((candidates, CHANNELS, 1, 1), weight),
        "v": np.full((FEATURES, CHANNELS, 1, 1), 0.1),
    }
    outputs = {"masks": declared, "features": (1, FEATURES, "H", "W")}
    return network(nodes, {"x": (1, CHANNELS, "H", "W")}, outputs, weights)


def no_probabilities() -> bytes:
    model = onnx.load_from_string(segment())
    model.graph.node[1].op_type = "Identity"
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.full((3, CHANNELS, 1, 1), 9, np.float32), "w")
    )
    return model.SerializeToString()


def without_batch() -> bytes:
    model = onnx.load_from_string(segment(declared=(3, "H", "W")))
    model.graph.node[1].output[0] = "batch"
    squeeze = helper.make_node("ReduceMax", ["batch"], ["masks"], axes=[0], keepdims=0)
    model.graph.node.append(squeeze)
    return model.SerializeToString()


def select(scores: int, axes: tuple[int, ...] = (1, 2, 3), value: float = 1.0) -> bytes:
    nodes = [
        helper.make_node("Concat", ["guidance", "masks", "features"], ["all"], axis=1),
        helper.make_node("ReduceMean", ["all"], ["mean"], axes=list(axes), keepdims=0),
        helper.make_node("Mul", ["mean", "row"], ["scores"]),
    ]
    sides = {"guidance": 5, "masks": 3, "features": FEATURES}
    return network(
        nodes,
        {name: (1, side, "H", "W") for name, side in sides.items()},
        {"scores": (1, scores)},
        {"row": np.full((1, scores), value)},
    )


def encoder(channels: int = CHANNELS) -> bytes:
    nodes = [
        helper.make_node("Conv", ["image", "w"], [f"level_{i}"], strides=[2 << i] * 2)
        for i in range(3)
    ]
    outputs = {f"level_{i}": (1, "c", f"h{i}", f"w{i}") for i in range(3)}
    weights = {"w": np.full((channels, 3, 1, 1), 0.1)}
    return network(nodes, {"image": (1, 3, "h", "w")}, outputs, weights)


def load(path: Path, **graphs: bytes) -> Segmenter:
    tiny = write_tiny(path / "tiny")
    raw = dict(bundle.read(tiny).manifest.raw)
    files = {p.name: p.read_bytes() for p in tiny.iterdir() if p.name != "manifest.json"}
    files.update({f"{role}.onnx": data for role, data in graphs.items()})
    return Segmenter.load(
        bundle.write(path / "changed", raw, files), backend="onnxruntime", threads=1
    )


def test_the_networks_of_this_test_are_good_unless_they_are_changed(tmp_path: Path) -> None:
    segmenter = load(tmp_path, encoder=encoder(), segment=segment(), select=select(3))
    session = segmenter.session(segmenter.encode(np.zeros((40, 60, 3), np.uint8)))
    assert session.add_click(5, 5).mask.shape == (40, 60)


DISAGREEING = [
    ({"segment": segment(2, (1, 2, "H", "W"))}, "segment: masks: expected .*, declared"),
    ({"segment": segment(2, (1, "m", "H", "W"))}, "segment: masks|tiny/segment"),
    ({"segment": segment(5, (1, "m", "H", "W"))}, "segment: masks|tiny/segment"),
    ({"segment": segment(strides=[2, 2])}, "segment"),
    ({"segment": segment(declared=(1, 3, "H*2", "W"))}, "segment"),
    ({"segment": segment(declared=(1, 3, "W", "H"))}, "segment"),
    ({"segment": without_batch()}, "segment: masks: expected .*, declared"),
    ({"segment": segment(weight=float("nan"))}, "segment: masks: the values are not finite"),
    ({"segment": no_probabilities()}, "segment: masks: expected probabilities"),
    ({"select": select(2)}, "select: scores: expected .*, declared"),
    ({"select": select(3, axes=(2, 3))}, "select"),
    ({"select": select(3, value=float("inf"))}, "select: scores: the values are not finite"),
    ({"encoder": encoder(5)}, "encoder: level_0: expected"),
]


@pytest.mark.parametrize(("graphs", "message"), DISAGREEING)
def test_what_would_fail_in_a_click_fails_at_load(
    tmp_path: Path, graphs: dict[str, bytes], message: str
) -> None:
    with pytest.raises(EngineError, match=message) as caught:
        load(tmp_path, **graphs)
    assert len(str(caught.value)) < 600


def test_what_cannot_be_loaded_is_told_by_the_error_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    model = onnx.load_from_string(segment())
    model.graph.node[0].input[0] = "nothing"
    with pytest.raises(EngineError, match="tiny/segment: cannot be loaded"):
        load(tmp_path, segment=model.SerializeToString())
    assert capfd.readouterr().out == ""
