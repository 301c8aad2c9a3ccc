"""Contours as fine as the image that the networks saw: a map on the base grid is upsampled to that
image's size along its edges, before a mask is composed of it.

It happens to what is shown alone. What the next click builds on stays on the base grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from trtseg import ops
from trtseg.runtime.engine import Array, Memory
from trtseg.runtime.maps.correction import enforce
from trtseg.runtime.maps.tidy import Tidy
from trtseg.types import Prompt, Region

# Of grey values in [0, 1]: what varies less around a cell is no edge. Chosen on `davis_dev` and
# `coco_val_dev` with `benchmarks/edges.py`.
EPSILON = 1e-3


@dataclass(frozen=True, eq=False)
class Guide:
    """The encoded part of an image, in grey.

    Attributes:
        fine: float32 [H, W] in [0, 1], of the working size.
        coarse: float32 [h, w], its means on the base grid.
    """

    fine: Array
    coarse: Array

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return int(self.fine.nbytes + self.coarse.nbytes)


def make_guide(
    memory: Memory, image: Array, mean: np.ndarray, scale: np.ndarray, grid: tuple[int, int]
) -> Guide:
    """The guide of an image as the encoder has it.

    Args:
        memory: where the image lives, and the guide will.
        image: [3, H, W], (pixel - mean) * scale of pixels of 0 to 255.
        mean, scale: float32 [3].
        grid: (h, w), of which H and W are multiples.
    """
    values = memory.host(image)
    fine = np.full(values.shape[1:], mean.mean() / 255, np.float32)
    for channel, factor in zip(values, 1 / (3 * 255 * scale), strict=True):
        fine += channel * np.float32(factor)
    coarse = cv2.resize(fine, grid[::-1], interpolation=cv2.INTER_AREA)
    for array in (fine, coarse):
        array.flags.writeable = False
    return Guide(memory.array(fine), memory.array(coarse))


@dataclass(frozen=True, eq=False)
class Edges:
    """Refines the maps of one region.

    Attributes:
        memory: where maps live.
        guide: of the region.
        tidy: detail makes crumbs of its own.
        image_size: (height, width).
        threshold: a pixel is object from this probability on.
    """

    memory: Memory
    guide: Guide
    tidy: Tidy
    image_size: tuple[int, int]
    threshold: float

    def refine(self, probability: Array, region: Region, prompts: Sequence[Prompt]) -> Array:
        """A map on the base grid at the guide's size, tidied, with every prompt obeyed.

        Args:
            probability: [h, w] in the memory.
            region: where it lies in the image.
            prompts: all of them, the newest last.

        Returns:
            float32 [H, W] in the memory.
        """
        memory, guide = self.memory, self.guide
        float32 = np.dtype(np.float32)
        fine = memory.empty(guide.fine.shape, float32)
        with memory.queueing():
            ops.guided_upsample(
                probability,
                guide.coarse,
                guide.fine,
                epsilon=EPSILON,
                model=memory.empty((2, *guide.coarse.shape), float32),
                out=fine,
                stream=memory.stream,
            )
        found = memory.host(fine)
        values = self.tidy.apply(found, region, prompts, self.threshold)
        (values,), _ = enforce(values[None], prompts, region, self.image_size, self.threshold)
        return fine if np.shares_memory(values, found) else memory.array(values)
