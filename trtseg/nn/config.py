"""One frozen description of a network: every published variant is a value of it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from trtseg.parse import at_least, build, one_of

ENCODERS = ("vgg19", "vgg16", "mobilenet_v2", "efficientnet_lite2", "none")
SEGMENTERS = ("can", "unet", "pyramid")
SELECTORS = ("network", "rank")
CLICK_MAPS = ("point", "gaussian", "none")
SELECT_POOLINGS = ("mean", "disagreement")
SELECT_RULES = ("probability", "overlap")
SELECT_INPUTS = ("image", "guidance", "masks", "features")
# grid cells per cell of the pyramid's features
FEATURE_STRIDE = 4


@dataclass(frozen=True)
class NetworkConfig:
    """Latent diversity's encoder, synthesis network f and selection network g.

    The defaults are the network of the paper (LD section 3 and table 1).

    Attributes:
        encoder: features under f. "none" is the ablation without features (LD table 3).
        width: channels of f on the grid, and of every projected feature level.
        base_stride: pixels of the working image per cell of the grid on which f works; 1 is
            the paper's full resolution.
        image_term: whether f also sees the image itself; needs `base_stride` 1.
        click_map: how a click is drawn: one cell ("point", the paper), a bump around it
            ("gaussian") or not at all ("none", an ablation).
        sigma_grid_px: standard deviation of that bump, in grid cells.
        distance_map: whether f sees truncated distance maps (LD eq. 1).
        distance_limit_px: truncation of the distance, in working-image pixels.
        previous_mask: whether f sees the mask it gave before this click (beyond the paper).
        region: whether f sees a box or a loop around the object (beyond the paper).
        segment: context aggregation network ("can", LD table 1), "unet" (LD table 4), or a U-Net
            over image maps of several strides ("pyramid", beyond the paper: see
            `trtseg.nn.layers.pyramid`).
        dilations: of the 3x3 layers of the context aggregation network, or of the pyramid's
            coarsest stride.
        map_widths: of the pyramid, the channels at twice, four times, ... the grid's stride.
        neck_widths: channels of the pyramid's neck at each of the encoder's strides.
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
            `trtseg.nn.layers.select.expected_overlap`).
        score_calibration: (ceiling, exponent) of `select_by` "overlap": the score of a mask of
            expected overlap o is ceiling * o^exponent, for o itself takes the object to be one of
            the candidates. Chosen on photographs not trained on; the order stays.
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
    region: bool = False
    segment: str = "can"
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 1)
    map_widths: tuple[int, ...] = ()
    neck_widths: tuple[int, ...] = ()
    residual: bool = False
    candidates: int = 6
    select: str = "network"
    select_inputs: tuple[str, ...] = ("image", "guidance", "masks")
    select_width: int = 64
    select_dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 1)
    select_stride: int = 1
    select_pooling: str = "mean"
    select_by: str = "probability"
    score_calibration: tuple[float, float] = (1.0, 1.0)
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
            one_of(name, getattr(self, name), allowed)
        for name in (
            "dilations", "map_widths", "neck_widths", "select_inputs", "select_dilations",
            "score_calibration",
        ):  # fmt: skip
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for value in self.select_inputs:
            one_of("select_inputs", value, SELECT_INPUTS)
        if "masks" not in self.select_inputs and (
            self.select_pooling == "disagreement" or self.select_by == "overlap"
        ):
            raise ValueError(
                "select_pooling 'disagreement' and select_by 'overlap': need 'masks' among "
                "select_inputs"
            )
        ceiling, exponent = self.score_calibration
        if not 0 < ceiling <= 1 or not 0 < exponent < math.inf:
            raise ValueError(
                "score_calibration: expected a ceiling in (0, 1] and a positive exponent, got "
                f"{list(self.score_calibration)}"
            )
        if (ceiling, exponent) != (1, 1) and self.select_by != "overlap":
            raise ValueError(
                f"score_calibration: only of select_by 'overlap', got {self.select_by!r}"
            )
        at_least(self, 1, "width", "base_stride", "candidates", "select_width", "select_stride")
        if self.image_term and self.base_stride != 1:
            raise ValueError(
                f"image_term: needs base_stride 1, got base_stride {self.base_stride}"
            )
        if self.encoder == "none" and not self.image_term:
            raise ValueError("encoder 'none': needs image_term, or f would not see the image")
        self._check_pyramid()

    def _check_pyramid(self) -> None:
        if self.segment != "pyramid":
            if self.map_widths or self.neck_widths:
                raise ValueError("map_widths, neck_widths: only of segment 'pyramid'")
            return
        if self.encoder == "none" or self.base_stride != 2 or self.image_term:
            raise ValueError(
                "segment 'pyramid': needs an encoder, base_stride 2, and no image_term; got "
                f"{self.encoder!r}, {self.base_stride} and {self.image_term}"
            )
        if not 2 <= len(self.map_widths) <= 4 or len(self.neck_widths) != 5:
            raise ValueError(
                "map_widths, neck_widths: expected 2 to 4 and 5 widths, got "
                f"{list(self.map_widths)} and {list(self.neck_widths)}"
            )
        if self.select_stride % FEATURE_STRIDE:
            raise ValueError(
                f"select_stride: of a pyramid a multiple of {FEATURE_STRIDE}, got "
                f"{self.select_stride}"
            )

    @property
    def guidance_channels(self) -> int:
        """G: click maps 2, distance maps 2, then previous mask and region where it has them."""
        return 4 + self.previous_mask + self.region

    def channels(self, name: str) -> int:
        """Of what the networks hand to each other: "x", "masks", "features", "map_0", ..."""
        kind, _, index = name.partition("_")
        if kind == "map":
            return self.map_widths[int(index)]
        return {
            "image": 3,
            "level": self.width,
            "x": self.width,
            "guidance": self.guidance_channels,
            "masks": self.candidates,
            "features": self.map_widths[1] if self.segment == "pyramid" else self.width,
        }[kind]

    def cells(self, name: str) -> int:
        """Grid cells per cell of it, along a side, where it is read."""
        kind, _, index = name.partition("_")
        if kind == "map":
            return 2 ** (int(index) + 1)
        return FEATURE_STRIDE if kind == "features" and self.segment == "pyramid" else 1

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
