"""Graphs of networks pass; whatever could do more than compute does not."""

from __future__ import annotations

import contextlib
import os

import hypothesis
import hypothesis.strategies as st
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from trtseg import bundle
from trtseg.bundle.graph import GraphRefused, check_graph, self_contained

EXAMPLES = int(os.environ.get("TRTSEG_FUZZ", "200"))
WEIGHT = numpy_helper.from_array(np.ones((2, 4, 1, 1), np.float32), "w")
IMAGE = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, "h", "w"])
MASKS = helper.make_tensor_value_info("masks", TensorProto.FLOAT, [1, 2, "h", "w"])


def model(*nodes, weights=(WEIGHT,), opsets=(), **options) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "g", [IMAGE], [MASKS], list(weights), **options)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20), *opsets])


def conv(**attributes):
    return helper.make_node("Conv", ["x", "w"], ["masks"], **attributes)


def check(made: onnx.ModelProto) -> None:
    check_graph(made.SerializeToString(), {})


def test_every_shipped_graph_passes():
    for name in bundle.names():
        read = bundle.read(name)
        for role in read.manifest.graphs:
            for precision in read.precisions(role):
                check_graph(read.graph(role, precision), {})


def test_a_pyramid_with_a_u_shaped_head_passes():
    kinds = (
        "Clip Resize Concat AveragePool GlobalAveragePool MaxPool ConvTranspose HardSigmoid "
        "HardSwish ReduceMean Sub Mul Pow Add Sqrt Div Slice Pad Split Transpose Gemm MatMul "
        "Softmax LayerNormalization Erf Constant Shape Reshape Gather Cast"
    )
    check(model(*(helper.make_node(kind, ["x"], [kind]) for kind in kinds.split()), conv()))


def outside(place: str, offset: object = 0, length: object = 32) -> onnx.TensorProto:
    tensor = onnx.TensorProto()
    tensor.CopyFrom(WEIGHT)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", place), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


BODY = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "b", [], [MASKS])


REFUSED = [
    (model(conv(), weights=[outside("secret.bin")]), "outside of the bundle"),
    (model(conv(), weights=[outside("/etc/passwd")]), "outside of the bundle"),
    (model(conv(), weights=[outside("*/_ORT_MEM_ADDR_/*")]), "outside of the bundle"),
    (
        model(helper.make_node("Constant", [], ["w"], value=outside("a")), conv(), weights=()),
        "weights in other files",
    ),
    (model(helper.make_node("Loop", ["x"], ["masks"], body=BODY)), "'Loop' is not allowed"),
    (model(helper.make_node("Conv", ["x"], ["masks"], body=BODY)), "with graphs inside"),
    (model(helper.make_node("Conv", ["x"], ["y"], bodies=[BODY] * 2)), "with graphs inside"),
    (model(helper.make_node("If", ["x"], ["masks"])), "'If' is not allowed"),
    (model(helper.make_node("Scan", ["x"], ["masks"])), "'Scan' is not allowed"),
    (model(helper.make_node("ConstantOfShape", ["x"], ["y"])), "'ConstantOfShape'"),
    (model(helper.make_node("Expand", ["x"], ["y"])), "'Expand'"),
    (model(helper.make_node("Tile", ["x"], ["y"])), "'Tile'"),
    (model(helper.make_node("Range", ["x"], ["y"])), "'Range'"),
    (model(helper.make_node("E" * 10**6, ["x"], ["y"])), "operator 'EEE.*is not allowed"),
    (
        model(helper.make_node("Conv", ["x"], ["y"], domain="com.evil")),
        "operators of 'com.evil'",
    ),
    (model(conv(pads=[100_000] * 4)), "pads: expected at most 256, got 100000"),
    (model(conv(dilations=[2**31 - 1] * 2)), "dilations: expected at most"),
    (model(conv(pads=[-(2**40)] * 4)), "pads: expected at most 256, got -"),
    (model(conv(values=[WEIGHT, WEIGHT])), "lists of tensors"),
    (
        model(conv(), sparse_initializer=[onnx.SparseTensorProto(values=WEIGHT)]),
        "sparse tensors",
    ),
    (model(*[helper.make_node("Relu", ["x"], ["x"])] * 5_001), "more than 5000 operators"),
]


