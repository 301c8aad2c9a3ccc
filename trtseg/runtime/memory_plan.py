"""How many bytes an image will take, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from trtseg.runtime.pipeline import Pipeline


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of the arrays that trtseg allocates for one image and one session.

    What the inference engine keeps for itself (its weights and scratch) comes on top; it depends
    on the model and the working size, which is bounded, and not on the image's size.

    Attributes:
        encoding: kept by an `EncodedImage`.
        encode_buffers: shared by all encodings of one working size.
        click_buffers: shared by all sessions of one working size, once per concurrent click.
        crops: kept by a session for focus crops, at most.
        mask: a mask at the image's size; a session shows one while it makes the next.
        click: kept for undo, per click.
    """

    encoding: int
    encode_buffers: int
    click_buffers: int
    crops: int
    mask: int
    click: int

    def total(self, *, clicks: int = 1, focus: bool = False) -> int:
        """Bytes of one image with one session after so many clicks."""
        masks = self.mask * min(clicks, 2)
        crops = self.crops if focus else 0
        return (
            self.encoding + self.encode_buffers + self.click_buffers + crops + masks
            + self.click * clicks
        )  # fmt: skip


def memory_plan(pipeline: Pipeline, height: int, width: int, crops: int) -> MemoryPlan:
    """The plan of an image of that size; see `Segmenter.memory_plan`."""
    manifest, engines = pipeline.manifest, pipeline.engines
    size = pipeline.working_size(height, width)
    grid_height, grid_width = pipeline.grid(size)
    cells = grid_height * grid_width
    x = engines.segment.inputs[0].dtype.itemsize
    masks = {spec.name: spec for spec in engines.segment.outputs}
    # all that were found, and the shown one corrected (or all of them corrected)
    kept_bytes = cells * (manifest.candidates + 1) * masks["masks"].dtype.itemsize
    maps = sum(prod(shape) for shape in pipeline.stages.map_shapes(size).values()) * x
    guide = (size[0] * size[1] + cells) * 4
    encoding = cells * manifest.channels * x + maps + guide
    if "image" in manifest.select_inputs:
        encoding += cells * 3 * 4
    image = size[0] * size[1] * 3
    encode_buffers = image * 4
    if engines.encoder is not None:
        encode_buffers += image * engines.encoder.inputs[0].dtype.itemsize
        shapes = engines.encoder.output_shapes({"image": (1, 3, *size)})
        for spec in engines.encoder.outputs:
            encode_buffers += prod(shapes[spec.name]) * spec.dtype.itemsize
    click_buffers = cells * (manifest.channels + manifest.guidance.channels) * x + maps
    if engines.recorder is not None:
        # the base at a fixed address, and the mask that is composed with the click
        click_buffers += cells * manifest.channels * x + height * width
    shapes = engines.segment.output_shapes(pipeline.stages.segment_shapes(size))
    for spec in engines.segment.outputs:
        click_buffers += prod(shapes[spec.name]) * spec.dtype.itemsize
    if "image" in manifest.select_inputs:
        click_buffers += cells * 3 * 4
    return MemoryPlan(
        encoding=encoding,
        encode_buffers=encode_buffers,
        click_buffers=click_buffers,
        crops=encoding * crops,
        mask=height * width,
        click=kept_bytes,
    )
