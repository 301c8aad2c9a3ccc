"""The study over HTTP."""

from __future__ import annotations

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from trtseg.serve import answers
from trtseg.serve.http.api import read_body
from trtseg.serve.refusals import NotFound
from trtseg.serve.users.study import UserStudy
from trtseg.types import Click

_PERSON = "/api/study/participants/{participant}"


def routes(study: UserStudy) -> list[BaseRoute]:
    """The addresses that the study's page asks."""

    async def begin(request: Request) -> Response:
        key = await run_in_threadpool(study.begin)
        return JSONResponse({"participant": key}, status_code=201)

    async def state(request: Request) -> Response:
        return await told(study.state, request)

    async def click(request: Request) -> Response:
        value = await read_body(request, {"x", "y", "positive"})
        try:
            one = Click(value["x"], value["y"], value.get("positive", True))
        except KeyError as error:
            raise ValueError(f"click: {error} is missing") from None
        return await told(study.click, request, one)

    async def following(request: Request) -> Response:
        return await told(study.next, request)

    async def questions(request: Request) -> Response:
        given = (await read_body(request, {"answers"})).get("answers")
        if not isinstance(given, list):
            raise ValueError("answers: expected a list")
        return await told(study.answer, request, given)

    async def photo(request: Request) -> Response:
        text = request.path_params["index"]
        if not text.isdecimal() or int(text) >= len(study.images):
            raise NotFound("there is no such photo")
        file = await run_in_threadpool(answers.display, study.images[int(text)])
        return Response(file.data, media_type=file.media_type)

    async def told(ask: Any, request: Request, *arguments: Any) -> Response:
        key = request.path_params["participant"]
        return JSONResponse(await run_in_threadpool(ask, key, *arguments))

    return [
        Route("/api/study/participants", begin, methods=["POST"]),
        Route(_PERSON, state),
        Route(f"{_PERSON}/clicks", click, methods=["POST"]),
        Route(f"{_PERSON}/next", following, methods=["POST"]),
        Route(f"{_PERSON}/answers", questions, methods=["POST"]),
        Route("/api/study/photos/{index}", photo),
    ]
