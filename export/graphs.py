"""The networks of latent diversity as ONNX graphs, in FP32 and in FP16."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Sequence

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from trtseg.nn.network import LatentDiversity
from trtseg.nn.parts import Part, interfaces

# initialisers smaller than this stay in FP32: biases and the like
_COMPACT_FROM_BYTES = 1024
# of a tensor's norm: within FP16's range, its 11 bits move no value by more than half of this
_ROUNDING = 1e-3


def example_inputs(
    network: LatentDiversity, role: str, size: tuple[int, int], seed: int = 0
) -> dict[str, Tensor]:
    """Random inputs of a graph for a working image of `size`, float32, in realistic ranges."""
    config = network.config
    generator = torch.Generator().manual_seed(seed)
    values = {}
    for name in interfaces(network)[role].inputs:
        stride = 1 if role == "encoder" else config.base_stride * config.cells(name)
        cells = [side // stride for side in size]
        value = torch.rand(1, config.channels(name), *cells, generator=generator)
        # hidden activations and images have both signs; guidance and masks lie in [0, 1]
        values[name] = value if name in ("guidance", "masks") else value * 2 - 1
    return values


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
    module = Part(network, role).eval()
    inputs = example_inputs(network, role, size)
    if half:
        module = copy.deepcopy(module).half()
        inputs = {name: value.half() for name, value in inputs.items()}
    interface = interfaces(network)[role]
    free = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    return traced(
        module, (list(inputs.values()),), interface.inputs, interface.outputs,
        ([free] * len(inputs),),
    )  # fmt: skip


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
    network: LatentDiversity, size: tuple[int, int] = (256, 320), fp16: bool = True
) -> dict[str, dict[str, onnx.ModelProto]]:
    """All graphs by role and precision ("fp32", and "fp16" where wanted).

    The weights are rounded to FP16 and stored so in both (in place: `network` then equals what is
    exported); the arithmetic of an FP32 graph is FP32.
    """
    round_to_half(network)
    graphs: dict[str, dict[str, onnx.ModelProto]] = {}
    for role in interfaces(network):
        graphs[role] = {"fp32": export_graph(network, role, size, half=False)}
        if fp16:
            graphs[role]["fp16"] = export_graph(network, role, size, half=True)
        store_weights_in_half(graphs[role]["fp32"])
        for model in graphs[role].values():
            onnx.checker.check_model(model, full_check=True)
    return graphs
