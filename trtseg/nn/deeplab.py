"""CA's initial model: DeepLabV3+ on five channels (RGB and two maps of click disks)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trtseg.errors import CheckpointError
from trtseg.nn.backbones.efficientnet_lite import EfficientNetLite2
from trtseg.nn.backbones.mobilenet import InvertedResidual, MobileNetV2
from trtseg.nn.backbones.xception import SeparableConv, Xception65, widened
from trtseg.nn.checkpoint import read_checkpoint
from trtseg.parse import build, one_of

# of the small sibling, without batch normalisation
SMALL: dict[str, type[MobileNetV2 | EfficientNetLite2]] = {
    "mobilenet_v2": MobileNetV2,
    "efficientnet_lite2": EfficientNetLite2,
}
BACKBONES = ("xception65", *SMALL)
# RGB to [-1, 1], for all backbones: within half a grey level of what EfficientNet-Lite saw
MEAN, SCALE = (127.5,) * 3, (1 / 127.5,) * 3
DROPOUT = 0.1


@dataclass(frozen=True)
class DeepLabConfig:
    """The defaults are CA section 4.

    Attributes:
        backbone: "xception65" (the paper), or one of the small sibling, without batch
            normalisation: "mobilenet_v2" or "efficientnet_lite2".
        encoder_stride: of the features that the pyramid reads.
        rates: dilations of the pyramid's 3x3 convolutions.
        width: channels of the pyramid and of the decoder.
        low_level_width: channels to which the features of stride 4 are reduced.
        disk_radius_px: of a click, in pixels of the working image.
        working_long_side_px: the longer side of the working image.
    """

    backbone: str = "xception65"
    encoder_stride: int = 8
    rates: tuple[int, ...] = (12, 24, 36)
    width: int = 256
    low_level_width: int = 48
    disk_radius_px: float = 3.0
    working_long_side_px: int = 512

    def __post_init__(self) -> None:
        one_of("backbone", self.backbone, BACKBONES)
        if self.encoder_stride not in (8, 16, 32):
            raise ValueError(f"encoder_stride: expected 8, 16 or 32, got {self.encoder_stride}")
        object.__setattr__(self, "rates", tuple(self.rates))
        for name in ("width", "low_level_width", "disk_radius_px", "working_long_side_px"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected above 0, got {getattr(self, name)}")
        if not self.rates or min(self.rates) < 1:
            raise ValueError(f"rates: expected dilations of at least 1, got {list(self.rates)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


class Dilated(nn.Module):
    """A small backbone on more channels, with further strides turned into dilations."""

    def __init__(
        self, backbone: MobileNetV2 | EfficientNetLite2, channels_in: int, output_stride: int
    ) -> None:
        super().__init__()
        self.backbone = backbone
        _, self.low_level_channels, _, _, self.channels = self.backbone.tap_channels
        state, stem = backbone.state_dict(), backbone.stem
        backbone.stem = nn.Conv2d(channels_in, stem.out_channels, 3, 2, padding=1)
        self.load_backbone(state)
        stride, dilation = 2, 1
        for block in self.backbone.modules():
            if isinstance(block, InvertedResidual):
                own = block.depthwise.stride[0]
                if stride >= output_stride and own > 1:
                    _dilate(block.depthwise, 1, dilation)
                    dilation *= own
                else:
                    _dilate(block.depthwise, own, dilation)
                    stride *= own

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of a backbone of three channels; the click maps' begin at 0.

        Raises:
            RuntimeError: they are of another network.
        """
        channels = self.backbone.stem.in_channels
        self.backbone.load_state_dict(widened(state, "stem.weight", channels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(features at stride 4, features at the output stride)."""
        taps = self.backbone(x)
        return taps[1], taps[4]


def _dilate(layer: nn.Conv2d, stride: int, dilation: int) -> None:
    layer.stride, layer.dilation = (stride, stride), (dilation, dilation)
    layer.padding = tuple(dilation * (side // 2) for side in layer.kernel_size)


def _convolution(channels_in: int, channels_out: int, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(channels_in, channels_out, 1, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(channels_out))
    return nn.Sequential(*layers, nn.ReLU())


class _PlainSeparable(nn.Module):
    """A separable convolution without normalisation, for networks that have none."""

    def __init__(self, channels_in: int, channels_out: int, dilation: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels_in, channels_in, 3, padding=dilation, dilation=dilation, groups=channels_in
        )
        self.pointwise = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.pointwise(F.relu(self.depthwise(x))))


def _separable(channels_in: int, channels_out: int, dilation: int, norm: bool) -> nn.Module:
    if norm:
        return SeparableConv(channels_in, channels_out, 1, dilation, relu_inside=True)
    return _PlainSeparable(channels_in, channels_out, dilation)


class AtrousPyramid(nn.Module):
    """ASPP: 1x1, dilated 3x3 and image pooling side by side, then 1x1 and dropout."""

    def __init__(
        self, channels_in: int, width: int, rates: Sequence[int], norm: bool
    ) -> None:
        super().__init__()
        self.pool = _convolution(channels_in, width, norm)
        self.point = _convolution(channels_in, width, norm)
        self.dilated = nn.ModuleList(
            _separable(channels_in, width, rate, norm) for rate in rates
        )
        self.project = _convolution(width * (2 + len(rates)), width, norm)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])
        parts = [pooled, self.point(x), *(layer(x) for layer in self.dilated)]
        return F.dropout(self.project(torch.cat(parts, 1)), DROPOUT, self.training)


class DeepLab(nn.Module):
    """Input [B, 5, h, w], RGB normalised by `MEAN` and `SCALE` and two click maps; logits
    [B, 1, h / 4, w / 4]."""

    def __init__(self, config: DeepLabConfig) -> None:
        super().__init__()
        self.config = config
        norm = config.backbone == "xception65"
        if norm:
            self.encoder: nn.Module = Xception65(5, config.encoder_stride)
        else:
            self.encoder = Dilated(SMALL[config.backbone](), 5, config.encoder_stride)
        width = config.width
        self.pyramid = AtrousPyramid(self.encoder.channels, width, config.rates, norm)
        self.low_level = _convolution(
            self.encoder.low_level_channels, config.low_level_width, norm
        )
        self.decoder = nn.Sequential(
            _separable(width + config.low_level_width, width, 1, norm),
            _separable(width, width, 1, norm),
        )
        self.head = nn.Conv2d(width, 1, 1)

    def decode(self, low: Tensor, high: Tensor) -> Tensor:
        """Logits [B, 1, h / 4, w / 4] from what the encoder gives."""
        low = self.low_level(low)
        high = F.interpolate(
            self.pyramid(high), size=low.shape[2:], mode="bilinear", align_corners=False
        )
        return self.head(self.decoder(torch.cat([high, low], 1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(*self.encoder(x))


def click_disks(clicks: np.ndarray, size: tuple[int, int], radius_px: float) -> np.ndarray:
    """Two maps of disks around clicks, positive and negative.

    Args:
        clicks: float32 [N, 3], rows (y, x, label) in pixels of the map.
        size: (height, width).
        radius_px: pixels at most this far from a click are 1.

    Returns:
        float32 [2, H, W] of 0 and 1.
    """
    maps = np.zeros((2, *size), np.float32)
    for y, x, label in clicks:
        top, bottom = max(0, int(np.ceil(y - radius_px))), int(np.floor(y + radius_px)) + 1
        left, right = max(0, int(np.ceil(x - radius_px))), int(np.floor(x + radius_px)) + 1
        patch = maps[0 if label > 0.5 else 1, top:bottom, left:right]
        rows = np.arange(top, top + patch.shape[0])[:, None] - y
        columns = np.arange(left, left + patch.shape[1])[None] - x
        patch[rows**2 + columns**2 <= radius_px**2] = 1
    return maps


def load_deeplab(path: str | Path) -> DeepLab:
    """The network of a checkpoint, in evaluation mode.

    Raises:
        CheckpointError: as `read_checkpoint`, or weights and configuration do not fit.
    """
    tensors, state = read_checkpoint(path)
    try:
        network = DeepLab(build(DeepLabConfig, state["network"], "network"))
        network.load_state_dict(
            {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not a DeepLab checkpoint: {error}") from error
    return network.eval()
