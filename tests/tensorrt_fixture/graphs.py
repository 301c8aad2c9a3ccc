"""ONNX graphs of the shapes that our models have, with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CAN_DILATIONS = (1, 2, 4, 8, 16, 32, 64, 128, 1)
VGG19_BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 2))


class _Graph:
    def __init__(self, dtype: str) -> None:
        self.dtype = np.dtype(dtype)
        self.kind = TensorProto.FLOAT16 if dtype == "float16" else TensorProto.FLOAT
        self.random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def convolution(
        self, source: str, out: str, channels: tuple[int, int], size: int, dilation: int = 1
    ) -> str:
        inside, outside = channels
        scale = (2 / (inside * size * size)) ** 0.5
        weight = self.random.standard_normal((outside, inside, size, size)) * scale
        for name, values in ((f"{out}.weight", weight), (f"{out}.bias", np.zeros(outside))):
            self.weights.append(numpy_helper.from_array(values.astype(self.dtype), name))
        pad = dilation * (size // 2)
        self.nodes.append(
            helper.make_node(
                "Conv",
                [source, f"{out}.weight", f"{out}.bias"],
                [out],
                kernel_shape=[size, size],
                dilations=[dilation, dilation],
                pads=[pad] * 4,
            )
        )
        return out

    def node(self, kind: str, sources: Sequence[str], out: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, list(sources), [out], **attributes))
        return out

    def save(
        self, path: Path, inputs: dict[str, Sequence[object]], outputs: dict[str, Sequence[object]]
    ) -> Path:
        graph = helper.make_graph(
            self.nodes,
            path.stem,
            [helper.make_tensor_value_info(n, self.kind, s) for n, s in inputs.items()],
            [helper.make_tensor_value_info(n, self.kind, s) for n, s in outputs.items()],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return path


def segment(
    path: Path,
    *,
    dtype: str = "float16",
    channels: int = 64,
    candidates: int = 6,
    size: tuple[object, object] = ("h", "w"),
    dilations: Sequence[int] = CAN_DILATIONS,
) -> Path:
    """The context aggregation network f after its first layer (LD table 1)."""
    graph, x = _Graph(dtype), "x"
    for index, dilation in enumerate(dilations):
        x = graph.convolution(x, f"layers.{index}", (channels, channels), 3, dilation)
        x = graph.node("LeakyRelu", [x], f"act_{index}", alpha=0.2)
    x = graph.convolution(x, "head", (channels, candidates), 1)
    graph.node("Sigmoid", [x], "masks")
    return graph.save(path, {"x": [1, channels, *size]}, {"masks": [1, candidates, *size]})


def select(
    path: Path,
    *,
    dtype: str = "float16",
    guidance: int = 4,
    candidates: int = 6,
    channels: int = 64,
    size: tuple[object, object] = ("h", "w"),
) -> Path:
    """The selector g: guidance, masks and image through dilated layers to M scores."""
    graph = _Graph(dtype)
    x = graph.node("Concat", ["guidance", "masks", "image"], "joined", axis=1)
    inside = guidance + candidates + 3
    for index, dilation in enumerate(CAN_DILATIONS):
        x = graph.convolution(x, f"layers.{index}", (inside, channels), 3, dilation)
        x = graph.node("LeakyRelu", [x], f"act_{index}", alpha=0.2)
        inside = channels
    x = graph.convolution(x, "head", (channels, candidates), 1)
    x = graph.node("GlobalAveragePool", [x], "pooled")
    x = graph.node("Flatten", [x], "logits", axis=1)
    graph.node("Softmax", [x], "scores", axis=1)
    inputs = {
        "guidance": [1, guidance, *size],
        "masks": [1, candidates, *size],
        "image": [1, 3, *size],
    }
    return graph.save(path, inputs, {"scores": [1, candidates]})


def encoder(
    path: Path,
    *,
    dtype: str = "float16",
    channels: int = 64,
    size: tuple[object, object] = ("h", "w"),
) -> Path:
    """VGG-19 to conv5_2 with the second layer of every block projected to `channels`."""
    graph, x, inside = _Graph(dtype), "image", 3
    outputs: dict[str, Sequence[object]] = {}
    for block, (width, layers) in enumerate(VGG19_BLOCKS):
        if block:
            x = graph.node("MaxPool", [x], f"pool_{block}", kernel_shape=[2, 2], strides=[2, 2])
        for layer in range(layers):
            name = f"conv{block + 1}_{layer + 1}"
            x = graph.convolution(x, name, (inside, width), 3)
            x = graph.node("Relu", [x], f"relu{block + 1}_{layer + 1}")
            inside = width
            if layer == 1:
                graph.convolution(x, f"level_{block}", (width, channels), 1)
                scale = 2**block
                outputs[f"level_{block}"] = [
                    1,
                    channels,
                    *(s // scale if isinstance(s, int) else f"{s}{block}" for s in size),
                ]
    return graph.save(path, {"image": [1, 3, *size]}, outputs)
