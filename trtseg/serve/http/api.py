"""The JSON API: each operation is one entry of `OPERATIONS`, which the OpenAPI page shows too."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from trtseg import __version__
from trtseg.serve import answers, prompts
from trtseg.serve.answers import File
from trtseg.serve.http.openapi import Operation, document
from trtseg.serve.workspace import Answer, Workspace

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_PHOTO = "/api/photos/{photo}"
_OBJECT = _PHOTO + "/objects/{object}"


def _workspace(request: Request) -> Workspace:
    return request.app.state.workspace


def _keys(request: Request) -> tuple[str, str]:
    return request.path_params["photo"], request.path_params["object"]


async def read_body(request: Request, known: set[str] | None = None) -> dict[str, Any]:
    """The request's JSON object; its keys are all `known`, if that is given.

    Raises:
        ValueError: it is no such object.
    """
    data = await request.body()
    try:
        value = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        raise ValueError("body: expected JSON") from None
    if not isinstance(value, dict):
        raise ValueError("body: expected a JSON object")
    if known is not None and set(value) - known:
        unknown = ", ".join(sorted(set(value) - known))
        raise ValueError(f"body: unknown {unknown}; known: {', '.join(sorted(known))}")
    return value


def _text(value: dict[str, Any], key: str) -> str | None:
    found = value.get(key)
    if found is not None and not isinstance(found, str):
        raise ValueError(f"{key}: expected a string, got {found!r}")
    return found


def _colour(value: dict[str, Any]) -> str | None:
    found = _text(value, "colour")
    if found is not None and not _COLOUR.fullmatch(found):
        raise ValueError(f"colour: expected #rrggbb, got {found!r}")
    return found


async def about(request: Request) -> Response:
    workspace = _workspace(request)
    return JSONResponse(
        {
            "version": __version__,
            "model": workspace.segmenter.bundle.name,
            "runs_on": workspace.segmenter.engines.description,
            "candidates": workspace.segmenter.candidates,
            "accepts": [
                kind
                for kind in ("click", "stroke", "box", "lasso", "mask")
                if workspace.segmenter.accepts(kind)
            ],
            "limits": vars(workspace.limits),
        }
    )


async def list_photos(request: Request) -> Response:
    found = await run_in_threadpool(_workspace(request).photos)
    return JSONResponse({"photos": [one.summary() for one in found]})


async def add_photo(request: Request) -> Response:
    name = request.query_params.get("name", "photo")
    data = await request.body()
    photo = await run_in_threadpool(_workspace(request).add_photo, data, name)
    return JSONResponse(photo.to_json(), status_code=201)


async def get_photo(request: Request) -> Response:
    photo = await run_in_threadpool(_workspace(request).photo, request.path_params["photo"])
    return JSONResponse(photo.to_json())


async def remove_photo(request: Request) -> Response:
    await run_in_threadpool(_workspace(request).remove_photo, request.path_params["photo"])
    return Response(status_code=204)


async def get_image(request: Request) -> Response:
    def make() -> File:
        return answers.display(_workspace(request).picture(request.path_params["photo"]))

    return _file(await run_in_threadpool(make), lasting=True)


async def get_thumbnail(request: Request) -> Response:
    folder = _workspace(request).folder
    data = await run_in_threadpool(folder.thumbnail, request.path_params["photo"])
    return _file(File(data, "image/jpeg"), lasting=True)


async def add_object(request: Request) -> Response:
    value = await read_body(request, {"name", "colour"})
    made = await run_in_threadpool(
        _workspace(request).add_object,
        request.path_params["photo"], _text(value, "name") or "", _colour(value) or "",
    )  # fmt: skip
    return JSONResponse(made.to_json(), status_code=201)


async def change_object(request: Request) -> Response:
    value = await read_body(request, {"name", "colour"})
    changed = await run_in_threadpool(
        _workspace(request).change_object,
        *_keys(request), _text(value, "name"), _colour(value),
    )  # fmt: skip
    return JSONResponse(changed.to_json())


async def remove_object(request: Request) -> Response:
    await run_in_threadpool(_workspace(request).remove_object, *_keys(request))
    return Response(status_code=204)


async def _answered(ask: Callable[..., Answer], *arguments: Any) -> Response:
    def make() -> dict[str, Any]:
        return answers.answer_json(ask(*arguments))

    return JSONResponse(await run_in_threadpool(make))


async def get_object(request: Request) -> Response:
    return await _answered(_workspace(request).answer, *_keys(request))


async def add_prompt(request: Request) -> Response:
    prompt = prompts.from_json(await read_body(request))
    return await _answered(_workspace(request).prompt, *_keys(request), prompt)


async def undo(request: Request) -> Response:
    return await _answered(_workspace(request).undo, *_keys(request))


async def redo(request: Request) -> Response:
    return await _answered(_workspace(request).redo, *_keys(request))


async def reset(request: Request) -> Response:
    return await _answered(_workspace(request).reset, *_keys(request))


async def get_mask(request: Request) -> Response:
    def make() -> tuple[File, str]:
        answer = _workspace(request).answer(*_keys(request))
        return File(answers.mask_png(answer.prediction), "image/png"), answer.record.name

    file, name = await run_in_threadpool(make)
    return _file(file, answers.file_name(name, "mask") + ".png")


async def get_cutout(request: Request) -> Response:
    soft = request.query_params.get("soft", "0") == "1"

    def make() -> tuple[File, str]:
        workspace = _workspace(request)
        answer = workspace.answer(*_keys(request))
        picture = workspace.picture(request.path_params["photo"])
        png = answers.cutout_png(answer.prediction, picture, soft=soft)
        return File(png, "image/png"), answer.record.name

    file, name = await run_in_threadpool(make)
    return _file(file, answers.file_name(name, "cutout") + ".png")


async def get_rle(request: Request) -> Response:
    def make() -> dict[str, object]:
        return _workspace(request).answer(*_keys(request)).prediction.rle()

    return JSONResponse(await run_in_threadpool(make))


async def get_polygons(request: Request) -> Response:
    text = request.query_params.get("tolerance_px", str(answers.TOLERANCE_PX))
    try:
        tolerance_px = float(text)
    except ValueError:
        raise ValueError(f"tolerance_px: expected a number, got {text!r}") from None

    def make() -> list[dict[str, Any]]:
        answer = _workspace(request).answer(*_keys(request))
        return answers.polygons_json(answer.prediction, tolerance_px)

    return JSONResponse({"polygons": await run_in_threadpool(make)})


async def get_coco(request: Request) -> Response:
    key = request.path_params["photo"]

    def make() -> dict[str, Any]:
        workspace = _workspace(request)
        photo = workspace.photo(key)
        found = [workspace.answer(key, one.id) for one in photo.objects]
        return answers.coco_json(photo, found)

    return JSONResponse(await run_in_threadpool(make))


async def get_openapi(request: Request) -> Response:
    return JSONResponse(document(OPERATIONS))


def _file(file: File, name: str | None = None, *, lasting: bool = False) -> Response:
    headers = {"cache-control": "private, max-age=86400"} if lasting else {}
    if name is not None:
        headers["content-disposition"] = f'attachment; filename="{name}"'
    return Response(file.data, media_type=file.media_type, headers=headers)


_OBJECT_BODY = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "colour": {"type": "string", "pattern": "^#[0-9a-fA-F]{6}$"},
    },
    "additionalProperties": False,
}
_PROMPT_BODY = {"$ref": "#/components/schemas/Prompt"}
OPERATIONS = (
    Operation("GET", "/api/about", about, "The model, and what the server takes"),
    Operation("GET", "/api/photos", list_photos, "All photos, the last changed first"),
    Operation("POST", "/api/photos", add_photo, "Upload a photo; the same file is the same photo",
              body="binary", query={"name": "of the file"}),
    Operation("GET", _PHOTO, get_photo, "A photo with its objects and their prompts"),
    Operation("DELETE", _PHOTO, remove_photo, "Forget a photo and its objects"),
    Operation("GET", f"{_PHOTO}/image", get_image, "The photo, upright", gives="image/*"),
    Operation("GET", f"{_PHOTO}/thumbnail", get_thumbnail, "A small picture", gives="image/jpeg"),
    Operation("GET", f"{_PHOTO}/coco", get_coco, "All objects as a data set in COCO's format"),
    Operation("POST", f"{_PHOTO}/objects", add_object, "Begin an object", body=_OBJECT_BODY),
    Operation("GET", _OBJECT, get_object, "An object: mask, candidates, clicks; encodes the photo"),
    Operation("PATCH", _OBJECT, change_object, "Name or colour", body=_OBJECT_BODY),
    Operation("DELETE", _OBJECT, remove_object, "Forget an object"),
    Operation("POST", f"{_OBJECT}/prompts", add_prompt,
              "Say something about an object: click, box, stroke, lasso, mask, or select a "
              "candidate", body=_PROMPT_BODY),
    Operation("POST", f"{_OBJECT}/undo", undo, "Take the last prompt back"),
    Operation("POST", f"{_OBJECT}/redo", redo, "Bring it again"),
    Operation("POST", f"{_OBJECT}/reset", reset, "Take all prompts back"),
    Operation("GET", f"{_OBJECT}/mask.png", get_mask, "The mask: 0 and 255", gives="image/png"),
    Operation("GET", f"{_OBJECT}/cutout.png", get_cutout, "The object on a transparent ground",
              query={"soft": "1: the probability as alpha"}, gives="image/png"),
    Operation("GET", f"{_OBJECT}/rle", get_rle, "The mask as COCO's compressed run lengths"),
    Operation("GET", f"{_OBJECT}/polygons", get_polygons, "The mask's outlines with their holes",
              query={"tolerance_px": "how far a simplified outline may lie from the exact one"}),
    Operation("GET", "/api/openapi.json", get_openapi, "This description"),
)  # fmt: skip
