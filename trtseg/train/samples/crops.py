"""Training samples: random crops around objects, with targets and first clicks.

Sample i is a pure function of (seed, i): runs resume exactly, with any number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from trtseg.errors import DatasetError
from trtseg.parse import at_least, fractions
from trtseg.train.parallel import Parallel, ignore_interruption
from trtseg.train.samples.images import LabelledImages
from trtseg.train.samples.prompts import Prompt, PromptConfig, initial_prompt

VOID = 255
GREY = (127, 127, 127)
# an object with fewer pixels in the crop teaches nothing
MIN_VISIBLE_PX = 64
# draws after which a data set counts as one without usable objects
MAX_DRAWS = 1000


@dataclass(frozen=True)
class CropConfig:
    """How a sample is cut out of an image; lengths in pixels of the crop.

    Attributes:
        size: side of the square crop.
        object_side: range of the object's longer side after scaling, drawn log-uniformly.
        scale: the scaling stays in this range.
        aspect: the two axes' scales differ by at most this factor.
        shift: the object's centre lies within this fraction of the size around the crop's.
        objects: click sets per crop; they share one run of the encoder.
        min_area_px: smaller objects of the source image are not used.
        supervision_stride: crop pixels per pixel of the target in the losses.
        part_fraction: probability of a part instead of an object, where an image has parts.
    """

    size: int = 256
    object_side: tuple[float, float] = (40.0, 300.0)
    scale: tuple[float, float] = (0.4, 2.5)
    aspect: float = 1.15
    shift: float = 0.3
    objects: int = 2
    min_area_px: int = 200
    supervision_stride: int = 2
    part_fraction: float = 0.5

    def __post_init__(self) -> None:
        at_least(self, 1, "size", "objects", "supervision_stride", "aspect")
        fractions(self, "shift", "part_fraction")
        if self.size % 32 or self.size % self.supervision_stride:
            raise ValueError(
                f"size: expected a multiple of 32 and of supervision_stride, got {self.size}"
            )
        for name in ("object_side", "scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name}: expected 0 < low <= high, got {low} and {high}")


@dataclass
class Batch:
    """B images, and B x K prompts with their targets (K of one image are adjacent)."""

    images: Tensor  # uint8 [B, 3, h, w]
    targets: Tensor  # uint8 [B * K, h / s, w / s]
    # B * K of float32 [P, 3]; or one tensor [B * K, P, 3], padded by rows of label -1
    clicks: list[np.ndarray] | Tensor = field(default_factory=list)
    regions: Tensor | None = None  # float32 [B * K, grid], see `region_map`; None: nowhere
    masks: Tensor | None = None  # float32 [B * K, grid], masks to go on from; None: nowhere

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on a device."""
        moved = [None if t is None else t.to(device) for t in (self.regions, self.masks)]
        clicks = self.clicks
        clicks = clicks.to(device) if isinstance(clicks, Tensor) else list(clicks)
        return Batch(self.images.to(device), self.targets.to(device), clicks, *moved)


