"""`trtseg.train.samples.prompts` for whole batches on a device; see `trtseg.train.device.clicks`.

Two things differ from there. A loop is the object grown by a distance, without the smoothing that
a contour gets, and what it encloses along rows and columns is inside. And strokes are thinned by
squares, not by disks.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from trtseg.runtime.region import REACH
from trtseg.train.device.clicks import (
    NONE,
    central_pixel,
    click_rows,
    correction_clicks,
    distance,
    highest,
    initial_clicks,
    interior_distance,
    noise,
    squared_distance_to,
    uniform,
)
from trtseg.train.samples.prompts import MAX_STROKE_POINTS, STROKE_STEP, PromptConfig

# rounds of thinning; after these hardly a point is missing from a maximal choice
_THINNING = 4
_BLUR_REACH = 6  # cells, three deviations of the widest blur


def initial_prompts(
    target: Tensor,
    others: Tensor,
    config: PromptConfig,
    stride: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The prompts that samples begin with.

    Args:
        target: uint8 [B, H, W], 1 object, 0 background, 255 void.
        others: bool [B, H, W], pixels of other objects.
        config: fractions, counts and distances.
        stride: crop pixels per cell of the grid.
        generator: of the masks' device.

    Returns:
        (clicks [B, P, 3], regions, masks), the latter two float32 [B, h, w] on the grid as in
        `Prompt`, zeros where a sample has none; None where the configuration has none.
    """
    inside = target == 1
    depth = interior_distance(inside)
    kind = uniform(target, generator)
    bounds = (config.region_fraction, config.stroke_fraction, config.repair_fraction)
    chosen = []
    for share in bounds:
        chosen.append((kind >= 0) & (kind < share))
        kind = kind - share
    clicks = _clicks(target, others, depth, config, generator)
    regions = masks = None
    there = inside.flatten(1).any(1)
    if config.region_fraction:
        regions = _regions(inside, stride, generator) * (chosen[0] & there)[:, None, None]
        point, found = central_pixel(depth, generator)
        found &= uniform(target, generator) < 0.25
        clicks = _replace(clicks, chosen[0], click_rows(point, 1, found)[:, None])
    if config.stroke_fraction:
        clicks = _replace(clicks, chosen[1], strokes(inside, depth, generator))
    if config.repair_fraction:
        spoiled, row = _repairs(target, depth, stride, generator)
        masks = spoiled * (chosen[2] & there)[:, None, None]
        clicks = _replace(clicks, chosen[2], row[:, None])
    return clicks.masked_fill(~there[:, None, None], NONE), regions, masks


def _replace(clicks: Tensor, where: Tensor, others: Tensor) -> Tensor:
    """Of some samples other rows; the shorter are padded."""
    most = max(clicks.shape[1], others.shape[1])
    clicks, others = (
        F.pad(rows, (0, 0, 0, most - rows.shape[1]), value=NONE) for rows in (clicks, others)
    )
    return torch.where(where[:, None, None], others, clicks)


def _clicks(
    target: Tensor, others: Tensor, depth: Tensor, config: PromptConfig,
    generator: torch.Generator,
) -> Tensor:
    rows = initial_clicks(target, others, depth, config, generator)
    at_edge = uniform(target, generator) < config.single_fraction * config.edge_fraction
    point, found = highest(noise((depth > 0) & (depth <= 5), generator))
    rows = _replace(rows, at_edge, click_rows(point, 1, found)[:, None])
    if config.slip_px == 0:
        return rows
    reach = config.slip_px
    slip = torch.randint(-reach, reach + 1, (*rows.shape[:2], 2), device=rows.device,
                         generator=generator)
    last = torch.tensor(target.shape[1:], device=rows.device) - 1.0
    moved = (rows[..., :2] + slip).clamp(min=0).minimum(last)
    return torch.where(rows[..., 2:] == NONE, rows, torch.cat([moved, rows[..., 2:]], 2))


def _regions(inside: Tensor, stride: int, generator: torch.Generator) -> Tensor:
    boxed = uniform(inside, generator) < 0.6
    filled = torch.where(
        boxed[:, None, None], boxes(inside, stride, generator), loops(inside, stride, generator)
    )
    signed = torch.where(filled, distance(~filled) - 0.5, 0.5 - distance(filled))
    return (signed / REACH).clamp(-1, 1)


