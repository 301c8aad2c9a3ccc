"""f, g and the encoder against hand arithmetic and against their unprojected form."""

import numpy as np
import pytest
import torch
from networks import grid_config, lite_config
from torch.nn import functional as F

from trtseg.nn.config import NetworkConfig
from trtseg.nn.layers.context import ContextNetwork
from trtseg.nn.layers.select import AGREEMENT_WEIGHT, SelectionNetwork, expected_overlap
from trtseg.nn.network import LatentDiversity, normalisation

DILATIONS = (1, 2, 4, 8, 16, 32, 64, 128, 1)


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_counts_of_the_paper():
    network = LatentDiversity(NetworkConfig())
    # LD table 1: 1x1 from 1,479 channels, nine 3x3, 1x1 to six masks; each with a bias
    first = 1479 * 64 + 64
    layer = 3 * 3 * 64 * 64 + 64
    head = 64 * 6 + 6
    split = (
        parameters(network.encoder.projections)
        + network.image_weight.numel()
        + network.guidance_weight.numel()
        + network.bias.numel()
    )
    assert split == first == 94_720
    assert first + parameters(network.segment) == first + 9 * layer + head == 427_462
    # g reads image 3, guidance 4 and 6 masks; its first layer is the dilation-1 layer
    assert parameters(network.select) == (13 * 9 * 64 + 64) + 8 * layer + head == 303_366
    # VGG-19 up to conv5_2
    assert parameters(network.encoder.backbone) == 15_304_768


def test_receptive_field_is_513():
    network = ContextNetwork(1, DILATIONS, residual=False, candidates=1)
    for parameter in network.parameters():
        torch.nn.init.ones_(parameter)
    x = torch.zeros(1, 1, 531, 531, dtype=torch.float64, requires_grad=True)
    network.double().context(x)[0, 0, 265, 265].backward()
    seen = x.grad[0, 0] != 0
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    assert rows.max() - rows.min() + 1 == 513
    assert columns.max() - columns.min() + 1 == 513


