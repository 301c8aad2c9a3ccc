"""What `encode` returns: everything about an image that no click changes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trtseg.runtime.engine import Array, on_host
from trtseg.runtime.image import Picture, as_picture
from trtseg.runtime.maps.edges import Guide
from trtseg.types import Region


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An encoded image: immutable, shareable between threads and sessions, picklable.

    Attributes:
        model: the fingerprint of the bundle that made it; other models refuse it.
        image_size: (height, width) of the whole image.
        region: the part that was encoded, (y0, x0, y1, x1) in image pixels, half open.
        working_size: (height, width) at which the encoder saw the region.
        base: [C, H, W], read-only: the first layer of `segment` without its guidance term.
        maps: [1, C_l, h_l, w_l] each, read-only: what `segment` reads beside it; often none.
        grid_image: [1, 3, H, W] normalised image averaged to the base grid, or None for models
            whose selector does not look at it.
        source: the caller's image, not copied: a focus crop is encoded from it later, so leave
            its pixels alone while sessions are open. Dropped by pickling; see `with_image`.
        encode_ms: what encoding took.
        guide: the region in grey, which contours follow.
    """

    model: str
    image_size: tuple[int, int]
    region: Region
    working_size: tuple[int, int]
    base: Array = field(repr=False)
    grid_image: Array | None = field(repr=False)
    source: Picture | None = field(repr=False)
    encode_ms: float = 0.0
    maps: tuple[Array, ...] = field(default=(), repr=False)
    guide: Guide | None = field(default=None, repr=False)

    @property
    def grid(self) -> tuple[int, int]:
        """(height, width) of the base grid."""
        return self.base.shape[1], self.base.shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes held by the encoding itself, without the caller's image."""
        grid = 0 if self.grid_image is None else self.grid_image.nbytes
        guide = 0 if self.guide is None else self.guide.nbytes
        return int(self.base.nbytes + grid + guide + sum(one.nbytes for one in self.maps))

    def with_image(self, image: np.ndarray, image_format: str | None = None) -> EncodedImage:
        """The same encoding with its image attached again, for instance after unpickling.

        Raises:
            ValueError: the image is not of the encoding's size.
        """
        picture = as_picture(image, image_format)
        if picture.size != self.image_size:
            raise ValueError(f"image: expected size {self.image_size}, got {picture.size}")
        return replace(self, source=picture)

    def __getstate__(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("base", "grid_image"):
            if state[name] is not None:
                state[name] = on_host(state[name])
        if self.guide is not None:
            state["guide"] = Guide(on_host(self.guide.fine), on_host(self.guide.coarse))
        return {**state, "maps": tuple(map(on_host, self.maps)), "source": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            for array in value if name == "maps" else (value,):
                if isinstance(array, np.ndarray):
                    array.flags.writeable = False
            object.__setattr__(self, name, value)
