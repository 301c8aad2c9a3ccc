"""Clicks to masks with a torch network in evaluation mode: what validation runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trtseg.nn.config import NetworkConfig
from trtseg.nn.guidance import guidance_maps
from trtseg.nn.network import LatentDiversity, normalisation
from trtseg.runtime.image import as_picture, prepare, working_size
from trtseg.types import Click

# the encoders' coarsest stride: both sides of the working image are multiples of it
MULTIPLE_PX = 32


@dataclass(frozen=True, eq=False)
class Encoding:
    """An image as the network keeps it.

    Attributes:
        levels: what `LatentDiversity.encode` gave, [1, C, H, W] and coarser maps.
        grid_image: [1, 3, H, W], the normalised image averaged to the grid.
        image_size, working_size: (height, width).
    """

    levels: list[Tensor]
    grid_image: Tensor
    image_size: tuple[int, int]
    working_size: tuple[int, int]


class Predictor:
    """The runtime's arithmetic in torch: resize, encode once, click.

    Args:
        network: on any device; put into evaluation mode.
        bf16: run it in bfloat16.
        by_rank: select the first mask, as before g is trained.
    """

    def __init__(
        self, network: LatentDiversity, *, bf16: bool = False, by_rank: bool = False
    ) -> None:
        self.network = network.eval()
        self.config: NetworkConfig = network.config
        self.bf16, self.by_rank = bf16, by_rank
        self.device = network.bias.device
        mean, scale = normalisation(self.config)
        self._mean, self._scale = np.array(mean, np.float32), np.array(scale, np.float32)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    @torch.inference_mode()
    def encode(self, image: np.ndarray) -> Encoding:
        """Everything about an image, uint8 [H, W, 3] in RGB, that no click changes."""
        size = image.shape[:2]
        working = working_size(
            *size, long_side_px=self.config.working_long_side_px, multiple_px=MULTIPLE_PX
        )
        staged = np.empty((1, 3, *working), np.float32)
        prepare(as_picture(image), (0, 0, *size), self._mean, self._scale, staged)
        tensor = torch.from_numpy(staged).to(self.device)
        with self._autocast():
            levels = self.network.encode(tensor.contiguous(memory_format=torch.channels_last))
        grid_image = F.avg_pool2d(tensor, self.config.base_stride)
        return Encoding(levels, grid_image, size, working)

    @torch.inference_mode()
    def click(
        self, encoding: Encoding, clicks: Sequence[Click], previous: Tensor | None
    ) -> tuple[Tensor, int]:
        """All candidates and the index of the selected one.

        Args:
            encoding: what `encode` gave.
            clicks: all clicks of the object, in image pixels.
            previous: [H, W], the selected map before the newest click; None at the first.

        Returns:
            (probabilities float32 [M, H, W] on the grid, index).
        """
        points = self._working_pixels(clicks, encoding).to(self.device)
        if previous is not None:
            previous = previous[None]
        grid = encoding.levels[0].shape[2:]
        guidance = guidance_maps(points, (grid[0], grid[1]), self.config, previous)
        with self._autocast():
            masks, features = self.network.masks(encoding.levels, guidance)
            if self.by_rank:
                return masks[0].float(), 0
            scores = self.network.scores(masks, guidance, features, encoding.grid_image)
        return masks[0].float(), int(scores[0].argmax())

    @staticmethod
    def _working_pixels(clicks: Sequence[Click], encoding: Encoding) -> Tensor:
        """float32 [1, P, 3], rows (y, x, label): pixel centres map to pixel centres."""
        scale_y, scale_x = (
            w / i for w, i in zip(encoding.working_size, encoding.image_size, strict=True)
        )
        rows = [
            ((c.y + 0.5) * scale_y - 0.5, (c.x + 0.5) * scale_x - 0.5, float(c.positive))
            for c in clicks
        ]
        return torch.tensor(rows, dtype=torch.float32).reshape(1, -1, 3)

    @staticmethod
    def probability(maps: Tensor, size: tuple[int, int]) -> np.ndarray:
        """Grid maps [M, H, W] at the image's size, bilinear; float32 [M, height, width]."""
        enlarged = F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)
        return enlarged[0].cpu().numpy()
