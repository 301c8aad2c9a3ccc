"""Which ONNX graphs a bundle may hold, found out without ONNX's own package.

A graph is data, and running it must do no more than compute its outputs: it reads no other file,
has no loop, no branch and no function of its own, and uses operators of an allow-list. ONNX is
protobuf (https://protobuf.dev/programming-guides/encoding), of which this reads just enough: the
walk goes to a fixed depth, and every occurrence of a field counts, since parsers merge them.
"""

from __future__ import annotations

from collections.abc import Iterator

from trtseg.parse import quoted

# What convolutional networks are made of. Nothing here makes a large array from a small one but
# Pad, Resize and the strides of ConvTranspose, within what `_LARGEST_SIZE` allows.
OPERATORS = frozenset(
    [
        # convolutions and pooling
        "Conv", "ConvTranspose", "AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool",
        "Resize", "Gemm", "MatMul",
        # activations and normalisation
        "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu", "Mish", "Clip", "Sigmoid",
        "HardSigmoid", "HardSwish", "Tanh", "Softplus", "Softmax", "LogSoftmax", "Erf",
        "BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization",
        # arithmetic
        "Add", "Sub", "Mul", "Div", "Neg", "Abs", "Sqrt", "Reciprocal", "Pow", "Exp", "Log",
        "Sin", "Cos", "Floor", "Ceil", "Round", "Min", "Max", "Sum", "Mean", "Sign", "Equal",
        "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not", "Where",
        "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
        "ReduceSumSquare",
        # shapes
        "Cast", "Constant", "Identity", "Concat", "Split", "Slice", "Pad", "Transpose", "Reshape",
        "Flatten", "Squeeze", "Unsqueeze", "Shape", "Gather", "DepthToSpace", "SpaceToDepth",
        "Dropout",
    ]
)
DOMAINS = (b"", b"ai.onnx")
_LARGEST_NODES = 5_000  # the time to load a graph grows with their square: one second
_LARGEST_SIZE = 256  # of a kernel, stride, dilation or padding: an operator is never stopped
_SIZES = (b"pads", b"strides", b"dilations", b"kernel_shape", b"output_padding", b"blocksize")
_ORT_FORMAT = b"ORTM"  # ONNX Runtime's own serialisation: a flatbuffer, told by its bytes 4 to 8

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
Message = memoryview


class GraphRefused(ValueError):
    """The graph is damaged, or does more than compute; the message says what, in a few words."""


def check_graph(data: bytes) -> None:
    """See to it that a graph is one that a bundle may hold.

    Args:
        data: a serialised `ModelProto`.

    Raises:
        GraphRefused: it is not.
    """
    if data[4:8] == _ORT_FORMAT:
        raise GraphRefused("expected ONNX, got ONNX Runtime's own format")
    graphs = 0
    for field, value in _fields(memoryview(data)):
        if field == 7:  # graph
            _check_nodes(_message(value))
            graphs += 1
        elif field in (20, 25):  # training_info, functions
            raise GraphRefused("functions of its own are not allowed")
    if graphs != 1:
        raise GraphRefused("no ONNX graph" if graphs == 0 else "more than one graph")


def _check_nodes(graph: Message) -> None:
    nodes = 0
    for field, value in _fields(graph):
        if field == 1:
            nodes += 1
            if nodes > _LARGEST_NODES:
                raise GraphRefused(f"more than {_LARGEST_NODES} operators")
            _check_node(_message(value))
        elif field == 5:  # initializer
            _check_tensor(_message(value))
        elif field == 15:  # sparse_initializer
            raise GraphRefused("sparse tensors are not allowed")


def _check_node(node: Message) -> None:
    for field, value in _fields(node):
        if field == 4:  # op_type
            kind = bytes(_message(value)[:100]).decode("utf-8", "replace")
            if kind not in OPERATORS:
                raise GraphRefused(f"operator {quoted(kind)} is not allowed")
        elif field == 7:  # domain
            domain = bytes(_message(value)[:100])
            if domain not in DOMAINS:
                raise GraphRefused(f"operators of {quoted(domain.decode('utf-8', 'replace'))}")
        elif field == 5:
            _check_attribute(_message(value))


def _check_attribute(attribute: Message) -> None:
    name, numbers = b"", []
    for field, value in _fields(attribute):
        if field == 1:
            name = bytes(_message(value)[:100])
        elif field == 5:  # t
            _check_tensor(_message(value))
        elif field in (6, 11):  # g, graphs
            raise GraphRefused("operators with graphs inside (If, Loop, Scan) are not allowed")
        elif field in (10, 22, 23):  # tensors, sparse_tensor, sparse_tensors
            raise GraphRefused("lists of tensors and sparse tensors are not allowed")
        elif field in (3, 8):  # i, ints
            numbers += [value] if isinstance(value, int) else list(_packed(value))
    if name in _SIZES:
        for number in numbers:
            size = number - 2**64 if number >= 2**63 else number
            if abs(size) > _LARGEST_SIZE:
                raise GraphRefused(f"{name.decode()}: expected at most {_LARGEST_SIZE}, got {size}")


def _check_tensor(tensor: Message) -> None:
    for field, value in _fields(tensor):
        if field == 13 or (field == 14 and value != 0):  # external_data, data_location
            raise GraphRefused("weights in other files are not allowed")


def _message(value: Message | int) -> Message:
    if isinstance(value, int):
        raise GraphRefused("not ONNX: a number in place of a message")
    return value


def _fields(message: Message) -> Iterator[tuple[int, Message | int]]:
    """Number and value of each field of a protobuf message, in their order."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        field, wire = tag >> 3, tag & 7
        if not 0 < field < 2**29:
            raise GraphRefused("not ONNX: a field's number is out of range")
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield field, value
            continue
        if wire == _BYTES:
            size, at = _varint(message, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise GraphRefused(f"not ONNX: a field of wire type {wire}")
        if size > end - at:
            raise GraphRefused("not ONNX: it ends within a field")
        yield field, message[at : at + size]
        at += size


def _packed(message: Message) -> Iterator[int]:
    at = 0
    while at < len(message):
        value, at = _varint(message, at)
        yield value


def _varint(message: Message, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise GraphRefused("not ONNX: it ends within a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
    raise GraphRefused("not ONNX: a number of more than 10 bytes")
