"""CA's initial model: layers as published, five channels, and its two-stage training."""


import numpy as np
import pytest
import torch
from torch import nn

from trtseg.nn.backbones.xception import Xception65
from trtseg.nn.deeplab import (
    SMALL,
    DeepLab,
    DeepLabConfig,
    Dilated,
    click_disks,
)

# output channels, stride, dilation of the three separable convolutions of every unit, at output
# stride 8: (Chen et al. 2018, figure 4; entry flow, 16 times the middle flow, exit flow)
TABLE = [
    ("entry_1", (128, 128, 128), 2, 1, "conv"),
    ("entry_2", (256, 256, 256), 2, 1, "conv"),
    ("entry_3", (728, 728, 728), 1, 1, "conv"),
    *[("middle", (728, 728, 728), 1, 2, "sum")] * 16,
    ("exit_1", (728, 1024, 1024), 1, 2, "conv"),
    ("exit_2", (1536, 1536, 2048), 1, 4, "none"),
]


@pytest.fixture(scope="module")
def paper():
    return DeepLab(DeepLabConfig()).eval()


def test_xception_65_has_the_published_layers(paper):
    encoder = paper.encoder
    root = [layer for layer in encoder.root if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.stride[0], c.kernel_size[0]) for c in root] == [
        (5, 32, 2, 3), (32, 64, 1, 3),
    ]
    assert len(encoder.units) == len(TABLE)
    channels = 64
    for name, unit, row in zip(encoder.names, encoder.units, TABLE, strict=True):
        title, outputs, stride, dilation, skip = row
        assert name == title
        found = [layer.pointwise.out_channels for layer in unit.layers]
        assert (tuple(found), unit.skip) == (outputs, skip)
        strides = [layer.depthwise.stride[0] for layer in unit.layers]
        assert strides == [1, 1, stride]
        assert {layer.depthwise.dilation[0] for layer in unit.layers} == {dilation}
        assert all(layer.depthwise.groups == layer.depthwise.in_channels for layer in unit.layers)
        assert (unit.shortcut is not None) == (skip == "conv")
        assert unit.layers[0].depthwise.in_channels == channels
        channels = outputs[-1]
    # convolutions that give the network its name: all but the shortcuts, and the classifier
    count = 2 + 3 * len(encoder.units)
    assert count == 65
    # 37.8 million weights and normalisations; 576 more weights than for three channels
    plain = sum(p.numel() for p in Xception65(3).parameters())
    assert sum(p.numel() for p in encoder.parameters()) - plain == 2 * 32 * 9


def test_the_papers_strides_and_rates(paper):
    x = torch.zeros(1, 5, 64, 96)
    with torch.no_grad():
        low, high = paper.encoder(x)
        logits = paper.decode(low, high)
    assert (low.shape, high.shape) == ((1, 256, 16, 24), (1, 2048, 8, 12))
    assert logits.shape == (1, 1, 16, 24)
    rates = [layer.depthwise.dilation[0] for layer in paper.pyramid.dilated]
    assert rates == [12, 24, 36]
    assert paper.low_level[0].out_channels == 48
    assert [layer.pointwise.out_channels for layer in paper.decoder] == [256, 256]
    assert paper.config.disk_radius_px == 3


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("backbone", SMALL)
def test_dilation_in_place_of_stride_gives_the_same_features_more_densely(backbone, stride):
    torch.manual_seed(0)
    plain = SMALL[backbone]().eval()
    dilated = Dilated(SMALL[backbone](), 5, stride).eval()
    dilated.load_backbone(plain.state_dict())
    assert not dilated.backbone.stem.weight[:, 3:].any(), "the click maps' begin at 0"
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = plain(image)[4]
        low, found = dilated(torch.cat([image, torch.randn(1, 2, 64, 96)], 1))
        step = 32 // stride
        torch.testing.assert_close(found[:, :, ::step, ::step], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(low, plain(image)[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 65)])
def test_disks_have_radius_3(size):
    height, width = size
    clicks = np.array([[0, 0, 1], [height - 1, width - 1, 0]], np.float32)
    maps = click_disks(clicks, size, 3.0)
    y, x = np.mgrid[:height, :width]
    assert np.array_equal(maps[0], (y**2 + x**2 <= 9).astype(np.float32))
    far = (y - height + 1) ** 2 + (x - width + 1) ** 2 <= 9
    assert np.array_equal(maps[1], far.astype(np.float32))


def test_no_clicks_no_disks():
    assert not click_disks(np.zeros((0, 3), np.float32), (4, 5), 3.0).any()


def test_unknown_values_are_refused():
    with pytest.raises(ValueError, match="backbone"):
        DeepLabConfig(backbone="resnet")
    with pytest.raises(ValueError, match="encoder_stride"):
        DeepLabConfig(encoder_stride=4)