@pytest.mark.parametrize("size", [(64, 96), (32, 32)])
def test_projected_form_equals_the_hypercolumn_form(size):
    network = LatentDiversity(NetworkConfig(dilations=(1, 2)))
    torch.nn.init.normal_(network.bias)
    image, guidance = torch.randn(1, 3, *size), torch.rand(1, 4, *size)
    with torch.no_grad():
        taps = [
            F.interpolate(tap, size, mode="bilinear", align_corners=False)
            for tap in network.encoder.backbone(image)
        ]
        hypercolumn = torch.cat([*taps, image, guidance], dim=1)
        assert hypercolumn.shape[1] == 1479
        weight = torch.cat(
            [projection.weight[:, :, 0, 0] for projection in network.encoder.projections]
            + [network.image_weight, network.guidance_weight],
            dim=1,
        )
        naive = F.leaky_relu(F.conv2d(hypercolumn, weight[:, :, None, None], network.bias), 0.2)
        encoded = network.encode(image)
        torch.testing.assert_close(
            network.add_guidance(encoded[0], guidance), naive, rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(
            network.masks(encoded, guidance)[0], network.segment(naive)[0], rtol=1e-4, atol=1e-4
        )


ABLATIONS = [
    {"encoder": "none"},
    {"distance_map": False},
    {"click_map": "none"},
    {"click_map": "gaussian"},
    {"previous_mask": True},
    {"select": "rank"},
    {"segment": "unet"},
    {"residual": True},
    {"select_inputs": ("guidance", "masks", "features"), "select_stride": 2},
    {"select_inputs": ("guidance", "masks"), "select_pooling": "disagreement"},
    *({"candidates": count} for count in range(1, 9)),
]


@pytest.mark.parametrize("changes", ABLATIONS, ids=str)
def test_every_ablation_is_a_value(changes):
    config = NetworkConfig(
        **{"width": 8, "dilations": (1, 2), "select_width": 8, "select_dilations": (1,), **changes}
    )
    assert NetworkConfig.from_dict(config.to_dict()) == config
    network = LatentDiversity(config)
    image = torch.randn(2, 3, 32, 64)
    guidance = torch.rand(2, config.guidance_channels, 32, 64)
    masks, features = network.masks(network.encode(image), guidance)
    assert masks.shape == (2, config.candidates, 32, 64)
    assert ((masks > 0) & (masks < 1)).all()
    scores = network.scores(masks, guidance, features, image)
    assert scores.shape == (2, config.candidates)
    has_g = config.select == "network" and config.candidates > 1
    assert (network.select is not None) == has_g
    if not has_g:
        assert (scores.argmax(1) == 0).all()


@pytest.mark.parametrize(
    ("changes", "channels"), [({"click_map": "none"}, (0, 1)), ({"distance_map": False}, (2, 3))]
)
def test_ablated_guidance_has_no_effect(changes, channels):
    network = LatentDiversity(NetworkConfig(encoder="none", width=4, **changes))
    base, guidance = torch.randn(1, 4, 8, 8), torch.rand(1, 4, 8, 8)
    other = guidance.clone()
    other[:, channels] = torch.rand(1, 2, 8, 8)
    assert torch.equal(network.add_guidance(base, guidance), network.add_guidance(base, other))


# what g pools is float32, whatever its layers are
POOLED = {"rtol": 1e-6, "atol": 1e-6}


def chooser(
    pooling: str, by: str, stride: int = 1, calibration: tuple[float, float] = (1, 1)
) -> SelectionNetwork:
    return SelectionNetwork(
        5, 4, (1,), [stride], False, 3, slice(2, 5), pooling, by, calibration
    ).double()


def test_selection_pools_where_the_masks_disagree():
    select = chooser("disagreement", "probability")
    x = torch.rand(2, 5, 6, 9, dtype=torch.double)
    maps = select.head(select.context(x)).detach().numpy()
    masks = x[:, 2:5].numpy()
    weight = (masks.max(1) - masks.min(1) + AGREEMENT_WEIGHT)[:, None]
    expected = (maps * weight).sum((2, 3)) / weight.sum((2, 3))
    np.testing.assert_allclose(select.judge([x])[0].detach().numpy(), expected, **POOLED)
    powers = np.exp(expected)
    np.testing.assert_allclose(
        select([x]).detach().numpy(), powers / powers.sum(1, keepdims=True), **POOLED
    )
    x[:, 2:5] = 0.25  # they agree everywhere: what is left is global average pooling
    maps = select.head(select.context(x)).mean(dim=(2, 3)).float()
    torch.testing.assert_close(select.judge([x])[0], maps)


@pytest.mark.parametrize("size", [(6, 9), (1, 1), (33, 65)])
def test_selection_by_expected_overlap(size):
    select = chooser("mean", "overlap")
    x = torch.rand(2, 5, *size, dtype=torch.double)
    masks = x[:, 2:5].numpy()
    p = select.judge([x])[0].softmax(1).detach().numpy()
    expected = np.zeros((2, 3))
    for image in range(2):
        for m in range(3):
            for k in range(3):
                one, other = masks[image, m], masks[image, k]
                jaccard = np.minimum(one, other).sum() / np.maximum(one, other).sum()
                expected[image, m] += p[image, k] * jaccard
    np.testing.assert_allclose(select([x]).detach().numpy(), expected, **POOLED)


def test_calibrated_scores_keep_their_order():
    plain = chooser("mean", "overlap")
    calibrated = chooser("mean", "overlap", calibration=(0.9, 2.5))
    calibrated.load_state_dict(plain.state_dict())
    x = torch.rand(4, 5, 6, 9, dtype=torch.double)
    before, after = plain([x]), calibrated([x])
    torch.testing.assert_close(after, 0.9 * before**2.5, **POOLED)
    assert torch.equal(before.argsort(1), after.argsort(1))


def test_probabilities_are_not_calibrated():
    with pytest.raises(ValueError, match="only of select_by 'overlap'"):
        NetworkConfig(select_by="probability", score_calibration=(0.9, 2))


@pytest.mark.parametrize("calibration", [(0, 1), (1.1, 1), (0.9, 0), (0.9, float("inf"))])
def test_calibrations_that_are_none_are_refused(calibration):
    with pytest.raises(ValueError, match="score_calibration"):
        NetworkConfig(score_calibration=calibration)


def test_expected_overlap_prefers_what_is_nearly_right_whatever_was_meant():
    # two rivals without overlap, and a mask that shares half with either
    masks = torch.zeros(1, 3, 1, 8)
    masks[0, 0, 0, :4] = masks[0, 1, 0, 4:] = masks[0, 2, 0, 1:7] = 1
    found = expected_overlap(masks, torch.tensor([[0.36, 0.34, 0.3]]))
    torch.testing.assert_close(found, torch.tensor([[0.36 + 0.3 * 3 / 7, 0.34 + 0.3 * 3 / 7,
                                                     0.7 * 3 / 7 + 0.3]]))  # fmt: skip
    assert found.argmax() == 2
    assert torch.isfinite(expected_overlap(torch.zeros(1, 2, 3, 3), torch.ones(1, 2) / 2)).all()


def test_logits_need_a_g():
    network = LatentDiversity(NetworkConfig(encoder="none", width=4, dilations=(1,), candidates=1))
    with pytest.raises(ValueError, match="by rank"):
        network.judge(*[torch.zeros(1, 1, 2, 2)] * 3)


def test_a_coarse_grid_projects_the_finer_taps():
    config = grid_config()
    network = LatentDiversity(config).eval()
    with torch.no_grad():
        levels = network.encoder(torch.randn(1, 3, 64, 96))
        # the tap at stride 2 is projected cell for cell of the grid
        sizes = [(16, 24), (16, 24), (8, 12), (4, 6), (2, 3)]
        assert [tuple(level.shape[2:]) for level in levels] == sizes
        (base,) = network.encode(torch.randn(1, 3, 64, 96))
        assert base.shape == (1, 64, 16, 24)
    assert normalisation(config) == ((127.5,) * 3, (1 / 127.5,) * 3)


def test_a_pyramid_hands_out_maps_of_every_stride():
    config = lite_config()
    network = LatentDiversity(config).eval()
    sizes = [(16, 32, 48), (32, 16, 24), (64, 8, 12), (128, 4, 6)]
    with torch.no_grad():
        encoded = network.encode(torch.randn(2, 3, 64, 96))
        assert [tuple(level.shape[1:]) for level in encoded] == sizes
        guidance = torch.rand(2, config.guidance_channels, 32, 48)
        masks, features = network.masks(encoded, guidance)
        assert masks.shape == (2, 6, 32, 48)
        assert features.shape == (2, 64, 8, 12)
        assert network.scores(masks, guidance, features).shape == (2, 6)
        x = network.add_guidance(encoded[0], guidance)
        for layers in (1, network.segment.depth):
            levels = network.segment.prefix(x, *encoded[1:], layers=layers)
            logits = network.segment.logits(levels, layers)
            torch.testing.assert_close(torch.sigmoid(logits), masks)
    names = [name for name, _ in network.segment.named_parameters()]
    tail = [name for name in names if network.segment.in_tail(name, 1)]
    assert all(name.startswith(("up.", "ascent.", "coarse_head.", "head.")) for name in tail)
    assert all(network.segment.in_tail(name, network.segment.depth) for name in names)
    assert network.segment.depth == 2


def test_every_cell_of_a_pyramid_sees_the_whole_image():
    torch.manual_seed(0)
    network = LatentDiversity(lite_config())
    torch.nn.init.normal_(network.segment.context.modulation.weight)
    encoded = [level.detach() for level in network.encode(torch.randn(1, 3, 256, 256))]
    guidance = torch.zeros(1, network.config.guidance_channels, 128, 128, requires_grad=True)
    masks, _ = network.masks(encoded, guidance)
    masks[0, 0, 0, 0].backward()
    assert bool(guidance.grad[0, :, -1, -1].abs().max() > 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "vgg11"}, "encoder: expected one of vgg19"),
        ({"candidates": 0}, "candidates: expected at least 1, got 0"),
        ({"base_stride": 4}, "image_term: needs base_stride 1"),
        ({"encoder": "none", "image_term": False}, "needs image_term"),
        ({"map_widths": (8, 8)}, "only of segment 'pyramid'"),
        ({"segment": "pyramid"}, "segment 'pyramid': needs an encoder, base_stride 2"),
        ({"select_inputs": ("mask",)}, "select_inputs: expected one of"),
        ({"select_pooling": "max"}, "select_pooling: expected one of mean, disagreement"),
        (
            {"select_pooling": "disagreement", "select_inputs": ("guidance",)},
            "need 'masks' among select_inputs",
        ),
    ],
)
def test_bad_values_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        NetworkConfig(**changes)


def test_unknown_names_are_named():
    with pytest.raises(ValueError, match="network: unknown depth"):
        NetworkConfig.from_dict({"depth": 3})


def test_a_confidently_wrong_pixel_keeps_its_gradient_in_bfloat16():
    network = ContextNetwork(4, (1,), residual=False, candidates=1)
    torch.nn.init.constant_(network.head.bias, 7.5)
    with torch.autocast("cpu", torch.bfloat16):
        masks, _ = network(torch.zeros(1, 4, 8, 8))
    assert masks.dtype == torch.float32
    assert 0 < 1 - masks.max() < 1e-3
