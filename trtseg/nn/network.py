"""Latent diversity assembled: image -> levels -> base; base + guidance -> masks -> scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trtseg.nn.backbones import efficientnet_lite, mobilenet, vgg
from trtseg.nn.config import NetworkConfig
from trtseg.nn.layers.context import SLOPE, ContextNetwork
from trtseg.nn.layers.pyramid import Neck, PyramidNetwork
from trtseg.nn.layers.select import SelectionNetwork
from trtseg.nn.layers.unet import UNet

Backbone = vgg.VGG | mobilenet.MobileNetV2 | efficientnet_lite.EfficientNetLite2
_BACKBONES: dict[str, Callable[[], Backbone]] = {
    "vgg16": partial(vgg.VGG, 16),
    "vgg19": partial(vgg.VGG, 19),
    "mobilenet_v2": mobilenet.MobileNetV2,
    "efficientnet_lite2": efficientnet_lite.EfficientNetLite2,
}
_NORMALISATION = {
    "vgg16": (vgg.MEAN, vgg.SCALE),
    "vgg19": (vgg.MEAN, vgg.SCALE),
    "mobilenet_v2": (mobilenet.MEAN, mobilenet.SCALE),
    "efficientnet_lite2": (efficientnet_lite.MEAN, efficientnet_lite.SCALE),
    "none": (mobilenet.MEAN, mobilenet.SCALE),
}


def normalisation(config: NetworkConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, scale) per RGB channel: the network's input is (pixel - mean) * scale."""
    return _NORMALISATION[config.encoder]


class Encoder(nn.Module):
    """Backbone and projection of every tap to f's width at the tap's own resolution.

    This is the part of f's first 1x1 layer that reads features, moved in front of the
    upsampling, with which it commutes: the hypercolumn tensor never exists. A tap finer than
    the grid is projected by a convolution whose kernel is its stride, cell for cell.

    Input [B, 3, h, w] normalised; output a list of levels [B, width, h_l, w_l].
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.backbone: Backbone = _BACKBONES[config.encoder]()
        projections = []
        for channels, stride in zip(
            self.backbone.tap_channels, self.backbone.tap_strides, strict=True
        ):
            reduction = max(1, config.base_stride // stride)
            layer = nn.Conv2d(channels, config.width, reduction, reduction, bias=False)
            # five levels are summed: a fifth of the variance each
            fan_in = channels * reduction**2 * len(self.backbone.tap_strides)
            nn.init.normal_(layer.weight, std=fan_in**-0.5)
            projections.append(layer)
        self.projections = nn.ModuleList(projections)

    @property
    def levels(self) -> int:
        """Outputs that are summed to the base."""
        return len(self.projections)

    def forward(self, image: Tensor) -> list[Tensor]:
        return [
            projection(tap)
            for projection, tap in zip(self.projections, self.backbone(image), strict=True)
        ]


class PyramidEncoder(nn.Module):
    """Backbone and neck: all that `trtseg.nn.layers.pyramid`'s f needs to know of the image.

    Input [B, 3, h, w] normalised; output the map that guidance is added to, on the grid, and the
    maps of twice, four times, ... its stride.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.backbone: Backbone = _BACKBONES[config.encoder]()
        self.neck = Neck(
            self.backbone.tap_channels, config.neck_widths, (config.width, *config.map_widths)
        )

    @property
    def levels(self) -> int:
        """Outputs that are summed to the base; the others are maps that f reads as they are."""
        return 1

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.neck(self.backbone(image))


def segment_network(config: NetworkConfig) -> ContextNetwork | UNet | PyramidNetwork:
    """f behind its first layer."""
    if config.segment == "pyramid":
        return PyramidNetwork(
            (config.width, *config.map_widths), config.dilations, config.candidates
        )
    if config.segment == "unet":
        return UNet(config.width, config.candidates)
    return ContextNetwork(config.width, config.dilations, config.residual, config.candidates)


