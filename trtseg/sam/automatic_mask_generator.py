"""`SamAutomaticMaskGenerator`: masks for everything in an image, from a grid of clicks."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from trtseg.runtime.session import outlines
from trtseg.sam.predictor import SamPredictor

if TYPE_CHECKING:
    from trtseg.sam.model import Sam

_log = logging.getLogger(__name__)
OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")
EDGE_PX = 20  # as near to a crop's border, a mask is taken to be cut off by it
Box = tuple[int, int, int, int]  # x0, y0, x1, y1


@dataclass(frozen=True)
class Found:
    """A mask that has not been dropped yet.

    Attributes:
        counts: its run lengths, column by column, background first.
        box: of its outermost pixels, both ends included.
        predicted_iou, stability_score: what it is filtered by.
        point: (x, y) of its click.
        crop_box: where in the image it was looked for.
    """

    counts: list[int]
    box: Box
    predicted_iou: float
    stability_score: float
    point: tuple[float, float]
    crop_box: Box


class SamAutomaticMaskGenerator:
    """Clicks on a grid, every candidate of each; the good, stable and different ones are kept.

    The thresholds' defaults are those of Segment Anything, whose scores are higher and whose edges
    are steeper than those of the model that ships, of which they keep nothing on most photos (a
    warning says so): with it, `pred_iou_thresh` 0.35 and `stability_score_thresh` 0.8 are a start.
    """

    def __init__(
        self,
        model: Sam,
        points_per_side: int | None = 32,
        points_per_batch: int = 64,
        pred_iou_thresh: float = 0.88,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        point_grids: list[np.ndarray] | None = None,
        min_mask_region_area: int = 0,
        output_mode: str = "binary_mask",
    ) -> None:
        """Choose the grid and the filters.

        Args:
            model: what answers the clicks.
            points_per_side: of the grid over the image; None with `point_grids`.
            points_per_batch: taken for the original's sake; clicks run one after the other.
            pred_iou_thresh: keep masks whose score is above this, 0 to 1.
            stability_score_thresh: keep masks that are at least so stable: the IoU of what lies
                above and below `stability_score_offset` in logits.
            box_nms_thresh: of two masks whose boxes overlap more, the better one stays.
            crop_n_layers: layer i looks again at 4^i crops of the image.
            crop_nms_thresh: as `box_nms_thresh`, between crops; the smaller crop stays.
            crop_overlap_ratio: how much of the image's shorter side crops of the first layer share.
            crop_n_points_downscale_factor: layer i has this to the power of i fewer points a side.
            point_grids: [N, 2] in [0, 1] for each layer, in place of `points_per_side`.
            min_mask_region_area: drop islands and fill holes smaller than this many pixels.
            output_mode: how masks are given: "binary_mask", "uncompressed_rle" or "coco_rle".

        Raises:
            ValueError: both or none of `points_per_side` and `point_grids`, too few grids, or an
                unknown mode.
        """
        if (points_per_side is None) == (point_grids is None):
            raise ValueError("points_per_side: expected it or point_grids, and not both")
        if output_mode not in OUTPUT_MODES:
            raise ValueError(
                f"output_mode: expected one of {', '.join(OUTPUT_MODES)}, got {output_mode!r}"
            )
        if point_grids is None:
            assert points_per_side is not None
            point_grids = [
                _point_grid(int(points_per_side / crop_n_points_downscale_factor**layer))
                for layer in range(crop_n_layers + 1)
            ]
        if len(point_grids) <= crop_n_layers:
            raise ValueError(f"point_grids: expected {crop_n_layers + 1}, got {len(point_grids)}")
        self.point_grids = point_grids
        self.predictor = SamPredictor(model)
        self.points_per_batch = points_per_batch
        self.pred_iou_thresh = pred_iou_thresh
        self.stability_score_thresh = stability_score_thresh
        self.stability_score_offset = stability_score_offset
        self.box_nms_thresh = box_nms_thresh
        self.crop_n_layers = crop_n_layers
        self.crop_nms_thresh = crop_nms_thresh
        self.crop_overlap_ratio = crop_overlap_ratio
        self.crop_n_points_downscale_factor = crop_n_points_downscale_factor
        self.min_mask_region_area = min_mask_region_area
        self.output_mode = output_mode

    def generate(self, image: np.ndarray) -> list[dict[str, Any]]:
        """Masks of everything in an image.

        Args:
            image: [H, W, 3], see `Segmenter.encode`.

        Returns:
            One record per mask: `segmentation` (bool [H, W], or run lengths), `area` in pixels,
            `bbox` (x, y, width, height from the first to the last pixel), `predicted_iou`,
            `point_coords` [[x, y]], `stability_score`, `crop_box` (x, y, width, height).

        Raises:
            TypeError, ValueError, EngineError: as `Segmenter.encode`.
        """
        size = image.shape[0], image.shape[1]
        crops = _crop_boxes(size, self.crop_n_layers, self.crop_overlap_ratio)
        found = [each for box, layer in crops for each in self._crop(image, box, layer)]
        if not found:
            _log.warning(
                "no mask has a score above %g and a stability of %g: lower pred_iou_thresh and "
                "stability_score_thresh (for lite to 0.35 and 0.8)",
                self.pred_iou_thresh, self.stability_score_thresh,
            )  # fmt: skip
        if len(crops) > 1:
            areas = [_area(each.crop_box) for each in found]
            found = _distinct(found, [1 / area for area in areas], self.crop_nms_thresh)
        if self.min_mask_region_area > 0:
            found = self.postprocess_small_regions(
                [(size, each) for each in found],
                self.min_mask_region_area,
                max(self.box_nms_thresh, self.crop_nms_thresh),
            )
        return [self._record(each, size) for each in found]

    @staticmethod
    def postprocess_small_regions(
        mask_data: list[tuple[tuple[int, int], Found]], min_area: int, nms_thresh: float
    ) -> list[Found]:
        """Drop islands and fill holes smaller than `min_area` pixels, then duplicates.

        Args:
            mask_data: (size of the image, mask) of each.
            min_area: in pixels.
            nms_thresh: of two masks whose boxes overlap more, an unchanged one stays.
        """
        cleaned, unchanged = [], []
        for size, each in mask_data:
            mask = _mask(each.counts, size)
            clean = _without_small(_without_small(mask, min_area, holes=True), min_area)
            same = bool((clean == mask).all())
            unchanged.append(float(same))
            cleaned.append(
                each
                if same
                else replace(each, counts=outlines.run_lengths(clean), box=_box(clean))
            )
        return _distinct(cleaned, unchanged, nms_thresh)

    def _crop(self, image: np.ndarray, box: Box, layer: int) -> list[Found]:
        x0, y0, x1, y1 = box
        self.predictor.set_image(image[y0:y1, x0:x1])
        scale = x1 - x0, y1 - y0
        points = (self.point_grids[layer] * scale).tolist()
        found = [each for x, y in points for each in self._click(x, y, box, image.shape[:2])]
        self.predictor.reset_image()
        return _distinct(found, [each.predicted_iou for each in found], self.box_nms_thresh)

    def _click(self, x: float, y: float, crop: Box, size: tuple[int, ...]) -> Iterable[Found]:
        """All candidates of one click that pass the filters."""
        x0, y0, x1, y1 = crop
        for score, logits in self.predictor.candidates(x, y, self.pred_iou_thresh):
            with np.errstate(invalid="ignore"):  # nothing above either level: not stable
                stability = np.float64((logits > self.stability_score_offset).sum()) / (
                    (logits > -self.stability_score_offset).sum()
                )
            if self.stability_score_thresh > 0 and not stability >= self.stability_score_thresh:
                continue
            mask = logits > self.predictor.model.mask_threshold
            inner = _box(mask)
            box = inner[0] + x0, inner[1] + y0, inner[2] + x0, inner[3] + y0
            if _cut_off(box, crop, size):
                continue
            if mask.shape != size:
                whole = np.zeros(size, bool)
                whole[y0:y1, x0:x1] = mask
                mask = whole
            yield Found(
                outlines.run_lengths(mask), box, score, float(stability), (x + x0, y + y0), crop
            )

    def _record(self, found: Found, size: tuple[int, int]) -> dict[str, Any]:
        segmentation: Any = {"size": list(size), "counts": found.counts}
        if self.output_mode == "coco_rle":
            segmentation = outlines.rle(_mask(found.counts, size))
        elif self.output_mode == "binary_mask":
            segmentation = _mask(found.counts, size)
        return {
            "segmentation": segmentation,
            "area": sum(found.counts[1::2]),
            "bbox": _xywh(found.box),
            "predicted_iou": found.predicted_iou,
            "point_coords": [list(found.point)],
            "stability_score": found.stability_score,
            "crop_box": _xywh(found.crop_box),
        }


def _point_grid(per_side: int) -> np.ndarray:
    """float64 [N, 2], (x, y) in (0, 1): the centres of per_side x per_side cells, row by row."""
    centres = (np.arange(per_side) + 0.5) / per_side
    return np.stack(np.meshgrid(centres, centres), -1).reshape(-1, 2)


def _crop_boxes(
    size: tuple[int, int], layers: int, overlap_ratio: float
) -> list[tuple[Box, int]]:
    """The image, then for layer i the (2^i)^2 crops that cover it, each with its layer."""
    height, width = size
    boxes: list[tuple[Box, int]] = [((0, 0, width, height), 0)]
    for layer in range(1, layers + 1):
        count = 2**layer
        overlap = int(overlap_ratio * min(size) * (2 / count))
        crop_w, crop_h = (
            math.ceil((overlap * (count - 1) + side) / count) for side in (width, height)
        )
        for column, row in product(range(count), repeat=2):
            x0, y0 = (crop_w - overlap) * column, (crop_h - overlap) * row
            boxes.append(((x0, y0, min(x0 + crop_w, width), min(y0 + crop_h, height)), layer))
    return boxes


def _cut_off(box: Box, crop: Box, size: tuple[int, ...]) -> bool:
    """Whether a mask ends near a border of the crop that is no border of the image."""
    image = 0, 0, size[1], size[0]
    return any(
        abs(side - border) <= EDGE_PX < abs(side - outer)
        for side, border, outer in zip(box, crop, image, strict=True)
    )


def _distinct(found: list[Found], scores: list[float], threshold: float) -> list[Found]:
    """Non-maximum suppression by boxes, the best score first."""
    if not found:
        return []
    boxes = [_xywh(each.box) for each in found]
    # raised by 1, since a box whose score is no more than the limit of 0 is dropped
    kept = cv2.dnn.NMSBoxes(boxes, [1 + score for score in scores], 0.0, threshold)
    return [found[int(index)] for index in np.asarray(kept).reshape(-1)]


def _without_small(mask: np.ndarray, min_area: int, *, holes: bool = False) -> np.ndarray:
    """Without the regions under `min_area`; of islands alone the largest stays."""
    count, regions, stats, _ = cv2.connectedComponentsWithStats((mask ^ holes).astype(np.uint8))
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    small = areas < min_area
    small[0] = False
    if holes:
        return mask | small[regions]
    if count > 1 and small[1:].all():
        small[int(areas.argmax())] = False
    return mask & ~small[regions]


def _mask(counts: list[int], size: tuple[int, int]) -> np.ndarray:
    """bool [H, W] from run lengths."""
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(size[1], size[0]).T


def _box(mask: np.ndarray) -> Box:
    """Of the outermost pixels, both ends included; zeros for an empty mask."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return x, y, x + max(width - 1, 0), y + max(height - 1, 0)


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _xywh(box: Box) -> list[int]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]