@pytest.mark.parametrize(("made", "message"), REFUSED)
def test_what_does_more_than_compute_is_refused(made, message):
    with pytest.raises(GraphRefused, match=message) as caught:
        check(made)
    assert len(str(caught.value)) < 200


def test_functions_are_refused():
    made = model(conv())
    made.functions.add(name="Conv", domain="")
    with pytest.raises(GraphRefused, match="functions of its own"):
        check(made)


def test_a_second_graph_and_a_hidden_one_are_refused():
    plain = model(conv()).SerializeToString()
    loop = model(helper.make_node("Loop", ["x"], ["masks"], body=BODY)).SerializeToString()
    for data in (plain + plain, plain + loop):  # parsers merge what comes twice
        assert onnx.load_from_string(data).graph.node
        with pytest.raises(GraphRefused):
            check_graph(data, {})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x08",
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x3b\x3c",  # a group
        b"\x3a\x05\x08",
        b"\x38\x01",  # a number where the graph should be
        b"\xba\x80\x80\x80\x10\x00",  # field 7, and a bit that some parsers drop
        b"\0\0\0\0ORTM" + bytes(100),
        os.urandom(1000),
    ],
)
def test_what_is_no_onnx_is_refused(data):
    with pytest.raises(GraphRefused):
        check_graph(data, {})


FILES = {"other.onnx": bytes(7) + WEIGHT.raw_data + bytes(9)}


def test_weights_may_lie_in_another_file_of_the_bundle():
    lean = model(conv(), weights=[outside("other.onnx", 7)]).SerializeToString()
    check_graph(lean, FILES)
    whole = self_contained(lean, FILES)
    check_graph(whole, {})
    assert onnx.load_from_string(whole) == model(conv())
    assert self_contained(whole, {}) == whole


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([outside("other.onnx", 20)], "within the file"),
        ([outside("other.onnx", -1)], "within the file"),
        ([outside("other.onnx", 7, -8)], "within the file"),
        ([outside("other.onnx", 7, 2**62)], "within the file"),
        ([outside("other.onnx", 7)] * 2, "and once"),
        ([outside("other.onnx", "x")], "expected location, offset, length"),
        ([outside("other.onnx", "9" * 300)], "within the file|expected location"),
    ],
)
def test_weights_in_another_file_lie_within_it_and_once(tensors, message):
    made = model(conv(), weights=tensors).SerializeToString()
    with pytest.raises(GraphRefused, match=message):
        check_graph(made, FILES)


SEEDS = [
    model(conv(pads=[1] * 4)).SerializeToString(),
    model(conv(), weights=[outside("other.onnx", 7)]).SerializeToString(),
    model(helper.make_node("Constant", [], ["w"], value=outside("a")), conv()).SerializeToString(),
    model(helper.make_node("Loop", ["x"], ["masks"], body=BODY)).SerializeToString(),
]


@hypothesis.given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 2), st.integers(0, 255)), max_size=4),
)
@hypothesis.settings(max_examples=EXAMPLES)
def test_a_mutated_graph_passes_only_if_onnx_sees_nothing_to_refuse(data, mutations):
    mutated = bytearray(data)
    for at, kind, value in mutations:
        place = at % len(mutated)
        if kind == 0:
            mutated[place] = value
        elif kind == 1:
            mutated.insert(place, value)
        elif len(mutated) > 1:
            del mutated[place]
    try:
        check_graph(bytes(mutated), FILES)
    except GraphRefused:
        return
    try:
        seen = onnx.load_from_string(self_contained(bytes(mutated), FILES))
    except Exception:
        return  # ONNX Runtime, which uses the same parser, refuses it
    for node in seen.graph.node:
        assert node.domain in ("", "ai.onnx")
        assert node.op_type in bundle.graph.OPERATORS
        assert not any(attribute.HasField("g") for attribute in node.attribute)
    tensors = [*seen.graph.initializer, *(a.t for n in seen.graph.node for a in n.attribute)]
    assert not any(tensor.external_data or tensor.data_location for tensor in tensors)


@hypothesis.given(st.binary(max_size=200))
@hypothesis.settings(max_examples=EXAMPLES)
def test_any_bytes_raise_one_error(data):
    with contextlib.suppress(GraphRefused):
        check_graph(data, {})
