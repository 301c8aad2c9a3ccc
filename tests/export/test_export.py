"""What is exported is what was trained, and drift is refused."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from networks import grid_config, lite_config
from onnx import numpy_helper

from trtseg import Segmenter, bundle
from trtseg.bundle.graph import check_graph, self_contained
from trtseg.errors import BundleError
from trtseg.export.bundle import export_bundle, manifest_of, pack
from trtseg.export.graphs import network_graphs, round_to_half
from trtseg.export.random import random_full
from trtseg.export.scale import fit_features_to_half
from trtseg.export.verify import Limits, beyond, verify_graphs
from trtseg.nn.backbones import efficientnet_lite, mobilenet
from trtseg.nn.bundle_weights import load_network
from trtseg.nn.config import NetworkConfig
from trtseg.nn.network import LatentDiversity
from trtseg.nn.parts import interfaces

SMALL = {"width": 8, "dilations": (1, 2, 1), "select_width": 8, "select_dilations": (1, 1)}
# exporting a backbone takes seconds: two variants have one, the others see the image alone
PLAIN = {**SMALL, "encoder": "none", "previous_mask": True, "working_long_side_px": 128}
VARIANTS = {
    "grid": grid_config(**SMALL),
    "lite": lite_config(map_widths=(8, 8, 8), neck_widths=(8,) * 5, width=8, select_width=8),
    "paper": NetworkConfig(**PLAIN),
    "rank": NetworkConfig(**PLAIN, select="rank"),
    "unet, one mask": NetworkConfig(**PLAIN, segment="unet", candidates=1),
}


def _network(config: NetworkConfig, seed: int = 0) -> LatentDiversity:
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    network = LatentDiversity(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                # biases begin at zero, and the exporter stores equal tensors once
                parameter.normal_(std=0.1)
    return network


@pytest.fixture(scope="module", autouse=True)
def shallow() -> Iterator[None]:
    """Backbones of one block a stage, two in one of them, which then has its residual."""
    with pytest.MonkeyPatch.context() as patch:
        for backbone in (efficientnet_lite, mobilenet):
            stages = [(*stage[:2], 1 + (at == 1), *stage[3:])
                      for at, stage in enumerate(backbone.STAGES)]  # fmt: skip
            patch.setattr(backbone, "STAGES", tuple(stages))
        yield


@functools.cache
def exported(variant: str) -> tuple[LatentDiversity, dict[str, dict[str, onnx.ModelProto]]]:
    network = _network(VARIANTS[variant])
    return network, network_graphs(network)


@pytest.fixture
def lite() -> tuple[LatentDiversity, dict[str, dict[str, onnx.ModelProto]]]:
    return exported("lite")


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> LatentDiversity:
    """A small network whose graphs are there already, for what `export_bundle` does with them."""
    network, graphs = exported("rank")
    monkeypatch.setattr("trtseg.export.bundle.network_graphs", lambda *_, **__: graphs)
    return network


@pytest.mark.slow
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_graphs_equal_torch_at_all_sizes(variant: str) -> None:
    network, graphs = exported(variant)
    assert set(graphs) == set(interfaces(network))
    assert not beyond({"graphs": verify_graphs(network, graphs)}, Limits())


def test_a_strided_layer_is_exported_as_one(lite) -> None:
    # not in the form that trains faster: at every pixel, and three quarters of it dropped
    nodes = lite[1]["encoder"]["fp32"].graph.node
    assert not [node for node in nodes if node.op_type == "Slice"]
    assert sum(list(attribute.ints) == [2, 2] for node in nodes for attribute in node.attribute
               if attribute.name == "strides") == 5  # fmt: skip


def test_initialisers_are_named_as_in_the_state_dict(lite) -> None:
    network, graphs = lite
    state = network.state_dict()
    found = set()
    for by_precision in graphs.values():
        for model in by_precision.values():
            for initialiser in model.graph.initializer:
                if initialiser.name in state:
                    found.add(initialiser.name)
                    value = numpy_helper.to_array(initialiser).astype(np.float32)
                    want = state[initialiser.name].numpy()
                    np.testing.assert_allclose(value, want, rtol=2**-10, atol=1e-7)
                else:
                    assert numpy_helper.to_array(initialiser).size <= 8  # a constant of an op
    parameters = {"image_weight", "bias", "guidance_weight"}
    assert found == set(state) - parameters


def _types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def test_half_graphs_pool_and_divide_in_float32_and_hand_on_half(lite) -> None:
    graphs = lite[1]
    for role in graphs:
        model = graphs[role]["fp16"]
        types = _types(model)
        # no copies between the graphs: masks leave `segment` as `select` takes them
        for value in (*model.graph.input, *model.graph.output):
            assert types[value.name] == onnx.TensorProto.FLOAT16, value.name
        if role != "select":
            continue
        # over all cells of a large image
        for node in model.graph.node:
            if node.op_type in ("ReduceMean", "ReduceSum", "Div", "Softmax"):
                assert types[node.output[0]] == onnx.TensorProto.FLOAT, node.op_type


def test_random_weights_come_back_out_of_their_bundle() -> None:
    found = load_network(random_full(VARIANTS["paper"])).state_dict()
    assert found.keys() == LatentDiversity(VARIANTS["paper"]).state_dict().keys()
    assert all(bool(value.any()) for value in found.values())


def test_biases_that_the_exporter_dropped_are_zero_again(tmp_path) -> None:
    network = _network(VARIANTS["rank"])
    with torch.no_grad():
        for parameter_name, parameter in network.segment.named_parameters():
            if parameter_name.endswith(".bias"):
                parameter.zero_()
    names, files = pack(network, network_graphs(network))
    manifest = {**manifest_of(network, "zeros"), "graphs": names}
    loaded = load_network(bundle.read(bundle.write(tmp_path / "zeros", manifest, files)))
    for name, value in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=2**-10, atol=1e-6)


def test_features_beyond_half_are_scaled_and_answers_stay() -> None:
    assert fit_features_to_half(_network(VARIANTS["lite"])) == 1
    network = _network(NetworkConfig(**SMALL))
    encoder = network.encoder
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 100
    with torch.no_grad():
        encoder.backbone.scale_features(1e4)  # as weights from elsewhere may be
        taps, levels = encoder.backbone(image), encoder(image)
        assert max(float(tap.max()) for tap in taps) > 65504
        assert fit_features_to_half(network) == 1 / 255
        # float32: sums of thousands of products, relative to the largest
        for before, after in zip(
            (*taps, *levels),
            (*(tap * 255 for tap in encoder.backbone(image)), *encoder(image)),
            strict=True,
        ):
            torch.testing.assert_close(
                after, before, rtol=1e-4, atol=1e-5 * float(before.abs().max())
            )
    assert fit_features_to_half(network) == 1


def test_an_export_scales_features_before_it_traces(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    network = _network(NetworkConfig(**SMALL))
    network.encoder.backbone.scale_features(1e4)

    class Traced(Exception):
        pass

    def trace(given: LatentDiversity, fp16: bool) -> None:
        assert given is network
        assert fit_features_to_half(given) == 1, "nothing is left to scale"
        raise Traced

    monkeypatch.setattr("trtseg.export.bundle.network_graphs", trace)
    with pytest.raises(Traced):
        export_bundle(network, tmp_path / "large.trtseg", name="large")


def test_weights_are_stored_in_half_and_nothing_is_lost(lite) -> None:
    network, graphs = lite
    state = network.state_dict()
    for role in ("encoder", "segment"):
        stored = {i.name: i for i in graphs[role]["fp32"].graph.initializer}
        halves = [n for n, i in stored.items() if i.data_type == onnx.TensorProto.FLOAT16]
        assert sum(state[name].numel() for name in halves) > 0.9 * sum(
            value.numel() for name, value in state.items() if name.startswith(f"{role}.")
        )
        for name in halves:
            exact = numpy_helper.to_array(stored[name]).astype(np.float32)
            np.testing.assert_array_equal(exact, state[name].numpy())


def test_a_bundle_holds_weights_once(lite) -> None:
    network, graphs = lite
    names, files = pack(network, graphs)
    for role, by_precision in names.items():
        whole, lean = files[by_precision["fp32"]], files[by_precision["fp16"]]
        check_graph(lean, files)
        # what is left are operators and small tensors
        assert len(lean) < 0.25 * len(whole) + 20_000
        read = onnx.load_from_string(self_contained(lean, files))
        original = {i.name: i for i in graphs[role]["fp16"].graph.initializer}
        for initialiser in read.graph.initializer:
            assert initialiser == original[initialiser.name]


def test_rounding_to_half_is_idempotent() -> None:
    network = _network(VARIANTS["lite"])
    round_to_half(network)
    once = {name: value.clone() for name, value in network.state_dict().items()}
    round_to_half(network)
    for name, value in network.state_dict().items():
        assert torch.equal(value, once[name])


def test_graphs_tell_nothing_of_the_exporting_machine(lite) -> None:
    for by_precision in lite[1].values():
        for model in by_precision.values():
            assert b".py" not in model.SerializeToString()


def test_a_written_bundle_runs_and_holds_its_report(tmp_path, traced) -> None:
    path = tmp_path / "tiny.trtseg"
    report = export_bundle(traced, path, name="tiny", training={"step": 3}, objects=2)
    read = bundle.read(path)
    assert read.manifest.raw["export"] == json.loads(json.dumps(report))
    assert read.manifest.raw["training"] == {"step": 3}
    assert report["forced"] is False
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    segmenter = Segmenter.load(path)
    prediction = segmenter.session(segmenter.encode(image)).add_click(40, 30)
    assert prediction.mask.shape == (60, 80)


def test_drift_is_refused_unless_forced(tmp_path, traced) -> None:
    impossible = Limits(fp32=0.0, fp16=0.0)
    path = tmp_path / "drifting"
    with pytest.raises(BundleError, match=r"the export drifts: .*limit 0e\+00"):
        export_bundle(traced, path, name="drifting", limits=impossible, objects=1)
    assert not path.exists()
    report = export_bundle(
        traced, path, name="drifting", limits=impossible, objects=1, force=True
    )
    assert report["forced"] is True
    assert bundle.read(path).manifest.raw["export"]["forced"] is True


def test_a_network_too_large_for_fp16_is_told_so_and_exports_without(tmp_path) -> None:
    network = _network(VARIANTS["rank"])
    with torch.no_grad():
        network.segment.context.layers[0].weight *= 1e7  # FP16 ends at 65,504
        network.segment.head.weight *= 1e-7
    path = tmp_path / "large"
    with pytest.raises(BundleError, match=r"(FP16 sessions fail|drifts)"):
        export_bundle(network, path, name="large", objects=1)
    assert not path.exists()
    report = export_bundle(network, path, name="large", fp16=False)
    assert "sessions" not in report
    assert bundle.read(path).precisions("segment") == ("fp32",)
    assert Segmenter.load(path).engines


def test_nothing_is_overwritten_unasked(tmp_path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError, match="there"):
        export_bundle(_network(VARIANTS["rank"]), tmp_path / "there", name="x")


def test_nan_counts_as_drift() -> None:
    report = {"graphs": {"segment": {"fp32": float("nan"), "fp16": 0.0}}}
    assert beyond(report, dataclasses.replace(Limits()))
