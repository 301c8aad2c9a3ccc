"""Guidance maps of batches of clicks in torch, for training (the runtime has its own kernels)."""

from __future__ import annotations

import torch
from torch import Tensor

from trtseg.nn.config import NetworkConfig

# label of a row in a padded click tensor
POSITIVE, NEGATIVE, PADDING = 1.0, 0.0, -1.0


def guidance_maps(
    clicks: Tensor,
    size: tuple[int, int],
    config: NetworkConfig,
    previous: Tensor | None = None,
    region: Tensor | None = None,
) -> Tensor:
    """Click maps, distance maps (LD eq. 1, truncated) and the previous mask on f's grid.

    Args:
        clicks: float32 [B, P, 3], rows (y, x, label) in working-image pixels; label 1 positive,
            0 negative, -1 padding. P may be 0.
        size: (height, width) of the grid.
        config: decides the kind of the maps; `base_stride` relates pixels to cells.
        previous: [B, H, W] in [0, 1]; zeros where None. Ignored without `previous_mask`.
        region: [B, H, W] in [-1, 1], see `region_map`; zeros where None. Ignored without `region`.

    Returns:
        float32 [B, G, H, W]: S_p, S_n, T_p, T_n in [0, 1] and, where configured, previous mask
        and region.
    """
    height, width = size
    batch = clicks.shape[0]
    stride = config.base_stride
    limit = config.distance_limit_px / stride
    device = clicks.device
    rows = torch.arange(height, device=device, dtype=torch.float32)
    columns = torch.arange(width, device=device, dtype=torch.float32)
    grid = (clicks[..., :2] + 0.5) / stride - 0.5
    dy = (rows - grid[..., 0:1]).square()[..., :, None]
    dx = (columns - grid[..., 1:2]).square()[..., None, :]
    squared = dy + dx
    maps = torch.empty(batch, config.guidance_channels, height, width, device=device)
    far = torch.full((batch, 1, height, width), limit**2, device=device)
    for index, label in enumerate((POSITIVE, NEGATIVE)):
        absent = (clicks[..., 2] != label)[..., None, None]
        nearest = torch.cat([squared.masked_fill(absent, limit**2), far], dim=1).amin(1)
        distance = nearest.clamp(max=limit**2).sqrt()
        if config.click_map == "point":
            last = torch.tensor([height - 1.0, width - 1.0], device=device)
            # a click on the image's outermost edge belongs to the outermost cell
            cell = torch.floor(grid + 0.5).clamp(min=0).minimum(last)
            hit = (rows == cell[..., 0:1])[..., :, None] & (columns == cell[..., 1:2])[..., None, :]
            here = (hit & ~absent).any(1).float()
        else:
            # with no click the distance is the limit, and the bump vanishes in float32
            here = torch.exp(-distance.square() / (2 * config.sigma_grid_px**2))
        maps[:, index] = here
        maps[:, 2 + index] = distance / limit
    if config.previous_mask:
        maps[:, 4] = 0.0 if previous is None else previous
    if config.region:
        maps[:, -1] = 0.0 if region is None else region
    return maps
