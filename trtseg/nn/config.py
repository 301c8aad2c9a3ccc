"""One frozen description of a network: every published variant is a value of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from trtseg.parse import build

ENCODERS = ("vgg19", "mobilenet_v2", "none")
SEGMENTERS = ("can", "unet")
SELECTORS = ("network", "rank")
CLICK_MAPS = ("point", "gaussian", "none")
SELECT_POOLINGS = ("mean", "disagreement")
SELECT_RULES = ("probability", "overlap")
SELECT_INPUTS = ("image", "guidance", "masks", "features")


@dataclass(frozen=True)
class NetworkConfig:
    """Latent diversity's encoder, synthesis network f and selection network g.

    The defaults are the network of the paper (LD section 3 and table 1).

    Attributes:
        encoder: features under f. "none" is the ablation without features (LD table 3).
        width: channels of f, and of every projected feature level.
        base_stride: pixels of the working image per cell of the grid on which f works; 1 is
            the paper's full resolution.
        image_term: whether f also sees the image itself; needs `base_stride` 1.
        click_map: how a click is drawn: one cell ("point", the paper), a bump around it
            ("gaussian") or not at all ("none", an ablation).
        sigma_grid_px: standard deviation of that bump, in grid cells.
        distance_map: whether f sees truncated distance maps (LD eq. 1).
        distance_limit_px: truncation of the distance, in working-image pixels.
        previous_mask: whether f sees the mask it gave before this click (beyond the paper).
        segment: context aggregation network ("can", LD table 1) or "unet" (LD table 4).
        dilations: of the 3x3 layers of the context aggregation network.
        residual: whether each 3x3 layer adds to its input (beyond the paper).
        candidates: M, the number of masks f synthesises.
        select: "network" trains g; "rank" always takes the first mask (LD table 3).
        select_inputs: what g reads, in this order.
        select_width, select_dilations: layers of g.
        select_stride: grid cells per cell of g, by average pooling.
        select_pooling: how g's maps become scores: "mean" over all cells (the paper), or over
            those on which the masks disagree ("disagreement", beyond the paper).
        select_by: which mask is selected: the one most probably the best ("probability", the
            paper), or the one with the largest expected overlap ("overlap", beyond the paper; see
            `trtseg.nn.select.expected_overlap`).
        working_long_side_px: the longer side of the working image at inference.
    """

    encoder: str = "vgg19"
    width: int = 64
    base_stride: int = 1
    image_term: bool = True
    click_map: str = "point"
    sigma_grid_px: float = 2.0
    distance_map: bool = True
    distance_limit_px: float = 255.0
    previous_mask: bool = False
    segment: str = "can"
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 1)
    residual: bool = False
    candidates: int = 6
    select: str = "network"
    select_inputs: tuple[str, ...] = ("image", "guidance", "masks")
    select_width: int = 64
    select_dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 1)
    select_stride: int = 1
    select_pooling: str = "mean"
    select_by: str = "probability"
    working_long_side_px: int = 640

    def __post_init__(self) -> None:
        for name, allowed in (
            ("encoder", ENCODERS),
            ("segment", SEGMENTERS),
            ("select", SELECTORS),
            ("click_map", CLICK_MAPS),
            ("select_pooling", SELECT_POOLINGS),
            ("select_by", SELECT_RULES),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")
        for name in ("dilations", "select_inputs", "select_dilations"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for value in self.select_inputs:
            if value not in SELECT_INPUTS:
                raise ValueError(
                    f"select_inputs: expected of {', '.join(SELECT_INPUTS)}, got {value!r}"
                )
        if "masks" not in self.select_inputs and (
            self.select_pooling == "disagreement" or self.select_by == "overlap"
        ):
            raise ValueError(
                "select_pooling 'disagreement' and select_by 'overlap': need 'masks' among "
                "select_inputs"
            )
        for name in ("width", "base_stride", "candidates", "select_width", "select_stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.image_term and self.base_stride != 1:
            raise ValueError(
                f"image_term: needs base_stride 1, got base_stride {self.base_stride}"
            )
        if self.encoder == "none" and not self.image_term:
            raise ValueError("encoder 'none': needs image_term, or f would not see the image")

    @property
    def guidance_channels(self) -> int:
        """G: click maps 2, distance maps 2, and the previous mask where the network has it."""
        return 5 if self.previous_mask else 4

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> NetworkConfig:
        """A configuration from JSON values.

        Raises:
            ValueError: a name is unknown, or a value is not allowed.
        """
        return build(cls, values, "network")


def lite_config(**changes: Any) -> NetworkConfig:
    """The kind of network that ships: MobileNetV2 features, f on a grid of stride 4."""
    values: dict[str, Any] = {
        "encoder": "mobilenet_v2",
        "base_stride": 4,
        "image_term": False,
        "click_map": "gaussian",
        "previous_mask": True,
        "dilations": (1, 2, 4, 8, 16, 32, 1),
        "residual": True,
        "select_inputs": ("guidance", "masks", "features"),
        "select_width": 32,
        "select_dilations": (1, 2, 4, 8, 1),
        "select_stride": 2,
        "select_pooling": "disagreement",
        "select_by": "overlap",
        "working_long_side_px": 384,
    }
    return NetworkConfig(**{**values, **changes})
