"""A bundle with small random networks that honours the contract of the file format."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trtseg import bundle

CHANNELS, FEATURES = 8, 4


def _conv(name: str, x: str, y: str, weight: np.ndarray, stride: int = 1) -> tuple[list, list]:
    pads = [weight.shape[2] // 2] * 4 if stride == 1 else [0, 0, 0, 0]
    node = helper.make_node(
        "Conv", [x, f"{name}.weight", f"{name}.bias"], [y], strides=[stride] * 2, pads=pads
    )
    bias = np.zeros(weight.shape[0], np.float32)
    values = {f"{name}.weight": weight.astype(np.float32), f"{name}.bias": bias}
    return [node], [numpy_helper.from_array(v, k) for k, v in values.items()]


def _model(nodes: list, initializers: list, inputs: dict, outputs: dict) -> bytes:
    def info(shapes: dict) -> list:
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]

    graph = helper.make_graph(nodes, "g", info(inputs), info(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def graphs(
    rng: np.random.Generator,
    *,
    levels: int,
    guidance: int,
    candidates: int,
    inputs: tuple,
    region: bool = False,
) -> dict[str, bytes]:
    """Encoder, segment and select with random weights; select does not look at a region."""
    nodes, values, outputs, x = [], [], {}, "image"
    for level in range(levels):
        channels = 3 if level == 0 else CHANNELS
        weight = rng.normal(0, 0.6 / channels**0.5, (CHANNELS, channels, 2, 2))
        weight[0] /= 8  # the image matters less than the clicks
        n, v = _conv(f"stage_{level}", x, f"level_{level}", weight, stride=2)
        nodes, values, x = nodes + n, values + v, f"level_{level}"
        outputs[x] = [1, CHANNELS, f"h{level}", f"w{level}"]
    encoder = _model(nodes, values, {"image": [1, 3, "h", "w"]}, outputs)

    body = rng.normal(0, 0.05, (FEATURES, CHANNELS, 3, 3))
    body[0, 0, 1, 1] = 1  # feature 0 follows the clicks, see `write_tiny`
    head = rng.normal(0, 0.5, (candidates, FEATURES, 1, 1))
    head[:, 0] = 4
    n1, v1 = _conv("body", "x", "raw", body)
    n2, v2 = _conv("head", "features", "logits", head)
    # candidates of different sizes
    offsets = np.linspace(-2, -8, candidates).astype(np.float32)
    v2[1] = numpy_helper.from_array(offsets, "head.bias")
    middle = helper.make_node("LeakyRelu", ["raw"], ["features"], alpha=0.2)
    last = helper.make_node("Sigmoid", ["logits"], ["masks"])
    outputs = {"masks": [1, candidates, "H", "W"]}
    if "features" in inputs:
        outputs["features"] = [1, FEATURES, "H", "W"]
    segment = _model(
        [*n1, middle, *n2, last], v1 + v2, {"x": [1, CHANNELS, "H", "W"]}, outputs
    )
    sizes = {"guidance": guidance, "masks": candidates, "image": 3, "features": FEATURES}
    total = sum(sizes[name] for name in inputs)
    weight = rng.normal(0, 1, (candidates, total, 1, 1))
    if region and "guidance" in inputs:
        before = sum(sizes[name] for name in inputs[: inputs.index("guidance")])
        weight = np.insert(weight, before + guidance, 0, axis=1)
        sizes["guidance"] += 1
    n, v = _conv("judge", "all", "map", weight)
    concat = helper.make_node("Concat", list(inputs), ["all"], axis=1)
    pool = helper.make_node("GlobalAveragePool", ["map"], ["pooled"])
    flat = helper.make_node("Flatten", ["pooled"], ["raw_scores"])
    share = helper.make_node("Softmax", ["raw_scores"], ["scores"], axis=1)
    select = _model(
        [concat, *n, pool, flat, share],
        v,
        {name: [1, sizes[name], "H", "W"] for name in inputs},
        {"scores": [1, candidates]},
    )
    return {"encoder.onnx": encoder, "segment.onnx": segment, "select.onnx": select}


def write_tiny(
    path: Path,
    *,
    seed: int = 0,
    long_side_px: int = 128,
    stride: int = 4,
    candidates: int = 3,
    previous_mask: bool = True,
    region: bool = False,
    click_map: str = "gaussian",
    click_weight: float = 4,
    inputs: tuple[str, ...] = ("guidance", "masks", "features"),
    **changes: object,
) -> Path:
    """Write a bundle; `changes` replace manifest entries.

    Its masks follow the clicks; with a `click_weight` of 0 hardly.
    """
    rng = np.random.default_rng(seed)
    channels = 4 + previous_mask + region
    files = graphs(
        rng, levels=3, guidance=channels - region, candidates=candidates, inputs=inputs,
        region=region,
    )  # fmt: skip
    # Channel 0: a positive click raises, a negative one lowers, what was selected stays a little,
    # a box or a loop raises inside and lowers outside.
    weight = rng.normal(0, 0.5, (CHANNELS, channels - region))
    weight[0] = [click_weight, -click_weight, 0, 0] + [0.7] * previous_mask
    if region:  # all else is what it is without
        weight = np.column_stack([weight, [6] + [0] * (CHANNELS - 1)])
    parameters = {
        "guidance_weight": weight.astype(np.float32),
        "bias": rng.normal(0, 0.3, CHANNELS).astype(np.float32),
    }
    image_term = stride == 1
    if image_term:
        parameters["image_weight"] = rng.normal(0, 0.5, (CHANNELS, 3)).astype(np.float32)
    archive = io.BytesIO()
    np.savez(archive, **parameters)
    files["parameters.npz"] = archive.getvalue()
    roles = ("encoder", "segment", "select") if candidates > 1 else ("encoder", "segment")
    if candidates == 1:
        del files["select.onnx"]
    manifest = {
        "name": "tiny",
        "kind": "latent-diversity",
        "network": {},
        "working_size": {"long_side_px": long_side_px, "multiple_px": 32},
        "image": {"mean": [123.7, 116.3, 103.5], "scale": [0.017, 0.0175, 0.0174]},
        "base": {"stride": stride, "channels": CHANNELS, "levels": 3, "image_term": image_term},
        "guidance": {
            "channels": channels,
            "click_map": click_map,
            "sigma_grid_px": 1.5,
            "distance_limit_px": 255.0,
            "previous_mask": previous_mask,
            "region": region,
        },
        "candidates": candidates,
        "threshold": 0.5,
        "select_inputs": list(inputs) if candidates > 1 else [],
        "graphs": {role: {"fp32": f"{role}.onnx"} for role in roles},
        "parameters": "parameters.npz",
        **changes,
    }
    return bundle.write(path, manifest, files)
