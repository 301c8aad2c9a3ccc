"""Which ONNX graphs a bundle may hold, found out without ONNX's own package.

A graph is data, and running it must do no more than compute its outputs: it reads no file outside
of its bundle, has no loop, no branch and no function of its own, and uses operators of an
allow-list. ONNX is protobuf (https://protobuf.dev/programming-guides/encoding), of which this
reads just enough: the walk goes to a fixed depth, and every occurrence of a field counts, since
parsers merge them.

Weights that two graphs of a bundle have in common lie in one of them alone; the other names the
place, as ONNX's external data. `self_contained` puts them back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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


def check_graph(data: bytes, files: Mapping[str, bytes]) -> None:
    """See to it that a graph is one that a bundle may hold.

    Args:
        data: a serialised `ModelProto`.
        files: of its bundle, by name, where weights may lie. All that a graph takes from a file is
            no more than the file has.

    Raises:
        GraphRefused: it is not.
    """
    if data[4:8] == _ORT_FORMAT:
        raise GraphRefused("expected ONNX, got ONNX Runtime's own format")
    graphs, left = 0, {name: len(content) for name, content in files.items()}
    for field, value in _fields(memoryview(data)):
        if field == 7:  # graph
            _check_nodes(_message(value), files, left)
            graphs += 1
        elif field in (20, 25):  # training_info, functions
            raise GraphRefused("functions of its own are not allowed")
    if graphs != 1:
        raise GraphRefused("no ONNX graph" if graphs == 0 else "more than one graph")


def self_contained(data: bytes, files: Mapping[str, bytes]) -> bytes:
    """A graph that passed `check_graph`, with the weights that lie in other files inside it."""
    return b"".join(
        _field(7, b"".join(_with_weights(_message(value), files))) if field == 7 else whole
        for field, value, whole in _spans(memoryview(data))
    )


def _with_weights(graph: Message, files: Mapping[str, bytes]) -> Iterator[bytes | Message]:
    for field, value, whole in _spans(graph):
        place = _place(_message(value)) if field == 5 else None  # initializer
        if place is None:
            yield whole
            continue
        name, start, size = place
        kept = (span for number, _, span in _spans(_message(value)) if number not in (9, 13, 14))
        weights = memoryview(files[name])[start : start + size]
        yield _field(5, b"".join([*kept, _field(9, weights)]))  # raw_data


def _field(number: int, content: bytes | Message) -> bytes:
    size, head = len(content), bytearray([number << 3 | _BYTES])
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return b"".join([head, bytes([size]), content])


def _place(tensor: Message) -> tuple[str, int, int] | None:
    """(file, first byte, bytes) of a tensor whose values lie in another file."""
    found: dict[bytes, bytes] = {}
    elsewhere = False
    for field, value in _fields(tensor):
        if field == 14:  # data_location
            elsewhere = value == 1
        elif field == 13:  # external_data
            entry = {key: bytes(_message(text)[:256]) for key, text in _fields(_message(value))}
            found[entry.get(1, b"")] = entry.get(2, b"")
    if not elsewhere and not found:
        return None
    try:
        start, size = int(found[b"offset"]), int(found[b"length"])
        return found[b"location"].decode(), start, size
    except (KeyError, ValueError):
        raise GraphRefused("weights in another file: expected location, offset, length") from None


def _check_nodes(graph: Message, files: Mapping[str, bytes], left: dict[str, int]) -> None:
    nodes = 0
    for field, value in _fields(graph):
        if field == 1:
            nodes += 1
            if nodes > _LARGEST_NODES:
                raise GraphRefused(f"more than {_LARGEST_NODES} operators")
            _check_node(_message(value))
        elif field == 5:  # initializer
            _check_weights(_message(value), files, left)
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


def _check_weights(tensor: Message, files: Mapping[str, bytes], left: dict[str, int]) -> None:
    """Values that lie elsewhere lie in a file of the bundle, of which `left` bytes may be taken."""
    place = _place(tensor)
    if place is None:
        return
    name, start, size = place
    if name not in files:
        raise GraphRefused("weights in files outside of the bundle are not allowed")
    left[name] -= size
    if start < 0 or size < 0 or left[name] < 0 or start + size > len(files[name]):
        raise GraphRefused(f"weights in {quoted(name)}: expected them within the file, and once")


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
    for field, value, _ in _spans(message):
        yield field, value


def _spans(message: Message) -> Iterator[tuple[int, Message | int, Message]]:
    """The same, and all bytes of the field."""
    at, end = 0, len(message)
    while at < end:
        first = at
        tag, at = _varint(message, at)
        field, wire = tag >> 3, tag & 7
        if not 0 < field < 2**29:
            raise GraphRefused("not ONNX: a field's number is out of range")
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield field, value, message[first:at]
            continue
        if wire == _BYTES:
            size, at = _varint(message, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise GraphRefused(f"not ONNX: a field of wire type {wire}")
        if size > end - at:
            raise GraphRefused("not ONNX: it ends within a field")
        yield field, message[at : at + size], message[first : at + size]
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
