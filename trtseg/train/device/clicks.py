"""`trtseg.train.samples.clicks` on a device: the same draws, whole batches of them without a loop.

Shapes are static and nothing is read back, so that a GPU never waits for Python here. Rows of
clicks are float32 [B, P, 3], (y, x, label), label -1 where there is none. All randomness comes
from the generator, which lives on the device of the masks.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from trtseg.train.samples.clicks import ANYWHERE, EDGE_DEPTH, OTHER_ERROR, PromptConfig

NONE = -1.0
_FAR = 1e4  # pixels, farther than any crop is wide
# of one step of the distance's second pass
_LARGEST_ELEMENTS = 2**27


def distance(mask: Tensor) -> Tensor:
    """Exact Euclidean distance of every pixel to the nearest True one.

    Args:
        mask: bool [B, H, W].

    Returns:
        float32 [B, H, W]; infinity where a mask has no True pixel.
    """
    height, width = mask.shape[1:]
    rows = torch.arange(height, device=mask.device, dtype=torch.float32)[:, None]
    above = torch.where(mask, rows, -_FAR).cummax(1).values
    below = torch.where(mask, rows, _FAR).flip(1).cummin(1).values.flip(1)
    column = torch.minimum(rows - above, below - rows).square()
    columns = torch.arange(width, device=mask.device, dtype=torch.float32)
    across = (columns[:, None] - columns).square()
    together = max(1, _LARGEST_ELEMENTS // (height * width * width))
    squared = torch.cat([
        (piece[:, :, None, :] + across).amin(3) for piece in column.split(together)
    ])  # fmt: skip
    return squared.sqrt().masked_fill(squared > (_FAR / 2) ** 2, torch.inf)


def interior_distance(mask: Tensor) -> Tensor:
    """Distance of every True pixel to the nearest False one or to the border; bool [B, H, W]."""
    return distance(~F.pad(mask, (1, 1, 1, 1)))[:, 1:-1, 1:-1]


def uniform(like: Tensor, generator: torch.Generator, low: float = 0, high: float = 1) -> Tensor:
    """float32 [B] in [low, high), one for each of a batch."""
    values = torch.rand(len(like), device=like.device, generator=generator)
    return low + (high - low) * values


def integers(like: Tensor, generator: torch.Generator, low: int, high: int) -> Tensor:
    """int64 [B] from low to high - 1."""
    return torch.randint(low, high, (len(like),), device=like.device, generator=generator)


def noise(allowed: Tensor, generator: torch.Generator) -> Tensor:
    """Random numbers in [0, 1) where allowed, -1 elsewhere."""
    values = torch.rand(allowed.shape, device=allowed.device, generator=generator)
    return values.masked_fill(~allowed, -1)


def highest(score: Tensor) -> tuple[Tensor, Tensor]:
    """(y, x) int64 [B, 2] of the largest of float32 [B, H, W], and whether it is at least 0."""
    best, index = score.flatten(1).max(1)
    width = score.shape[2]
    return torch.stack([index // width, index % width], 1), best >= 0


def click_rows(points: Tensor, label: int | Tensor, found: Tensor) -> Tensor:
    """float32 [B, 3] of points [B, 2]; nothing where not found."""
    labels = torch.as_tensor(label, device=points.device).expand(len(points))
    rows = torch.cat([points, labels[:, None]], 1).float()
    return rows.masked_fill(~found[:, None], NONE)


def squared_distance_to(points: Tensor, size: tuple[int, int]) -> Tensor:
    """float32 [B, H, W]: of every pixel to one point [B, 2] of each of the batch."""
    dy, dx = (
        (torch.arange(side, device=points.device) - points[:, axis, None]).square()
        for axis, side in enumerate(size)
    )
    return (dy[:, :, None] + dx[:, None, :]).float()


def central_pixel(depth: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A pixel at least a random fraction of the largest depth inside, and whether there is one.

    Args:
        depth: `interior_distance`.
        generator: draws.
    """
    least = uniform(depth, generator) * depth.amax((1, 2)) * 0.999
    return highest(noise(depth > least[:, None, None], generator))


