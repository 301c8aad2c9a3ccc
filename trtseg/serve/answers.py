"""What the API says of an object, and the files that people take home."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from trtseg.runtime.image import Picture
from trtseg.runtime.session import Prediction, outlines
from trtseg.serve.records import PhotoRecord
from trtseg.serve.workspace import Answer

TOLERANCE_PX = 1.0


def answer_json(answer: Answer) -> dict[str, Any]:
    """An object as the API shows it; masks are COCO's compressed run lengths."""
    record, prediction = answer.record, answer.prediction
    return {
        "object": record.to_json(),
        "can_undo": record.at > 0,
        "can_redo": record.at < len(record.prompts),
        "box": prediction.box,
        "rle": prediction.rle(),
        "selected": prediction.selected,
        "candidates": _candidates(answer),
        "clicks": [
            {"x": click.x, "y": click.y, "positive": click.positive}
            for click in prediction.clicks
        ],
        "timing": {
            "encode_ms": answer.encoded.encode_ms,
            "answer_ms": answer.took_ms,
            **prediction.timing.to_dict(),
        },
    }


def preview_json(prediction: Prediction) -> dict[str, Any]:
    """A preview: the mask and what it took."""
    return {"rle": prediction.rle(), "total_ms": prediction.timing.total_ms}


def _candidates(answer: Answer) -> dict[str, Any]:
    """The candidates as the network gave them, on its own grid over a part of the photo."""
    prediction = answer.prediction
    maps = prediction.grid_probabilities
    return {
        "region": prediction.grid_region,
        "masks": [
            {"score": float(score), "rle": outlines.rle((one >= answer.threshold).astype(np.uint8))}
            for score, one in zip(prediction.scores, maps, strict=True)
        ],
    }


def polygons_json(prediction: Prediction, tolerance_px: float) -> list[dict[str, Any]]:
    """Outlines with their holes, points as [x, y]."""
    return [
        {"outline": part.outline.tolist(), "holes": [hole.tolist() for hole in part.holes]}
        for part in prediction.polygons(tolerance_px)
    ]


def mask_png(prediction: Prediction) -> bytes:
    """0 and 255, grey, of the photo's size."""
    return _png(prediction.mask)


def cutout_png(prediction: Prediction, picture: Picture, *, soft: bool) -> bytes:
    """The object on a transparent ground."""
    rgba = prediction.cutout(picture.pixels, picture.image_format, soft=soft)
    return _png(cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA))


@dataclass(frozen=True)
class File:
    """Bytes with their media type."""

    data: bytes
    media_type: str


def display(picture: Picture) -> File:
    """A photo as a browser shows it: upright, 8 bits; JPEG, or PNG where it is transparent."""
    bgr = picture.rgb()[..., ::-1]
    alpha = picture.alpha()
    if alpha is not None:
        return File(_png(np.dstack((bgr, alpha))), "image/png")
    data = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, 93))[1]
    return File(data.tobytes(), "image/jpeg")


def coco_json(photo: PhotoRecord, answers: list[Answer]) -> dict[str, Any]:
    """A data set in COCO's format: one image, one annotation an object that has a mask."""
    annotations = []
    for index, answer in enumerate(answers, start=1):
        prediction = answer.prediction
        if prediction.box is None:
            continue
        x0, y0, x1, y1 = prediction.box
        annotations.append(
            {
                "id": index,
                "image_id": 1,
                "category_id": index,
                "segmentation": prediction.rle(),
                "area": int(np.count_nonzero(prediction.mask)),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "iscrowd": 0,
            }
        )
    return {
        "info": {"description": "made with trtseg"},
        "images": [
            {"id": 1, "file_name": photo.name, "height": photo.height, "width": photo.width}
        ],
        "categories": [
            {"id": index, "name": answer.record.name} for index, answer in enumerate(answers, 1)
        ],
        "annotations": annotations,
    }


def file_name(*words: str) -> str:
    """A name for a download that every system takes."""
    joined = "-".join(re.sub(r"[^\w.]+", "-", word, flags=re.ASCII).strip("-.") for word in words)
    return joined.strip("-.") or "trtseg"


def _png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()
