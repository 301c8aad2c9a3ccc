"""CVAT's interactor: what its serverless function answers."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trtseg.serve.http.api import read_body
from trtseg.serve.prompts import Prompt
from trtseg.serve.tools import prompted
from trtseg.serve.workspace import Workspace

NAME = "CVAT"


def routes(workspace: Workspace) -> list[Route]:
    """`POST /cvat`, for a function that hands its event on to this server."""

    async def interact(request: Request) -> Response:
        value = await read_body(request)
        return JSONResponse(await run_in_threadpool(answer, workspace, value))

    return [Route("/cvat", interact, methods=["POST"])]


def answer(workspace: Workspace, event: dict[str, Any]) -> dict[str, Any]:
    """The longest outline and the mask for an event's `image`, `pos_points`, `neg_points`, and
    `obj_bbox`.

    Raises:
        ValueError: a point is none, or there is none.
        Refusal, EngineError: see `Workspace.prompt`.
    """
    photo = prompted.photo_of(workspace, event.get("image"), NAME)
    said: list[Prompt] = []
    corners = event.get("obj_bbox") or []
    if corners:
        (x0, y0), (x1, y1) = _points(corners, "obj_bbox")[:2]
        said.append(prompted.box(photo, x0, y0, x1, y1))
    for name, positive in (("pos_points", True), ("neg_points", False)):
        points = _points(event.get(name) or [], name)
        said += [prompted.click(photo, x, y, positive) for x, y in points]
    if not said:
        raise ValueError("pos_points: expected at least one point")
    before = [one for one in workspace.photo(photo.id).objects if one.name == NAME]
    if before:
        said = prompted.in_order(before[0].said, said)
    prediction = workspace.revise(photo.id, NAME, said).prediction
    parts = prediction.polygons()
    outline = (parts[0].outline + 0.5).tolist() if parts else []
    return {"points": outline, "mask": (prediction.mask // 255).tolist()}


def _points(value: Any, name: str) -> list[tuple[Any, Any]]:
    good = isinstance(value, list) and all(isinstance(p, list) and len(p) == 2 for p in value)
    if not good or (name == "obj_bbox" and len(value) != 2):
        raise ValueError(f"{name}: expected points [x, y], got {value!r}")
    return [(x, y) for x, y in value]
