"""Label Studio's machine learning backend: `/predict`, `/setup`, brush masks out."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trtseg import __version__
from trtseg.serve.http.api import read_body
from trtseg.serve.prompts import Prompt
from trtseg.serve.records import PhotoRecord
from trtseg.serve.tools import prompted
from trtseg.serve.tools.label_studio_images import LabelStudioImages
from trtseg.serve.workspace import Workspace

NAME = "Label Studio"
PREFIX = "/label-studio"
VERSION = f"trtseg-{__version__}"
_LENGTH_BITS = 16


def routes(workspace: Workspace, url: str = "", key: str = "") -> list[Route]:
    """The tool's addresses, under `PREFIX`.

    Args:
        workspace: the photos.
        url: of the Label Studio whose images may be fetched; "" for none.
        key: an access token of it.
    """
    limits = workspace.limits
    images = LabelStudioImages(url, key, limits.upload_bytes, limits.wait_s)

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "UP", "model_class": "trtseg"})

    async def setup(request: Request) -> Response:
        await read_body(request)
        return JSONResponse({"model_version": VERSION})

    async def predict(request: Request) -> Response:
        value = await read_body(request)

        def make() -> dict[str, Any]:
            return answer(workspace, value, images.read)

        return JSONResponse(await run_in_threadpool(make))

    async def versions(request: Request) -> Response:
        return JSONResponse({"versions": [VERSION]})

    async def webhook(request: Request) -> Response:
        return JSONResponse({}, status_code=201)  # it tells of annotations; nothing is learnt here

    return [
        Route(f"{PREFIX}/health", health),
        Route(f"{PREFIX}/", health),
        Route(f"{PREFIX}/versions", versions),
        Route(f"{PREFIX}/setup", setup, methods=["POST"]),
        Route(f"{PREFIX}/predict", predict, methods=["POST"]),
        Route(f"{PREFIX}/webhook", webhook, methods=["POST"]),
    ]


def answer(
    workspace: Workspace, value: dict[str, Any], read: Callable[[str], bytes]
) -> dict[str, Any]:
    """A brush mask for the smart clicks and boxes of the first task.

    Raises:
        ValueError: the request is none of Label Studio's.
        Refusal, EngineError: see `Workspace.prompt`; `read` gives an image's file.
    """
    tasks = prompted.objects(value.get("tasks"), "tasks")
    params = prompted.object_of(value.get("params"), "params")
    context = prompted.object_of(params.get("context") or value.get("context"), "context")
    results = prompted.objects(context.get("result"), "context.result")
    if not tasks or not results:
        return {"results": [], "model_version": VERSION}
    from_name, to_name, key = _brush(value.get("label_config"))
    place = prompted.object_of(tasks[0].get("data"), "data").get(key)
    if not isinstance(place, str):
        raise ValueError(f"tasks: expected an image under data.{key}")
    photo = workspace.add_photo(read(place), place.rpartition("/")[2] or NAME)
    said, label = _prompts(photo, results)
    prediction = workspace.revise(photo.id, NAME, said).prediction
    scores = prediction.scores
    score = float(scores[prediction.selected]) if len(scores) else 0.0
    region = {
        "id": secrets.token_hex(5),
        "from_name": from_name,
        "to_name": to_name,
        "type": "brushlabels",
        "original_width": photo.width,
        "original_height": photo.height,
        "image_rotation": 0,
        "score": score,
        "readonly": False,
        "value": {"format": "rle", "rle": brush_rle(prediction.mask), "brushlabels": [label]},
    }
    found = {"result": [region], "score": score, "model_version": VERSION}
    return {"results": [found], "model_version": VERSION}


def _prompts(photo: PhotoRecord, results: list[dict[str, Any]]) -> tuple[list[Prompt], str]:
    """Places come in percent of the photo's sides."""
    said: list[Prompt] = []
    label = ""
    for one in results:
        value, kind = prompted.object_of(one.get("value"), "value"), str(one.get("type"))
        labels = value.get(kind)
        label = labels[0] if isinstance(labels, list) and labels else label
        x, y = (_share(value, name) for name in ("x", "y"))
        if kind == "keypointlabels":
            positive = bool(one.get("is_positive", True))
            said.append(prompted.click(photo, x * photo.width, y * photo.height, positive))
        elif kind == "rectanglelabels":
            x1, y1 = x + _share(value, "width"), y + _share(value, "height")
            said.append(
                prompted.box(
                    photo, x * photo.width, y * photo.height, x1 * photo.width, y1 * photo.height
                )
            )
    if not said:
        raise ValueError("context: expected key points or rectangles")
    return said, str(label)


def _share(value: dict[str, Any], name: str) -> float:
    found = value.get(name)
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise ValueError(f"{name}: expected percent, got {found!r}")
    return found / 100


def _brush(config: Any) -> tuple[str, str, str]:
    """Names of the brush tag and of its image, and the key of the task's data, of a label config.

    Raises:
        ValueError: it has no BrushLabels on an Image.
    """
    try:
        root = ET.fromstring(config if isinstance(config, str) else "")
    except (ET.ParseError, ValueError) as error:
        raise ValueError(f"label_config: expected XML: {error}") from None
    images = {one.get("name"): one.get("value", "") for one in root.iter("Image")}
    for one in root.iter("BrushLabels"):
        name, image = one.get("name"), one.get("toName")
        if name and image in images:
            return name, str(image), images[image].lstrip("$")
    raise ValueError("label_config: expected BrushLabels on an Image")


def brush_rle(mask: np.ndarray) -> list[int]:
    """A mask, uint8 [H, W], in the run lengths of Label Studio's brush: RGBA words, packed bits.

    The head: 32 bits for the number of words, 5 for their size less 1, and 4 times 4 for the sizes
    of lengths less 1. A run: 1, the index of its length's size in 2 bits, the length less 1, the
    word.
    """
    flat = np.repeat(mask.ravel() > 0, 4)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate(([0], edges))
    lengths = np.diff(np.concatenate((starts, [flat.size])))
    words = flat[starts]
    most = 1 << _LENGTH_BITS
    pieces = -(-lengths // most)
    words = np.repeat(words, pieces)
    split = np.full(pieces.sum(), most)
    split[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * most
    runs = np.zeros((len(split), 3 + _LENGTH_BITS + 8), np.uint8)
    runs[:, :3] = 1  # a run, of the last of the four sizes
    shifts = np.arange(_LENGTH_BITS - 1, -1, -1)
    runs[:, 3 : 3 + _LENGTH_BITS] = ((split - 1)[:, None] >> shifts) & 1
    runs[:, 3 + _LENGTH_BITS :] = words[:, None]
    head = f"{flat.size:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    bits = np.concatenate((np.frombuffer(head.encode(), np.uint8) - ord("0"), runs.ravel()))
    return np.packbits(bits).tolist()
