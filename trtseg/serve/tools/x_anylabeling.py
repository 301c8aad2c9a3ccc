"""X-AnyLabeling's remote server: `GET /v1/models`, `POST /v1/predict`."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trtseg.errors import TrtsegError
from trtseg.serve.http.api import read_body
from trtseg.serve.prompts import Prompt
from trtseg.serve.tools import prompted
from trtseg.serve.workspace import Answer, Workspace

NAME = "X-AnyLabeling"
WIDGETS = (
    "button_add_point", "button_remove_point", "button_add_rect", "button_clear",
    "button_finish_object", "mask_fineness_slider", "mask_fineness_value_label",
)  # fmt: skip


def routes(workspace: Workspace) -> list[Route]:
    """The tool's own addresses."""

    async def models(request: Request) -> Response:
        return JSONResponse({"success": True, "data": {"trtseg": _model(workspace)}})

    async def info(request: Request) -> Response:
        if request.path_params["model"] != "trtseg":
            return _failed("MODEL_NOT_FOUND", "expected the model trtseg")
        return JSONResponse({"success": True, "data": {"model_id": "trtseg", **_model(workspace)}})

    async def predict(request: Request) -> Response:
        try:
            value = await read_body(request)
            shapes = await run_in_threadpool(_shapes, workspace, value)
        except (TrtsegError, ValueError) as error:  # this tool looks for errors in the body
            return _failed("INFERENCE_ERROR", str(error))
        return JSONResponse({"success": True, "data": {"shapes": shapes, "description": ""}})

    return [
        Route("/v1/models", models),
        Route("/v1/models/{model}/info", info),
        Route("/v1/predict", predict, methods=["POST"]),
    ]


def _model(workspace: Workspace) -> dict[str, Any]:
    return {
        "display_name": f"trtseg ({workspace.segmenter.bundle.name})",
        "widgets": [{"name": name, "value": None} for name in WIDGETS],
        "params": {"epsilon_factor": 0.001},
        "batch_processing_mode": None,
    }


def _failed(code: str, message: str) -> Response:
    return JSONResponse({"success": False, "error": {"code": code, "message": message}})


def _shapes(workspace: Workspace, value: dict[str, Any]) -> list[dict[str, Any]]:
    photo = prompted.photo_of(workspace, value.get("image"), NAME)
    params = prompted.object_of(value.get("params"), "params")
    said: list[Prompt] = []
    for mark in prompted.objects(params.get("marks"), "marks"):
        points, kind = mark.get("data"), mark.get("type")
        if kind == "point" and isinstance(points, list) and len(points) == 2:
            said.append(prompted.click(photo, points[0], points[1], mark.get("label") == 1))
        elif kind == "rectangle" and isinstance(points, list) and len(points) == 4:
            said.append(prompted.box(photo, *points))
        else:
            raise ValueError(f"marks: expected points and rectangles, got {mark!r}")
    if not said:
        return []
    answer = workspace.revise(photo.id, NAME, said)
    fineness = params.get("epsilon_factor", 0.001)
    if isinstance(fineness, bool) or not isinstance(fineness, (int, float)):
        raise ValueError(f"epsilon_factor: expected a number, got {fineness!r}")
    return [_shape(answer, outline) for outline in _outlines(answer, float(fineness))]


def _outlines(answer: Answer, fineness: float) -> list[list[list[float]]]:
    """Outlines from pixel corners; `fineness` is a share of their length, as the tool means it."""
    box = answer.prediction.box
    length = 0 if box is None else 2 * (box[2] - box[0] + box[3] - box[1])
    parts = answer.prediction.polygons(max(0.0, min(fineness, 0.1)) * length)
    return [(part.outline + 0.5).tolist() for part in parts if len(part.outline) >= 3]


def _shape(answer: Answer, outline: list[list[float]]) -> dict[str, Any]:
    scores = answer.prediction.scores
    return {
        "label": "AUTOLABEL_OBJECT",
        "shape_type": "polygon",
        "points": [*outline, outline[0]],
        "score": float(scores[answer.prediction.selected]) if len(scores) else None,
        "attributes": {},
        "description": None,
        "difficult": False,
        "direction": 0,
        "flags": None,
        "group_id": None,
        "kie_linking": [],
    }
