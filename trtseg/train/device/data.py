"""Training samples made on the device that trains, whole batches at a time.

All images and label maps lie in its memory, decoded once. The processor only draws which objects
and where (a few numbers a crop, vectorised); crops, colours, targets and prompts are made on the
device, with static shapes and nothing read back, so that a GPU's queue stays full.

Batch i of process r is a pure function of (seed, i, r). The samples are drawn as in
`trtseg.train.samples.crops`, but are not the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trtseg.errors import DatasetError
from trtseg.evaluate.datasets import LabelledImage
from trtseg.train.config import TrainConfig
from trtseg.train.device.clicks import noise, uniform
from trtseg.train.device.prompts import initial_prompts
from trtseg.train.samples.crops import GREY, MIN_VISIBLE_PX, VOID, Batch, CropConfig, place_crops
from trtseg.train.samples.images import LabelledImages

LABELS = 256
# crops made in excess, of every so many: some lose their object
SPARE = 8
# places looked at per pixel of a crop and axis: images are reduced without aliasing
SUPERSAMPLES = 2
_GREY_WEIGHTS = (0.299, 0.587, 0.114)


class DeviceImages:
    """Images, label maps, and what there is to draw.

    Args:
        images: the sources.
        crop: which objects are large enough, and how often parts are drawn.
        device: keeps them: about 4 bytes for each pixel of a square of the longest side that
            occurs, times the number of images.
        threads: that decode.

    Raises:
        DatasetError: an image is damaged, or there is no usable object.
    """

    def __init__(
        self, images: LabelledImages, crop: CropConfig, device: torch.device, threads: int
    ) -> None:
        members: list[LabelledImage] = []
        chances: list[float] = []
        for chance, group in zip(images.chances, images.groups, strict=True):
            members += group
            chances += [chance / len(group)] * len(group)
        parts = {
            number: images.parts[image.path]
            for number, image in enumerate(members) if image.path in images.parts
        }  # fmt: skip
        with ThreadPoolExecutor(threads) as pool:
            pairs = list(pool.map(lambda image: image.read_pair(), members))
            maps = [labels for _, labels in pairs]
            maps += pool.map(lambda image: image.read_labels(), parts.values())
        self.image_of = np.array([*range(len(members)), *parts])
        self.extents = np.array([labels.shape[::-1] for labels in maps], float)
        side = int(self.extents.max())
        self.pixels = torch.zeros(len(pairs), 3, side, side, dtype=torch.uint8, device=device)
        self.labels = torch.full((len(maps), side, side), VOID, dtype=torch.uint8, device=device)
        for number, (pixels, _) in enumerate(pairs):
            # repeated at its border, where interpolation would meet black
            margins = [(0, side - pixels.shape[0]), (0, side - pixels.shape[1]), (0, 0)]
            square = np.pad(pixels, margins, mode="edge")
            self.pixels[number] = torch.from_numpy(square.transpose(2, 0, 1)).to(device)
        usable = np.zeros((len(maps), LABELS), bool)
        boxes = []
        for number, labels in enumerate(maps):
            height, width = labels.shape
            self.labels[number, :height, :width] = torch.from_numpy(labels).to(device)
            counts = np.bincount(labels.ravel(), minlength=LABELS)
            usable[number, 1:VOID] = counts[1:VOID] >= crop.min_area_px
            boxes += [_box(labels == value) for value in np.flatnonzero(usable[number])]
        counts = usable.sum(1)
        chance = np.array(chances)[self.image_of]
        chance[list(parts)] *= 1 - crop.part_fraction
        chance[len(members) :] *= crop.part_fraction
        chance[counts == 0] = 0
        if not chance.any():
            raise DatasetError(
                f"{members[0].annotation}: neither this nor {len(members) - 1} other images have "
                f"an object of {crop.min_area_px} pixels or more"
            )
        self.cumulative = np.cumsum(chance) / chance.sum()
        self.first = np.concatenate([[0], np.cumsum(counts)])  # of each map's objects
        self.values, self.boxes = np.nonzero(usable)[1], np.array(boxes)
        self.usable = torch.from_numpy(usable).to(device)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(label maps, objects) of so many draws, by weight; objects count through all maps."""
        maps = np.searchsorted(self.cumulative, rng.random(count), side="right")
        maps = maps.clip(max=len(self.cumulative) - 1)
        objects = self.first[maps + 1] - self.first[maps]
        return maps, self.first[maps] + rng.integers(0, objects)


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


