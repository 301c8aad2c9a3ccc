"""The lite encoder's taps and its ImageNet weights."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from trtseg.errors import CheckpointError
from trtseg.nn.backbones.mobilenet import TAP_CHANNELS, InvertedResidual, MobileNetV2


def test_taps():
    with torch.no_grad():
        taps = MobileNetV2()(torch.randn(1, 3, 64, 96))
    assert [tap.shape[1] for tap in taps] == list(TAP_CHANNELS)
    assert [tuple(tap.shape[2:]) for tap in taps] == [
        (32, 48), (16, 24), (8, 12), (4, 6), (2, 3)
    ]  # fmt: skip


def save(path, network, change=lambda arrays: None):
    names = [f"{index:02d}_conv" for index in range(len(network.convolutions()))]
    arrays = {}
    for name, layer in zip(names, network.convolutions(), strict=True):
        arrays[f"{name}.weight"] = layer.weight.detach().numpy()
        arrays[f"{name}.bias"] = layer.bias.detach().numpy()
    change(arrays)
    np.savez(path, **arrays)
    path.with_name(f"{path.stem}.layers.json").write_text(
        json.dumps([{"name": name} for name in [*names, "classifier"]])
    )


def test_weights_are_read_in_order(tmp_path):
    source, other = MobileNetV2(), MobileNetV2()
    save(tmp_path / "w.npz", source)
    other.load_imagenet(tmp_path / "w.npz")
    for name, value in other.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name


def test_bad_files_are_named(tmp_path):
    path = tmp_path / "w.npz"
    with pytest.raises(CheckpointError, match=r"w\.npz: cannot read"):
        MobileNetV2().load_imagenet(path)
    save(path, MobileNetV2(), lambda arrays: arrays.pop("03_conv.bias"))
    with pytest.raises(CheckpointError, match=r"w\.npz: 03_conv\.bias is missing"):
        MobileNetV2().load_imagenet(path)
    save(path, MobileNetV2(), lambda arrays: arrays.update({"00_conv.bias": np.zeros(3)}))
    with pytest.raises(CheckpointError, match=r"00_conv\.bias: expected shape \(32,\), got \(3,\)"):
        MobileNetV2().load_imagenet(path)


def test_shared_weights_load(weights_folder):
    network = MobileNetV2()
    network.load_imagenet(weights_folder / "tf2_mobilenet_v2_1.0_224_ptq_dequant.npz")
    with torch.no_grad():
        assert all(torch.isfinite(tap).all() for tap in network(torch.zeros(1, 3, 32, 32)))


@pytest.mark.parametrize("size", [(8, 12), (7, 5), (1, 1), (33, 65)])
@pytest.mark.parametrize(
    ("stride", "dilation", "kernel"), [(2, 1, 3), (1, 2, 3), (1, 4, 3), (2, 1, 5), (1, 2, 5)]
)
def test_the_form_for_training_has_the_values_and_gradients_of_the_layer(
    size, stride, dilation, kernel
):
    torch.manual_seed(0)
    block = InvertedResidual(4, 6, 2, stride, kernel).double()
    layer = block.depthwise
    layer.dilation = (dilation, dilation)
    layer.padding = (dilation * (kernel // 2),) * 2
    x = torch.randn(2, 4, *size, dtype=torch.double)
    with torch.no_grad():
        expected = block(x)
    torch.testing.assert_close(block(x), expected)
    block(x).square().sum().backward()
    found = {name: parameter.grad.clone() for name, parameter in block.named_parameters()}
    block.zero_grad()
    y = F.relu6(block.expand(x))
    y = F.conv2d(
        y, layer.weight, layer.bias, stride, layer.padding, dilation, layer.groups
    )
    block.project(F.relu6(y)).square().sum().backward()
    for name, parameter in block.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)
