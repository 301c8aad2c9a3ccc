"""Objects that are annotated by polygons: from outlines to masks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property

import cv2
import numpy as np

from trtseg.errors import DatasetError
from trtseg.evaluate.datasets.dataset import MAX_OBJECTS, LabelledImage

_FRACTION_BITS = 4  # of the coordinates that OpenCV fills polygons of


class OutlinedImage(LabelledImage):
    """Label k is the k-th outline. Objects may overlap: `read_mask` gives each whole."""

    @abstractmethod
    def read_outlines(self) -> Sequence[np.ndarray]:
        """Of each object float [N, 2], the (x, y) of its corners; pixel centres are integers.

        Raises:
            DatasetError: the annotation is missing or damaged.
        """

    @cached_property
    def _size(self) -> tuple[int, int]:
        height, width = self.read_image().shape[:2]
        return height, width

    def _outlines(self) -> list[np.ndarray]:
        outlines = [np.asarray(outline, np.float64) for outline in self.read_outlines()]
        if len(outlines) > MAX_OBJECTS:
            raise DatasetError(
                f"{self.annotation}: {len(outlines)} objects, at most {MAX_OBJECTS} can be read"
            )
        for outline in outlines:
            if outline.ndim != 2 or outline.shape[1] != 2 or len(outline) < 3:
                raise DatasetError(
                    f"{self.annotation}: expected outlines of at least 3 points (x, y), "
                    f"got an array {list(outline.shape)}"
                )
            if not (np.abs(outline) < 2**15).all():
                raise DatasetError(f"{self.annotation}: a point is far outside of any image")
        return outlines

    def _fill(self, outline: np.ndarray) -> np.ndarray:
        mask = np.zeros(self._size, np.uint8)
        corners = np.rint(outline * (1 << _FRACTION_BITS)).astype(np.int32)
        cv2.fillPoly(mask, [corners], 1, shift=_FRACTION_BITS)
        return mask

    def read_labels(self) -> np.ndarray:
        labels = np.zeros(self._size, np.uint8)
        for label, outline in enumerate(self._outlines(), start=1):
            labels[self._fill(outline) > 0] = label
        return labels

    def read_mask(self, label: int) -> np.ndarray:
        outlines = self._outlines()
        if not 1 <= label <= len(outlines):
            raise DatasetError(f"{self.annotation}: no object {label}")
        return self._fill(outlines[label - 1])

    def object_areas(self) -> dict[int, float]:
        areas = {k: float(self._fill(o).mean()) for k, o in enumerate(self._outlines(), start=1)}
        return {label: area for label, area in areas.items() if area > 0}