def _spread(
    allowed: Tensor, count: Tensor, most: int, step: Tensor, around: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Up to `count` [B] pixels of `allowed`: points [B, most, 2], and which of them there are.

    No two are closer than `step` [B]; or, where `around` [B], each is the farthest from those
    before it (Xu et al., strategy 3).
    """
    nearest = torch.full(allowed.shape, torch.inf, device=allowed.device)
    around, step = around[:, None, None], step[:, None, None]
    points, found = [], []
    for number in range(most):
        free = allowed & (around | (nearest > step.square()))
        score = noise(free, generator)
        if number > 0:
            score = torch.where(around & allowed, nearest, score)
        point, there = highest(score)
        nearest = torch.minimum(nearest, squared_distance_to(point, (allowed.shape[1],
                                                                     allowed.shape[2])))
        points.append(point)
        found.append(there & (number < count))
    return torch.stack(points, 1), torch.stack(found, 1)


def initial_clicks(
    target: Tensor, others: Tensor, depth: Tensor, config: PromptConfig, generator: torch.Generator
) -> Tensor:
    """`trtseg.train.samples.clicks.initial_clicks` of a batch.

    Args:
        target: uint8 [B, H, W], 1 object, 0 background, 255 void.
        others: bool [B, H, W], pixels of other objects.
        depth: `interior_distance` of the objects.
        config: counts and distances.
        generator: draws.

    Returns:
        [B, P, 3] with P of at most max_positive + max_negative.
    """
    first = click_rows(*_labelled(central_pixel(depth, generator)))[:, None]
    if config.single_fraction >= 1:
        return first
    margin = _choice(target, config.margins, generator)
    step = _choice(target, config.steps, generator)
    deepest = depth.amax((1, 2))
    # a thin object has no pixel that deep: half of its own depth is the margin then
    allowed = depth > torch.minimum(margin, deepest / 2)[:, None, None]
    count = integers(target, generator, 1, config.max_positive + 1)
    never = torch.zeros_like(count, dtype=torch.bool)
    kinds = [(1, *_spread(allowed, count, config.max_positive, step, never, generator))]
    if config.max_negative:
        strategy = integers(target, generator, 0, 3)
        count = integers(target, generator, 0, config.max_negative + 1)
        away = distance(target == 1)
        place = strategy[:, None, None]
        outside = (target == 0) & (away >= margin[:, None, None])
        allowed = outside & torch.where(
            place == 0, away <= config.band,
            torch.where(place == 1, others, away < margin[:, None, None] + 2),
        )  # fmt: skip
        kinds.append(
            (0, *_spread(allowed, count, config.max_negative, step, strategy == 2, generator))
        )
    several = torch.cat([
        torch.cat([points.float(), torch.full_like(points[..., :1], label).float()], 2)
        .masked_fill(~found[..., None], NONE)
        for label, points, found in kinds
    ], 1)  # fmt: skip
    single = F.pad(first, (0, 0, 0, several.shape[1] - 1), value=NONE)
    alone = uniform(target, generator) < config.single_fraction
    rows = torch.where(alone[:, None, None], single, several)
    return rows.masked_fill(deepest[:, None, None] <= 0, NONE)


def _labelled(drawn: tuple[Tensor, Tensor]) -> tuple[Tensor, int, Tensor]:
    return drawn[0], 1, drawn[1]


def _choice(like: Tensor, values: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """float32 [B] of `values`."""
    table = torch.tensor(values, device=like.device, dtype=torch.float32)
    return table[integers(like, generator, 0, len(values))]


def correction_clicks(
    predicted: Tensor, target: Tensor, generator: torch.Generator, at_edge: float = 0.0
) -> Tensor:
    """`trtseg.train.samples.clicks.correction_click` of a batch.

    Args:
        predicted: bool [B, H, W].
        target: uint8 [B, H, W], 1 object, 0 background, 255 void.
        generator: draws.
        at_edge: share of clicks at the region's edge, at most `EDGE_DEPTH` in.

    Returns:
        [B, 3].
    """
    missed = interior_distance((target == 1) & ~predicted)
    excess = interior_distance((target == 0) & predicted)
    deepest = torch.stack([missed.amax((1, 2)), excess.amax((1, 2))])
    other = (uniform(target, generator) < OTHER_ERROR) & (deepest.amin(0) > 1)
    positive = (deepest[0] >= deepest[1]) ^ other
    depth = torch.where(positive[:, None, None], missed, excess)
    kind, share = uniform(target, generator), uniform(target, generator)
    central = kind >= at_edge + (1 - at_edge) * ANYWHERE
    least = torch.where(central, 0.5 + 0.499 * share, 0.5 * share) * depth.amax((1, 2))
    edge = (kind < at_edge)[:, None, None]
    allowed = torch.where(edge, (depth > 0) & (depth <= EDGE_DEPTH), depth > least[:, None, None])
    point, found = highest(noise(allowed, generator))
    return click_rows(point, positive.long(), found)