def boxes(inside: Tensor, stride: int, generator: torch.Generator) -> Tensor:
    """Which cells of the grid a box covers that a hand draws; bool [B, h, w]."""
    loose = uniform(inside, generator) < 0.8
    covered = []
    for axis in (1, 2):
        hit = inside.any(3 - axis)
        place = torch.arange(hit.shape[1], device=inside.device)
        low = torch.where(hit, place, hit.shape[1]).amin(1) - 0.5
        high = torch.where(hit, place, -1).amax(1) + 0.5
        margins = [uniform(inside, generator, -0.02, 0.08) * (high - low) * loose
                   for _ in range(2)]
        cells = torch.arange(hit.shape[1] // stride, device=inside.device)
        first, last = (
            torch.round((edge + 0.5) / stride - 0.5)[:, None]
            for edge in (low - margins[0], high + margins[1])
        )
        covered.append((cells >= first) & (cells <= last))
    return covered[0][:, :, None] & covered[1][:, None, :]


def loops(inside: Tensor, stride: int, generator: torch.Generator) -> Tensor:
    """Which cells of the grid a loose line around the object encloses; bool [B, h, w]."""
    count, height, width = inside.shape
    area = inside.sum((1, 2)).float()
    reach = 2 + area.sqrt() * uniform(inside, generator, 0.02, 0.15)
    away = distance(inside)
    wobble = torch.randn(count, 2, device=inside.device, generator=generator)
    wobble = wobble * (reach / 8)[:, None]
    rows, columns = (
        ((torch.arange(side // stride, device=inside.device) + 0.5) * stride - 0.5
         - wobble[:, axis, None]).round().long().clamp(0, side - 1)
        for axis, side in enumerate((height, width))
    )
    number = torch.arange(count, device=inside.device)[:, None, None]
    # at 0.4 of a blur of half the reach, a straight edge lies an eighth of the reach farther out
    grown = away[number, rows[:, :, None], columns[:, None, :]] <= (reach * 1.125)[:, None, None]
    enclosed = torch.ones_like(grown)
    for axis in (1, 2):
        before = grown.int().cummax(axis).values
        after = grown.int().flip(axis).cummax(axis).values.flip(axis)
        enclosed &= (before & after) > 0
    return grown | enclosed


def strokes(inside: Tensor, depth: Tensor, generator: torch.Generator) -> Tensor:
    """Positive rows [B, P, 3] along a part of the object's ridge, or on a line through it."""
    deepest = depth.amax((1, 2), keepdim=True)
    ridge = (depth >= F.max_pool2d(depth, 3, 1, 1) - 1e-3) & (depth > 0.3 * deepest)
    along_ridge = (ridge.sum((1, 2)) >= 8) & (uniform(inside, generator) < 0.6)
    marked = torch.where(
        along_ridge[:, None, None], _part_of_ridge(ridge, generator),
        _lines(inside, depth, generator),
    )  # fmt: skip
    order = noise(marked, generator)
    kept = torch.zeros_like(marked)
    side = 2 * STROKE_STEP - 1
    for _ in range(_THINNING):
        # in random order, greedily: whoever comes first among its neighbours stays
        best = (order >= 0) & (order == F.max_pool2d(order, side, 1, side // 2))
        kept |= best
        order = order.masked_fill(F.max_pool2d(best.float(), side, 1, side // 2) > 0, NONE)
    most = min(MAX_STROKE_POINTS, inside[0].numel())
    found, index = noise(kept, generator).flatten(1).topk(most, dim=1)
    width = inside.shape[2]
    points = torch.stack([index // width, index % width, torch.ones_like(index)], 2)
    return points.float().masked_fill((found < 0)[..., None], NONE)


def _part_of_ridge(ridge: Tensor, generator: torch.Generator) -> Tensor:
    """A stretch of 0.4 to all of its length, along the axis of its largest extent."""
    weight = ridge.float()
    total = weight.sum((1, 2)).clamp_min(1)
    rows, columns = (
        torch.arange(side, device=ridge.device, dtype=torch.float32) for side in ridge.shape[1:]
    )
    y = rows - ((weight.sum(2) @ rows) / total)[:, None]
    x = columns - ((weight.sum(1) @ columns) / total)[:, None]
    yy = (weight.sum(2) * y.square()).sum(1)
    xx = (weight.sum(1) * x.square()).sum(1)
    xy = torch.einsum("bhw,bh,bw->b", weight, y, x)
    angle = 0.5 * torch.atan2(2 * xy, xx - yy)
    along = (y * angle.sin()[:, None])[:, :, None] + (x * angle.cos()[:, None])[:, None, :]
    low = along.masked_fill(~ridge, torch.inf).amin((1, 2))
    high = along.masked_fill(~ridge, -torch.inf).amax((1, 2))
    length = (high - low).clamp_min(0)
    # an axis has no direction of its own
    along = torch.where((uniform(ridge, generator) < 0.5)[:, None, None],
                        along, (low + high)[:, None, None] - along)  # fmt: skip
    start = low + uniform(ridge, generator) * 0.4 * length
    end = start + uniform(ridge, generator, 0.4, 1.0) * length
    return ridge & (along >= start[:, None, None]) & (along <= end[:, None, None])


def _lines(inside: Tensor, depth: Tensor, generator: torch.Generator) -> Tensor:
    """The pixels of the object at every fourth place on lines through two or three of its own."""
    knots = [central_pixel(depth, generator)[0] for _ in range(3)]
    three = uniform(inside, generator) < 0.5
    marked = torch.zeros_like(inside, dtype=torch.uint8).flatten(1)
    most = max(2, max(inside.shape[1:]) // STROKE_STEP)
    place = torch.arange(most, device=inside.device)
    for number, (first, second) in enumerate(pairwise(knots)):
        step = second - first
        count = (step.abs().amax(1) // STROKE_STEP).clamp_min(2)
        share = (place / (count[:, None] - 1)).clamp(max=1)
        points = (first[:, None] + share[..., None] * step[:, None]).round().long()
        index = points[..., 0] * inside.shape[2] + points[..., 1]
        drawn = (three | (number == 0))[:, None].expand_as(index).to(torch.uint8)
        marked = marked.scatter_reduce(1, index, drawn, "amax")
    return marked.view(inside.shape).bool() & inside


def _repairs(
    target: Tensor, depth: Tensor, stride: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Good masks of which one region is missing or too much [B, h, w], and a click there [B, 3]."""
    inside = target == 1
    size = target.shape[1], target.shape[2]
    share = uniform(target, generator, 0.15, 0.5)
    radius = (inside.sum((1, 2)).float().sqrt() * share).floor().clamp_min(4)
    within, _ = highest(noise(inside, generator))
    edge, _ = highest(noise(inside & (depth <= 1.5), generator))
    shift = torch.rand(len(target), 2, device=target.device, generator=generator) * 2 - 1
    beside = edge + (shift * (radius + 0.5)[:, None]).round().long()
    missing = uniform(target, generator) < 0.5
    centre = torch.where(missing[:, None], within, beside)
    disk = squared_distance_to(centre, size) <= radius.square()[:, None, None]
    spoiled = torch.where(missing[:, None, None], inside & ~disk, inside | disk)
    row = correction_clicks(spoiled, target, generator)
    mask = F.avg_pool2d(spoiled.float()[:, None], stride)[:, 0]
    return _blurred(mask, uniform(target, generator, 0.5, 2.0)), row


def _blurred(maps: Tensor, sigma: Tensor) -> Tensor:
    """Each of [B, h, w] with a Gaussian of its own deviation [B]."""
    count = len(maps)
    place = torch.arange(-_BLUR_REACH, _BLUR_REACH + 1, device=maps.device)
    kernel = torch.exp(-place.square() / (2 * sigma.square()[:, None]))
    kernel = (kernel / kernel.sum(1, keepdim=True))[:, None]
    reach = [_BLUR_REACH] * 2
    padded = F.pad(maps[None], (*reach, *reach), mode="replicate")
    rows = F.conv2d(padded, kernel[..., None], groups=count)
    return F.conv2d(rows, kernel[:, :, None], groups=count)[0]