class Crops(Dataset):
    """Sample i of an endless stream; see the module's docstring.

    Args:
        images: where they come from.
        crop: how samples are cut out.
        prompts: what they begin with.
        grid_stride: crop pixels per cell of the network's grid.
        seed: of everything.
    """

    def __init__(
        self,
        images: LabelledImages,
        crop: CropConfig,
        prompts: PromptConfig,
        grid_stride: int,
        seed: int,
    ) -> None:
        self.images = images
        self.crop = crop
        self.prompts = prompts
        self.grid_stride = grid_stride
        self.seed = seed

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, list[Prompt]]:
        rng = np.random.default_rng([self.seed, index])
        crop = self.crop
        image, labels, objects, chosen = self._draw(rng)
        image = jitter_colour(image, rng)
        visible = [value for value in objects if (labels == value).sum() >= MIN_VISIBLE_PX]
        targets, prompts = [], []
        for index_of_set in range(crop.objects):
            value = chosen
            if index_of_set > 0 and rng.random() < 0.5:
                value = int(rng.choice(visible))
            members = labels == value
            if len(visible) > 1 and rng.random() < self.prompts.group_fraction:
                members = _group(labels, visible, value, rng)
            target = np.where(labels == VOID, VOID, members).astype(np.uint8)
            others = ~members & (labels != 0) & (labels != VOID)
            prompts.append(
                initial_prompt(target, others, self.prompts, self.grid_stride, rng)
            )
            targets.append(reduce_target(target, crop.supervision_stride))
        return image.transpose(2, 0, 1), np.stack(targets), prompts

    def _draw(
        self, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """A crop, its label map, the source's objects and the one that the crop is about."""
        for _ in range(MAX_DRAWS):
            source = self.images.draw(rng, self.crop.part_fraction)
            image, labels = source.read_pair()
            objects = self._large_objects(labels)
            if len(objects) == 0:
                continue
            chosen = int(rng.choice(objects))
            image, labels = self._cut(image, labels, chosen, rng)
            # an object can leave the crop or be void there: draw again, deterministically
            if (labels == chosen).sum() >= MIN_VISIBLE_PX:
                return image, labels, objects, chosen
        raise DatasetError(
            f"{source.annotation}: neither this nor {MAX_DRAWS - 1} other draws gave an object of "
            f"{self.crop.min_area_px} pixels or more"
        )

    def _large_objects(self, labels: np.ndarray) -> np.ndarray:
        values, counts = np.unique(labels, return_counts=True)
        keep = (values != 0) & (values != VOID) & (counts >= self.crop.min_area_px)
        return values[keep]

    def _cut(
        self, image: np.ndarray, labels: np.ndarray, chosen: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        crop = self.crop
        rows, columns = np.nonzero(labels == chosen)
        box = np.array([[rows.min(), rows.max() + 1, columns.min(), columns.max() + 1]])
        extent = np.array([[labels.shape[1], labels.shape[0]]], float)
        (scale,), (matrix,) = place_crops(box, extent, crop, rng)
        size = (crop.size, crop.size)
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        if scale < 0.7:
            # warpAffine does not average: reduce first, then warp the rest
            reduced = cv2.resize(image, None, fx=scale, fy=scale, interpolation=interpolation)
            ratio = np.array([image.shape[1] / reduced.shape[1], image.shape[0] / reduced.shape[0]])
            finer = matrix.copy()
            finer[:, :2] = matrix[:, :2] * ratio
            finer[:, 2] += (matrix[:, :2] @ ((ratio - 1) / 2))
            cut = cv2.warpAffine(reduced, finer, size, flags=cv2.INTER_LINEAR, borderValue=GREY)
        else:
            cut = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderValue=GREY)
        target = cv2.warpAffine(
            labels, matrix, size, flags=cv2.INTER_NEAREST, borderValue=(VOID, VOID, VOID)
        )
        return cut, target


def place_crops(
    boxes: np.ndarray, extents: np.ndarray, crop: CropConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Where crops around objects lie: random scale, aspect, place and side.

    Args:
        boxes: int [N, 4], top, bottom, left and right of the objects; bottom and right are outside.
        extents: float [N, 2], width and height of their images.
        crop: the ranges.
        rng: draws.

    Returns:
        (scales [N], matrices [N, 2, 3] that take (x, y) of the image to the crop).
    """
    count = len(boxes)
    top, bottom, left, right = boxes.T
    least, most = np.log(crop.object_side)
    side = np.exp(rng.uniform(least, most, count))
    # never so small that the image's longer side leaves the crop unfilled
    smallest = np.maximum(crop.scale[0], crop.size / extents.max(1))
    scale = np.clip(
        side / np.maximum(bottom - top, right - left), smallest,
        np.maximum(crop.scale[1], smallest),
    )  # fmt: skip
    aspect = crop.aspect ** rng.uniform(-0.5, 0.5, count)
    scales = np.stack([scale * aspect, scale / aspect], 1)  # x, y
    centre = np.stack([(left + right) / 2, (top + bottom) / 2], 1)
    shift = rng.uniform(-crop.shift, crop.shift, (count, 2))
    origin = centre - crop.size / scales * (0.5 + shift)
    # stay inside the image where it is large enough, centre it where it is not
    slack = extents - crop.size / scales
    origin = np.where(slack > 0, np.clip(origin, 0, np.maximum(slack, 0)), slack / 2)
    matrices = np.zeros((count, 2, 3))
    matrices[:, [0, 1], [0, 1]] = scales
    matrices[:, :, 2] = -origin * scales + (scales - 1) / 2
    mirrored = rng.random(count) < 0.5
    matrices[mirrored, 0] *= -1
    matrices[mirrored, 0, 2] += crop.size - 1
    return scale, matrices


def _group(
    labels: np.ndarray, visible: list[int], value: int, rng: np.random.Generator
) -> np.ndarray:
    """Where the objects are that touch object `value`, it included; or all that are visible."""
    if rng.random() < 0.5:
        return np.isin(labels, visible)
    near = cv2.dilate((labels == value).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    touching = [other for other in visible if (near & (labels == other)).any()]
    return np.isin(labels, [value, *touching])


def reduce_target(target: np.ndarray, stride: int) -> np.ndarray:
    """uint8 [H, W] to [H / s, W / s]: object where it fills half, void where any pixel is void."""
    if stride == 1:
        return target
    height, width = target.shape[0] // stride, target.shape[1] // stride
    cells = target.reshape(height, stride, width, stride)
    void = (cells == VOID).any((1, 3))
    inside = (cells == 1).mean((1, 3)) >= 0.5
    return np.where(void, VOID, inside).astype(np.uint8)


def jitter_colour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random brightness, contrast, gamma and channel gains; now and then grey."""
    values = np.arange(256, dtype=np.float32) / 255
    gamma = np.exp(rng.uniform(-0.35, 0.35))
    contrast, brightness = np.exp(rng.uniform(-0.3, 0.3)), rng.uniform(-0.12, 0.12)
    curve = ((values**gamma - 0.5) * contrast + 0.5 + brightness)[:, None]
    curve = curve * np.exp(rng.uniform(-0.1, 0.1, 3))
    table = (curve.clip(0, 1) * 255).astype(np.uint8).reshape(256, 1, 3)
    image = cv2.LUT(image, table)
    if rng.random() < 0.05:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return image


def collate(samples: Sequence[tuple[np.ndarray, np.ndarray, list[Prompt]]]) -> Batch:
    """Stack samples; the clicks stay lists, for corrections are appended to them."""
    images = torch.from_numpy(np.stack([sample[0] for sample in samples]))
    targets = torch.from_numpy(np.concatenate([sample[1] for sample in samples]))
    prompts = [prompt for sample in samples for prompt in sample[2]]
    return Batch(
        images,
        targets,
        [prompt.clicks for prompt in prompts],
        _stack([prompt.region for prompt in prompts]),
        _stack([prompt.mask for prompt in prompts]),
    )


def _stack(maps: Sequence[np.ndarray | None]) -> Tensor | None:
    """[B, h, w] with zeros where there is no map; None where there is none at all."""
    size = next((one.shape for one in maps if one is not None), None)
    if size is None:
        return None
    empty = np.zeros(size, np.float32)
    return torch.from_numpy(np.stack([empty if one is None else one for one in maps]))


def pad_clicks(clicks: Sequence[np.ndarray]) -> Tensor:
    """float32 [B, P, 3] of click lists of unequal length; label -1 marks padding."""
    longest = max((len(rows) for rows in clicks), default=0)
    padded = np.full((len(clicks), longest, 3), -1, np.float32)
    for index, rows in enumerate(clicks):
        padded[index, : len(rows)] = rows
    return torch.from_numpy(padded)


def loader(
    crops: Crops, first: int, count: int, batch: int, parallel: Parallel, workers: int
) -> DataLoader:
    """The batches of this process for steps first, first + 1, ... by `workers` processes."""
    sampler = StepSampler(first, first + count, batch, parallel.rank, parallel.world)
    return DataLoader(
        crops, batch_sampler=sampler, collate_fn=collate, num_workers=workers,
        worker_init_fn=ignore_interruption,
    )  # fmt: skip


class StepSampler(Sampler[list[int]]):
    """The sample indices of steps start, start + 1, ... of one of `world` processes."""

    def __init__(self, start: int, stop: int, batch: int, rank: int = 0, world: int = 1) -> None:
        self.steps = range(start, stop)
        self.batch, self.rank, self.world = batch, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            first = (step * self.world + self.rank) * self.batch
            yield list(range(first, first + self.batch))

    def __len__(self) -> int:
        return len(self.steps)
