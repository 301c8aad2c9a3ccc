"""Latent diversity assembled: image -> levels -> base; base + guidance -> masks -> scores."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trtseg.nn import mobilenet, vgg19
from trtseg.nn.config import NetworkConfig
from trtseg.nn.context import SLOPE, ContextNetwork
from trtseg.nn.select import SelectionNetwork
from trtseg.nn.unet import UNet

Backbone = vgg19.VGG19 | mobilenet.MobileNetV2
_BACKBONES: dict[str, type[Backbone]] = {
    "vgg19": vgg19.VGG19,
    "mobilenet_v2": mobilenet.MobileNetV2,
}
_NORMALISATION = {
    "vgg19": (vgg19.MEAN, vgg19.SCALE),
    "mobilenet_v2": (mobilenet.MEAN, mobilenet.SCALE),
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

    def forward(self, image: Tensor) -> list[Tensor]:
        return [
            projection(tap)
            for projection, tap in zip(self.projections, self.backbone(image), strict=True)
        ]


def segment_network(config: NetworkConfig) -> ContextNetwork | UNet:
    """f behind its first layer."""
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
        self.encoder = Encoder(config) if config.encoder != "none" else None
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
        sizes = {
            "image": 3,
            "guidance": config.guidance_channels,
            "masks": config.candidates,
            "features": config.width,
        }
        masks = slice(0)
        if "masks" in config.select_inputs:
            before = config.select_inputs[: config.select_inputs.index("masks")]
            first = sum(sizes[name] for name in before)
            masks = slice(first, first + config.candidates)
        return SelectionNetwork(
            sum(sizes[name] for name in config.select_inputs),
            config.select_width,
            config.select_dilations,
            config.select_stride,
            config.residual,
            config.candidates,
            masks,
            config.select_pooling,
            config.select_by,
        )

    def effective_guidance_weight(self) -> Tensor:
        """W_D [C, G], with zeros for guidance that the configuration leaves out."""
        return self.guidance_weight * self.guidance_used

    def encode(self, image: Tensor) -> Tensor:
        """base [B, C, H, W] = sum_l up(W_l F_l) + W_I I + b, for image [B, 3, h, w]."""
        height, width = (side // self.config.base_stride for side in image.shape[2:])
        terms = [] if self.encoder is None else self.encoder(image)
        terms = [
            term
            if term.shape[2:] == (height, width)
            else F.interpolate(term, size=(height, width), mode="bilinear", align_corners=False)
            for term in terms
        ]
        if self.image_weight is not None:
            terms.append(F.conv2d(image, self.image_weight[:, :, None, None]))
        base = terms[0] + self.bias.to(terms[0].dtype).view(1, -1, 1, 1)
        for term in terms[1:]:
            base = base + term
        return base

    def add_guidance(self, base: Tensor, guidance: Tensor) -> Tensor:
        """x [B, C, H, W] = leaky_relu(base + W_D guidance), guidance [B, G, H, W]."""
        weight = self.effective_guidance_weight()[:, :, None, None]
        return F.leaky_relu(base + F.conv2d(guidance, weight), SLOPE)

    def masks(self, base: Tensor, guidance: Tensor) -> tuple[Tensor, Tensor]:
        """f: (masks [B, M, H, W] in (0, 1), features [B, C, H, W])."""
        return self.segment(self.add_guidance(base, guidance))

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
        return self.select(self._select_input(masks, guidance, features, image))

    def judge(
        self, masks: Tensor, guidance: Tensor, features: Tensor, image: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(g's logits [B, M], which are trained, `scores`); arguments as of `scores`.

        Raises:
            ValueError: the network has no g.
        """
        if self.select is None:
            raise ValueError("this network selects by rank: there are no logits")
        return self.select.judge(self._select_input(masks, guidance, features, image))

    def _select_input(
        self, masks: Tensor, guidance: Tensor, features: Tensor, image: Tensor | None
    ) -> Tensor:
        inputs = {"guidance": guidance, "masks": masks, "features": features}
        if image is not None:
            inputs["image"] = image
        return torch.cat([inputs[name] for name in self.config.select_inputs], dim=1)