class LatentDiversity(nn.Module):
    """Encoder, f and g of one `NetworkConfig`."""

    guidance_used: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.encoder: Encoder | PyramidEncoder | None = None
        if config.segment == "pyramid":
            self.encoder = PyramidEncoder(config)
        elif config.encoder != "none":
            self.encoder = Encoder(config)
        self.image_weight = nn.Parameter(torch.empty(width, 3)) if config.image_term else None
        if self.image_weight is not None:
            nn.init.normal_(self.image_weight, std=3**-0.5)
        self.bias = nn.Parameter(torch.zeros(width))
        self.guidance_weight = nn.Parameter(torch.empty(width, config.guidance_channels))
        nn.init.normal_(self.guidance_weight, std=1.0)
        self.segment = segment_network(config)
        self.select = self._selection_network(config)
        used = torch.ones(config.guidance_channels)
        used[0:2] = float(config.click_map != "none")
        used[2:4] = float(config.distance_map)
        # ablated guidance keeps its channels with weights of zero: one graph for all variants
        self.register_buffer("guidance_used", used, persistent=False)

    @staticmethod
    def _selection_network(config: NetworkConfig) -> SelectionNetwork | None:
        if config.select == "rank" or config.candidates == 1:
            return None
        masks = slice(0)
        if "masks" in config.select_inputs:
            before = config.select_inputs[: config.select_inputs.index("masks")]
            first = sum(map(config.channels, before))
            masks = slice(first, first + config.candidates)
        return SelectionNetwork(
            sum(map(config.channels, config.select_inputs)),
            config.select_width,
            config.select_dilations,
            [config.select_stride // config.cells(name) for name in config.select_inputs],
            config.residual,
            config.candidates,
            masks,
            config.select_pooling,
            config.select_by,
            config.score_calibration,
        )

    def effective_guidance_weight(self) -> Tensor:
        """W_D [C, G], with zeros for guidance that the configuration leaves out."""
        return self.guidance_weight * self.guidance_used

    def encode(self, image: Tensor) -> list[Tensor]:
        """All that f knows of image [B, 3, h, w]: base [B, C, H, W], and maps of coarser strides.

        base = sum_l up(W_l F_l) + W_I I + b; only a pyramid has maps beside it.
        """
        levels = [] if self.encoder is None else self.encoder(image)
        if self.config.segment == "pyramid":
            return [levels[0] + self.bias.to(levels[0].dtype).view(1, -1, 1, 1), *levels[1:]]
        height, width = (side // self.config.base_stride for side in image.shape[2:])
        terms = [
            term
            if term.shape[2:] == (height, width)
            else F.interpolate(term, size=(height, width), mode="bilinear", align_corners=False)
            for term in levels
        ]
        if self.image_weight is not None:
            terms.append(F.conv2d(image, self.image_weight[:, :, None, None]))
        base = terms[0] + self.bias.to(terms[0].dtype).view(1, -1, 1, 1)
        for term in terms[1:]:
            base = base + term
        return [base]

    def add_guidance(self, base: Tensor, guidance: Tensor) -> Tensor:
        """x [B, C, H, W] = leaky_relu(base + W_D guidance), guidance [B, G, H, W]."""
        weight = self.effective_guidance_weight()[:, :, None, None]
        return F.leaky_relu(base + F.conv2d(guidance, weight), SLOPE)

    def masks(self, encoded: Sequence[Tensor], guidance: Tensor) -> tuple[Tensor, Tensor]:
        """f: (masks [B, M, H, W] in (0, 1), features), for what `encode` gave and guidance."""
        base, *maps = encoded
        return self.segment(self.add_guidance(base, guidance), *maps)

    def scores(
        self, masks: Tensor, guidance: Tensor, features: Tensor, image: Tensor | None = None
    ) -> Tensor:
        """g: [B, M] in [0, 1], see `NetworkConfig.select_by`; the largest is selected.

        Without a selection network the order of the masks decides.

        Args:
            image: [B, 3, H, W], normalised and averaged to the grid; where g reads it.
        """
        if self.select is None:
            order = torch.arange(masks.shape[1], device=masks.device, dtype=masks.dtype)
            return (1 / (1 + order)).expand(masks.shape[0], -1)
        return self.select(self._select_inputs(masks, guidance, features, image))

    def judge(
        self, masks: Tensor, guidance: Tensor, features: Tensor, image: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(g's logits [B, M], which are trained, `scores`); arguments as of `scores`.

        Raises:
            ValueError: the network has no g.
        """
        if self.select is None:
            raise ValueError("this network selects by rank: there are no logits")
        return self.select.judge(self._select_inputs(masks, guidance, features, image))

    def _select_inputs(
        self, masks: Tensor, guidance: Tensor, features: Tensor, image: Tensor | None
    ) -> list[Tensor]:
        inputs = {"guidance": guidance, "masks": masks, "features": features}
        if image is not None:
            inputs["image"] = image
        return [inputs[name] for name in self.config.select_inputs]
