"""Segment Anything's frames: the image with a longer side of 1024, the mask of 256 x 256."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

IMAGE_PX = 1024
MASK_PX = 256  # the side of a low-resolution mask: the image's frame, padded to a square, over 4


class ResizeLongestSide:
    """Images, points and boxes in the frame whose longer side is `target_length`."""

    def __init__(self, target_length: int) -> None:
        self.target_length = target_length

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, C] in the frame's size."""
        height, width = image.shape[:2]
        height, width = self.get_preprocess_shape(height, width, self.target_length)
        shrinks = height * width < image.shape[0] * image.shape[1]
        return cv2.resize(
            image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )

    def apply_coords(self, coords: np.ndarray, original_size: tuple[int, ...]) -> np.ndarray:
        """float64 [..., 2], (x, y) in the frame, of points in an image of (height, width)."""
        return np.asarray(coords, np.float64) * self._scale(original_size)

    def apply_boxes(self, boxes: np.ndarray, original_size: tuple[int, ...]) -> np.ndarray:
        """float64 [B, 4] in the frame, of boxes x0, y0, x1, y1."""
        corners = np.asarray(boxes).reshape(-1, 2, 2)
        return self.apply_coords(corners, original_size).reshape(-1, 4)

    def apply_image_torch(self, image: Any) -> Any:
        """Floating-point tensor [B, C, H, W] in the frame's size."""
        from torch.nn.functional import interpolate

        height, width = image.shape[2:]
        size = self.get_preprocess_shape(height, width, self.target_length)
        return interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)

    def apply_coords_torch(self, coords: Any, original_size: tuple[int, ...]) -> Any:
        """`apply_coords` for a tensor; float32."""
        coords = coords.float()
        return coords * coords.new_tensor(self._scale(original_size))

    def apply_boxes_torch(self, boxes: Any, original_size: tuple[int, ...]) -> Any:
        """`apply_boxes` for a tensor; float32."""
        return self.apply_coords_torch(boxes.reshape(-1, 2, 2), original_size).reshape(-1, 4)

    @staticmethod
    def get_preprocess_shape(oldh: int, oldw: int, long_side_length: int) -> tuple[int, int]:
        """(height, width) in the frame of an image of that height and width."""
        scale = long_side_length / max(oldh, oldw)
        return int(oldh * scale + 0.5), int(oldw * scale + 0.5)

    def _scale(self, original_size: tuple[int, ...]) -> tuple[float, float]:
        """(x, y) factors from the image into the frame."""
        height, width = self.get_preprocess_shape(
            original_size[0], original_size[1], self.target_length
        )
        return width / original_size[1], height / original_size[0]


def to_low_resolution(grid: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Maps over an image as low-resolution masks in the padded square frame.

    Args:
        grid: float32 [M, h, w], over the whole image.
        image_size: (height, width) in pixels.

    Returns:
        float32 [M, 256, 256]; the padding repeats the image's last row and column.
    """
    frame = ResizeLongestSide.get_preprocess_shape(*image_size, IMAGE_PX)
    rows, columns = (
        # cell centres of the frame, as fractions of the image's side, on the map
        _interpolation((np.arange(MASK_PX) + 0.5) * (IMAGE_PX / MASK_PX) / side * n - 0.5, n)
        for side, n in zip(frame, grid.shape[1:], strict=True)
    )
    return (rows @ grid @ columns.T).astype(np.float32)


def from_low_resolution(mask: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """A low-resolution mask at the image's size, without the padding.

    Args:
        mask: float32 [h, w] over the padded square frame; usually [256, 256].
        image_size: (height, width) in pixels.

    Returns:
        float32 [H, W].
    """
    frame = ResizeLongestSide.get_preprocess_shape(*image_size, IMAGE_PX)
    rows, columns = (
        _interpolation((np.arange(n) + 0.5) * side / n * cells / IMAGE_PX - 0.5, cells)
        for side, n, cells in zip(frame, image_size, mask.shape, strict=True)
    )
    return (rows @ mask @ columns.T).astype(np.float32)


def _interpolation(positions: np.ndarray, cells: int) -> np.ndarray:
    """Weights [P, cells] of linear interpolation between cell centres, constant beyond them."""
    inside = np.clip(positions, 0, cells - 1)
    return np.maximum(0, 1 - np.abs(inside[:, None] - np.arange(cells))).astype(np.float32)
