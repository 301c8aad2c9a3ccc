"""A bounded store of encodings, for callers that come back to the same images."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import replace

import numpy as np

from trtseg.runtime.encoded import EncodedImage
from trtseg.runtime.image import Picture, as_picture
from trtseg.runtime.segmenter import Segmenter


class EncodingCache:
    """The encodings used last, keyed on the pixels themselves, the model and the region.

    A changed image is another image: a stale encoding cannot come back. Threads may share it.
    """

    def __init__(self, max_bytes: int = 256 * 2**20) -> None:
        """
        Args:
            max_bytes: of the encodings held; one larger than this is returned but not kept.

        Raises:
            TypeError: max_bytes is no integer.
            ValueError: max_bytes is negative.
        """
        given: object = max_bytes
        if isinstance(given, bool) or not isinstance(given, (int, np.integer)):
            raise TypeError(f"max_bytes: expected an integer, got {given!r}")
        if max_bytes < 0:
            raise ValueError(f"max_bytes: expected at least 0, got {max_bytes}")
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._held: OrderedDict[Hashable, EncodedImage] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Bytes of the encodings held, without their images."""
        with self._lock:
            return sum(encoded.nbytes for encoded in self._held.values())

    def __len__(self) -> int:
        with self._lock:
            return len(self._held)

    def clear(self) -> None:
        """Forget all encodings."""
        with self._lock:
            self._held.clear()

    def encode(
        self,
        segmenter: Segmenter,
        image: np.ndarray,
        image_format: str | None = None,
        *,
        region: tuple[int, int, int, int] | None = None,
    ) -> EncodedImage:
        """`Segmenter.encode`, or what it gave before for the same pixels.

        Raises:
            As `Segmenter.encode`.
        """
        picture = as_picture(image, image_format)
        key = _key(picture, segmenter, region)
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                # The caller's own array: the one of then may have been changed or freed.
                return self._held[key].with_image(image, image_format)
        encoded = segmenter.encode(image, image_format, region=region)
        with self._lock:
            if encoded.nbytes <= self.max_bytes:
                self._held[key] = _without_image(encoded)
                self._held.move_to_end(key)
            while sum(e.nbytes for e in self._held.values()) > self.max_bytes:
                self._held.popitem(last=False)
        return encoded


def _without_image(encoded: EncodedImage) -> EncodedImage:
    """A cache of encodings must not keep the images alive."""
    return replace(encoded, source=None)


def _key(
    picture: Picture, segmenter: Segmenter, region: tuple[int, int, int, int] | None
) -> Hashable:
    return segmenter.pipeline.model, segmenter.engines.description, region, picture.digest()
