"""The networks of latent diversity as ONNX graphs, in FP32 and in FP16."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from trtseg.nn.network import LatentDiversity

# initialisers smaller than this stay in FP32: biases and the like
_COMPACT_FROM_BYTES = 1024
# of a tensor's norm: within FP16's range, its 11 bits move no value by more than half of this
_ROUNDING = 1e-3


@dataclass(frozen=True)
class GraphInterface:
    """What a graph reads and writes, in order; heights and widths are free."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class _Encode(nn.Module):
    """[1, 3, h, w] -> level_0 ... level_{L-1}, and map_0 ... of a pyramid."""

    def __init__(self, network: LatentDiversity) -> None:
        super().__init__()
        assert network.encoder is not None
        self.encoder = network.encoder

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.encoder(image))


class _Segment(nn.Module):
    """x [1, C, H, W], and the maps of a pyramid -> masks, and the features where g reads them."""

    def __init__(self, network: LatentDiversity, with_features: bool) -> None:
        super().__init__()
        self.segment = network.segment
        self.with_features = with_features

    def forward(self, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        masks, features = self.segment(*inputs)
        # f gives float32 for the sake of its training; g reads them in the graphs' own type
        masks = masks.to(inputs[0].dtype)
        return (masks, features) if self.with_features else (masks,)


class _Select(nn.Module):
    """g's inputs, in the configuration's order -> scores [1, M]."""

    def __init__(self, network: LatentDiversity) -> None:
        super().__init__()
        assert network.select is not None
        self.select = network.select

    def forward(self, inputs: list[Tensor]) -> Tensor:
        return self.select(inputs)


def interfaces(network: LatentDiversity) -> dict[str, GraphInterface]:
    """The graphs a network has, by role."""
    config = network.config
    found: dict[str, GraphInterface] = {}
    maps = tuple(f"map_{i}" for i in range(len(config.map_widths)))
    if network.encoder is not None:
        levels = tuple(f"level_{i}" for i in range(network.encoder.levels))
        found["encoder"] = GraphInterface(("image",), levels + maps)
    selects = network.select is not None
    features = selects and "features" in config.select_inputs
    found["segment"] = GraphInterface(
        ("x", *maps), ("masks", "features") if features else ("masks",)
    )
    if selects:
        found["select"] = GraphInterface(config.select_inputs, ("scores",))
    return found


def example_inputs(
    network: LatentDiversity, role: str, size: tuple[int, int], seed: int = 0
) -> dict[str, Tensor]:
    """Random inputs of a graph for a working image of `size`, float32, in realistic ranges."""
    config = network.config
    generator = torch.Generator().manual_seed(seed)
    # by name: channels, and working pixels per cell
    shapes = {
        "x": (config.width, config.base_stride),
        "guidance": (config.guidance_channels, config.base_stride),
        "masks": (config.candidates, config.base_stride),
        "features": (config.feature_width, config.base_stride * config.feature_stride),
        "image": (3, config.base_stride),
    }
    for index, width in enumerate(config.map_widths):
        shapes[f"map_{index}"] = width, config.base_stride * 2 ** (index + 1)
    if role == "encoder":
        return {"image": torch.rand(1, 3, *size, generator=generator) * 2 - 1}
    values = {}
    for name in interfaces(network)[role].inputs:
        channels, stride = shapes[name]
        cells = [side // stride for side in size]
        value = torch.rand(1, channels, *cells, generator=generator)
        # hidden activations and images have both signs; guidance and masks lie in [0, 1]
        values[name] = value if name in ("guidance", "masks") else value * 2 - 1
    return values


def wrapped(network: LatentDiversity, role: str) -> nn.Module:
    """The part of the network that a graph holds; its parameters keep their full names."""
    if role == "encoder":
        return _Encode(network)
    if role == "select":
        return _Select(network)
    return _Segment(network, "features" in interfaces(network)["segment"].outputs)


def call(module: nn.Module, role: str, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """Run a `wrapped` module on named inputs."""
    if role == "encoder":
        return module(*inputs.values())
    made = module(list(inputs.values()))
    return made if role == "segment" else (made,)


def export_graph(
    network: LatentDiversity, role: str, size: tuple[int, int], half: bool
) -> onnx.ModelProto:
    """One graph with free height and width; initialisers are named as in the state dict.

    Args:
        network: in evaluation mode, float32.
        role: "encoder", "segment" or "select".
        size: working size of the example that is traced.
        half: an FP16 graph (inputs, weights and outputs), else FP32.
    """
    module = wrapped(network, role).eval()
    inputs = example_inputs(network, role, size)
    if half:
        module = copy.deepcopy(module).half()
        inputs = {name: value.half() for name, value in inputs.items()}
    interface = interfaces(network)[role]
    free = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    arguments: tuple = (list(inputs.values()),)
    shapes: tuple = ([free] * len(inputs),)
    if role == "encoder":
        arguments, shapes = tuple(inputs.values()), (free,)
    return traced(module, arguments, interface.inputs, interface.outputs, shapes)


def traced(
    module: nn.Module,
    arguments: tuple,
    inputs: Sequence[str],
    outputs: Sequence[str],
    shapes: tuple,
) -> onnx.ModelProto:
    """The graph of a module.

    Args:
        module: in evaluation mode.
        arguments: examples of its inputs.
        inputs, outputs: their names, in order.
        shapes: which sides are free, as `torch.export` takes it.
    """
    # the exporter tells of its own internals, and of libraries that nothing here needs
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    # without gradients: layers may have a form of their own for training
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            arguments,
            dynamo=True,
            external_data=False,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=shapes,
            verbose=False,
        )
        assert program is not None  # it is, with dynamo
        model = program.model_proto
    _strip_traces(model)
    return model


def _strip_traces(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes (they quote source paths of the machine that exported)."""
    del model.metadata_props[:]
    model.graph.ClearField("metadata_props")
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")
    model.graph.ClearField("doc_string")


def store_weights_in_half(model: onnx.ModelProto) -> None:
    """Keep an FP32 graph's large weights as FP16, cast when a session is created.

    Halves the file. The arithmetic stays FP32, and nothing changes: weights that FP16 does not hold
    exactly (see `round_to_half`) stay as they are.
    """
    casts = []
    for initialiser in model.graph.initializer:
        if initialiser.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(initialiser)
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if values.nbytes < _COMPACT_FROM_BYTES or (halves.astype(np.float32) != values).any():
            continue
        name = initialiser.name
        wide = f"{name}.float32"
        initialiser.CopyFrom(numpy_helper.from_array(halves, name))
        casts.append(helper.make_node("Cast", [name], [wide], to=TensorProto.FLOAT))
        for node in model.graph.node:
            for index, source in enumerate(node.input):
                if source == name:
                    node.input[index] = wide
    stored = {node.input[0] for node in casts}
    # the exporter also declares the types of initialisers, which are others now
    kept = [value for value in model.graph.value_info if value.name not in stored]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def without_weights_of(model: onnx.ModelProto, filename: str, content: bytes) -> onnx.ModelProto:
    """A copy of which weights that lie in another file are left out, and named as external data.

    Args:
        model: whose weights may lie in the file, byte by byte.
        filename: of the file beside it.
        content: of that file.
    """
    lean = onnx.ModelProto()
    lean.CopyFrom(model)
    for tensor in lean.graph.initializer:
        size = len(tensor.raw_data)
        start = content.find(tensor.raw_data) if size * 2 >= _COMPACT_FROM_BYTES else -1
        if start < 0:
            continue
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", filename), ("offset", start), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
    return lean


def round_to_half(module: nn.Module) -> None:
    """Round a module's larger weights to values that FP16 holds exactly, in place.

    Weights beyond FP16's range, on either side, stay as they are.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.numel() * 4 < _COMPACT_FROM_BYTES:
                continue
            rounded = parameter.half().float()
            if (rounded - parameter).norm() <= _ROUNDING * parameter.norm():
                parameter.copy_(rounded)


def network_graphs(
    network: LatentDiversity, size: tuple[int, int] = (256, 320)
) -> dict[str, dict[str, onnx.ModelProto]]:
    """All graphs by role and precision ("fp32", "fp16").

    The weights are rounded to FP16 and stored so in both (in place: `network` then equals what is
    exported); the arithmetic of an FP32 graph is FP32.
    """
    round_to_half(network)
    graphs: dict[str, dict[str, onnx.ModelProto]] = {}
    for role in interfaces(network):
        graphs[role] = {
            "fp32": export_graph(network, role, size, half=False),
            "fp16": export_graph(network, role, size, half=True),
        }
        store_weights_in_half(graphs[role]["fp32"])
        for model in graphs[role].values():
            onnx.checker.check_model(model, full_check=True)
    return graphs
