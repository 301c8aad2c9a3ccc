"""Contours as fine as the image that the networks saw: a map on the base grid is upsampled to that
image's size along its edges, before a mask is composed of it.

It happens to what is shown alone. What the next click builds on stays on the base grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trtseg import ops
from trtseg.runtime.engine import Array, Memory
from trtseg.runtime.maps.correction import enforce
from trtseg.runtime.maps.tidy import Tidy
from trtseg.types import Prompt, Region

# Of grey values in [0, 1]: around a cell, a variance below this is no edge. Chosen on `davis_dev`
# and `coco_val_dev`, as `benchmarks/edges.py` measures.
EPSILON = 1e-3


@dataclass(frozen=True, eq=False)
class Guide:
    """The encoded part of an image, in grey: means of the channels as the encoder has them.

    Attributes:
        fine: float32 [H, W], of the working size.
        coarse: float32 [h, w], its means on the base grid.
    """

    fine: Array
    coarse: Array

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return int(self.fine.nbytes + self.coarse.nbytes)


def make_guide(memory: Memory, image: Array, stride: int) -> Guide:
    """The guide of an image as the encoder has it, [1, 3, H, W], and of a base grid."""
    fine = memory.channel_means(image)
    return Guide(fine[0, 0], memory.cell_means(fine, stride)[0, 0])


@dataclass(frozen=True, eq=False)
class Edges:
    """Refines the maps of one region.

    Attributes:
        memory: where maps live.
        guide: of the region.
        tidy: detail makes crumbs of its own.
        image_size: (height, width).
        threshold: a pixel is object from this probability on.
        scale: of the prepared image, per unit of a pixel of 0 to 255.
    """

    memory: Memory
    guide: Guide
    tidy: Tidy
    image_size: tuple[int, int]
    threshold: float
    scale: float

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
                epsilon=EPSILON * (255 * self.scale) ** 2,
                model=memory.empty((2, *guide.coarse.shape), float32),
                out=fine,
                stream=memory.stream,
            )
        found = memory.host(fine)
        values = self.tidy.apply(found, region, prompts, self.threshold)
        (values,), _ = enforce(values[None], prompts, region, self.image_size, self.threshold)
        return fine if np.shares_memory(values, found) else memory.array(values)
