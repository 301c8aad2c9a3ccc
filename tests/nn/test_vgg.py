"""VGG-19's weights from both of the ways in which they are distributed."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trtseg.errors import CheckpointError
from trtseg.nn.vgg19 import CAFFE_MEAN_RGB, MEAN, SCALE, VGG19

# torchvision's configuration "E"
_LAYERS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512)


def torchvision_features():
    layers, channels = [], 3
    for width in _LAYERS:
        if width == 0:
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


def normalised(pixels):
    return (pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) * torch.tensor(SCALE).view(1, 3, 1, 1)


@torch.no_grad()
def test_torchvision_names_give_torchvision_features():
    features = torchvision_features()
    network = VGG19()
    network.load_torchvision({f"features.{k}": v for k, v in features.state_dict().items()})
    x = torch.randn(1, 3, 32, 32)
    got = network(x)
    for index, layer in enumerate(features):
        x = layer(x)
        # the ReLU after conv1_2, conv2_2, conv3_2, conv4_2, conv5_2
        if index in (3, 8, 13, 22, 31):
            torch.testing.assert_close(got.pop(0), x)


def test_torchvision_file_is_checked(tmp_path, monkeypatch):
    path = tmp_path / "vgg19.pth"
    state = {f"features.{k}": v for k, v in torchvision_features().state_dict().items()}
    torch.save(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    good = path.rename(tmp_path / f"vgg19-{digest[:8]}.pth")
    VGG19().load_torchvision_file(good)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    VGG19().load_torchvision_url(good.as_uri())
    bad = good.rename(tmp_path / "vgg19-00000000.pth")
    with pytest.raises(CheckpointError, match=r"0000\.pth: expected SHA-256 00000000"):
        VGG19().load_torchvision_file(bad)
    with pytest.raises(CheckpointError, match=r"0000\.pth: cannot be downloaded: invalid hash"):
        VGG19().load_torchvision_url(bad.as_uri())
    path.write_bytes(bad.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"vgg19\.pth: not a torch checkpoint"):
        VGG19().load_torchvision_file(path)
    with pytest.raises(CheckpointError, match=r"none\.pth: no such file; .*download\.pytorch\.org"):
        VGG19().load_torchvision_file(tmp_path / "none.pth")
    del state["features.5.bias"]
    with pytest.raises(CheckpointError, match=r"features\.5\.bias is missing"):
        VGG19().load_torchvision(state)


@torch.no_grad()
def test_caffe_arrays_see_caffe_pixels(tmp_path):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(64, 3, 3, 3)).astype(np.float32)
    bias = rng.normal(size=64).astype(np.float32)
    np.savez(tmp_path / "w.npz", **{"conv1_1.weight": weight, "conv1_1.bias": bias})
    network = VGG19()
    untouched = network.conv1_2.weight.clone()
    assert network.load_caffe(tmp_path / "w.npz") == ["conv1_1"]
    assert torch.equal(network.conv1_2.weight, untouched)
    pixels = torch.from_numpy(rng.uniform(0, 255, (1, 3, 12, 12)).astype(np.float32))
    bgr = pixels.flip(1) - torch.tensor(CAFFE_MEAN_RGB[::-1]).view(1, 3, 1, 1)
    expected = F.conv2d(bgr, torch.from_numpy(weight), torch.from_numpy(bias))
    # away from the border: zero padding means another colour under each normalisation
    got = network.conv1_1(normalised(pixels))[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=2e-3)


def test_bad_caffe_files_are_named(tmp_path):
    path = tmp_path / "w.npz"
    np.savez(path, other=np.zeros(3))
    with pytest.raises(CheckpointError, match=r"w\.npz: expected arrays convX_Y\.weight"):
        VGG19().load_caffe(path)
    np.savez(path, **{"conv1_2.weight": np.zeros((64, 3, 3, 3)), "conv1_2.bias": np.zeros(64)})
    with pytest.raises(CheckpointError, match=r"conv1_2\.weight: expected shape \(64, 64, 3, 3\)"):
        VGG19().load_caffe(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"w\.npz: cannot read"):
        VGG19().load_caffe(path)


@torch.no_grad()
@pytest.mark.parametrize(("factor", "exact"), [(2.0**-8, True), (1 / 255, False)])
def test_scaling_scales_every_feature(factor, exact):
    network = VGG19()
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
        VGG19().scale_features(0)


def test_shared_weights_fill_three_taps(weights_folder):
    loaded = VGG19().load_caffe(weights_folder / "vgg19_caffeBGR_conv1_1-conv3_4.npz")
    assert loaded == VGG19().layer_names()[:8]