def device_batches(
    images: DeviceImages, config: TrainConfig, numbers: Iterable[int], rank: int
) -> Iterator[Batch]:
    """The batches of these numbers of process `rank`, on the device of the images."""
    for number in numbers:
        yield device_batch(images, config, [config.seed, number, rank])


@torch.no_grad()
def device_batch(images: DeviceImages, config: TrainConfig, key: list[int]) -> Batch:
    """One batch, a pure function of the key."""
    crop, device = config.crop, images.pixels.device
    seeds = np.random.SeedSequence(key)
    rng = np.random.default_rng(seeds)
    generator = torch.Generator(device).manual_seed(int(seeds.generate_state(1)[0]))
    maps, objects = images.draw(config.batch + -(-config.batch // SPARE), rng)
    extents = images.extents[maps]
    _, matrices = place_crops(images.boxes[objects], extents, crop, rng)
    numbers = torch.from_numpy(
        np.stack([maps, images.image_of[maps], images.values[objects]])
    ).to(device, non_blocking=True)
    # a diagonal matrix is inverted by division: x = (x' - t) / s
    scales = np.stack([1 / matrices[:, [0, 1], [0, 1]], matrices[:, :, 2], extents], 1)
    placed = torch.from_numpy(scales.astype(np.float32)).to(device, non_blocking=True)
    labels = cut_labels(images.labels, numbers[0], placed, crop.size)
    chosen = numbers[2]
    seen = (labels == chosen[:, None, None]).sum((1, 2)) >= MIN_VISIBLE_PX
    # those that still have their object come first
    kept = seen.int().argsort(descending=True, stable=True)[: config.batch]
    labels, chosen, numbers, placed = (
        labels[kept], chosen[kept], numbers[:, kept], placed[kept]
    )  # fmt: skip
    pixels = jitter_colours(cut_images(images.pixels, numbers[1], placed, crop.size), generator)
    labels = labels.repeat_interleave(crop.objects, 0)
    members = _members(labels, chosen, images.usable[numbers[0]], config, generator)
    void = labels == VOID
    target = members.to(torch.uint8).masked_fill(void, VOID)
    clicks, regions, masks = initial_prompts(
        target, ~members & ~void & (labels != 0), config.clicks, config.network.base_stride,
        generator,
    )  # fmt: skip
    return Batch(pixels, reduce_targets(target, crop.supervision_stride), clicks, regions, masks)


def _sources(placed: Tensor, size: int, finer: int = 1) -> tuple[Tensor, Tensor]:
    """Where a crop's columns and rows lie in the image: x and y, each [B, size * finer].

    Args:
        placed: [B, 3, 2] of (x, y): image pixels per crop pixel (negative where mirrored), the
            image's origin in the crop, and the image's extent.
        size: of the crop.
        finer: places per pixel.
    """
    place = (torch.arange(size * finer, device=placed.device) + 0.5) / finer - 0.5
    inverse, origin, _ = placed.unbind(1)
    x, y = (
        (place - origin[:, axis, None]) * inverse[:, axis, None] for axis in (0, 1)
    )  # fmt: skip
    return x, y


def cut_labels(store: Tensor, maps: Tensor, placed: Tensor, size: int) -> Tensor:
    """uint8 [B, size, size], the nearest label; void outside of the image."""
    positions, inside = [], []
    for axis, place in enumerate(_sources(placed, size)):
        nearest = torch.floor(place + 0.5)
        inside.append((nearest >= 0) & (nearest < placed[:, 2, axis, None]))
        positions.append(nearest.long().clamp(0, store.shape[-1] - 1))
    x, y = positions
    labels = store[maps[:, None, None], y[:, :, None], x[:, None, :]]
    return labels.masked_fill(~(inside[1][:, :, None] & inside[0][:, None, :]), VOID)


def cut_images(store: Tensor, numbers: Tensor, placed: Tensor, size: int) -> Tensor:
    """uint8 [B, 3, size, size], bilinear and averaged; grey outside of the image."""
    finer = size * SUPERSAMPLES
    x, y = _sources(placed, size, SUPERSAMPLES)
    side = store.shape[-1]
    grid = torch.stack([
        x[:, None, :].expand(-1, finer, -1), y[:, :, None].expand(-1, -1, finer)
    ], 3)  # fmt: skip
    grid = (grid + 0.5) * (2 / side) - 1
    fine = F.grid_sample(
        store[numbers].float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    inside = [
        (place >= -0.5) & (place < placed[:, 2, axis, None] - 0.5)
        for axis, place in enumerate((x, y))
    ]
    outside = ~(inside[1][:, None, :, None] & inside[0][:, None, None, :])
    return F.avg_pool2d(fine.masked_fill(outside, GREY[0]), SUPERSAMPLES).round().to(torch.uint8)


def jitter_colours(images: Tensor, generator: torch.Generator) -> Tensor:
    """`trtseg.train.samples.crops.jitter_colour` of a batch, uint8 [B, 3, H, W]."""

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        shape = (len(images), channels, 1, 1)
        values = torch.rand(shape, device=images.device, generator=generator)
        return low + (high - low) * values

    gamma, contrast = draw(-0.35, 0.35).exp(), draw(-0.3, 0.3).exp()
    values = (images.float() / 255).pow(gamma)
    values = ((values - 0.5) * contrast + 0.5 + draw(-0.12, 0.12)) * draw(-0.1, 0.1, 3).exp()
    values = values.clamp(0, 1)
    weights = torch.tensor(_GREY_WEIGHTS, device=images.device)
    grey = torch.einsum("bchw,c->bhw", values, weights)[:, None]
    return (torch.where(draw(0, 1) < 0.05, grey, values) * 255).to(torch.uint8)


def _members(
    labels: Tensor, chosen: Tensor, usable: Tensor, config: TrainConfig,
    generator: torch.Generator,
) -> Tensor:
    """Which pixels belong to the objects that the click sets are about; bool [B * K, H, W].

    Args:
        labels: uint8 [B * K, H, W].
        chosen: int64 [B], the objects that the crops are about.
        usable: bool [B, 256], the image's objects.
        config: number of click sets, share of groups.
        generator: draws.
    """
    sets = config.crop.objects
    flat = labels.flatten(1).long()
    counts = torch.zeros(len(flat), LABELS, device=labels.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=counts.dtype))
    visible = usable.repeat_interleave(sets, 0) & (counts >= MIN_VISIBLE_PX)
    other = noise(visible, generator).argmax(1)
    # the first set of each crop is about the object it was cut around
    first = torch.arange(len(flat), device=labels.device) % sets == 0
    own = first | (uniform(flat, generator) < 0.5)
    value = torch.where(own, chosen.repeat_interleave(sets), other)
    wanted = F.one_hot(value, LABELS).bool()
    if config.clicks.group_fraction:
        single = wanted.gather(1, flat).view(labels.shape).float()
        near = F.max_pool2d(single, 7, 1, 3).flatten(1)
        touching = torch.zeros_like(counts).scatter_add_(1, flat, near) > 0
        every = uniform(flat, generator) < 0.5
        group = visible & (every[:, None] | touching)
        grouped = (visible.sum(1) > 1) & (
            uniform(flat, generator) < config.clicks.group_fraction
        )
        wanted |= group & grouped[:, None]
    return wanted.gather(1, flat).view(labels.shape)


def reduce_targets(target: Tensor, stride: int) -> Tensor:
    """`trtseg.train.samples.crops.reduce_target` of a batch, uint8 [B, H, W]."""
    if stride == 1:
        return target
    inside = F.avg_pool2d((target == 1).float()[:, None], stride)[:, 0] >= 0.5
    void = F.max_pool2d((target == VOID).float()[:, None], stride)[:, 0] > 0
    return inside.to(torch.uint8).masked_fill(void, VOID)
