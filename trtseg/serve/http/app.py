"""The server as an ASGI application."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from trtseg.errors import OutOfMemory, TrtsegError
from trtseg.serve.http.api import OPERATIONS
from trtseg.serve.http.guard import Guard
from trtseg.serve.http.previews import preview
from trtseg.serve.refusals import Refusal
from trtseg.serve.workspace import Workspace

PAGE = Path(__file__).parents[1] / "page"
_log = logging.getLogger("trtseg.serve")


def create_app(
    workspace: Workspace, *, token: str, hosts: Iterable[str], more: Iterable[BaseRoute] = ()
) -> Guard:
    """The whole server.

    Args:
        workspace: the photos.
        token: that requests must carry.
        hosts: the values of the Host header that are served, with their port.
        more: routes of annotation tools and studies, behind the same guard.
    """
    routes = [
        Route("/", _index),
        Route("/health", _health),
        *(Route(one.path, one.endpoint, methods=[one.method]) for one in OPERATIONS),
        WebSocketRoute("/api/photos/{photo}/objects/{object}/preview", preview),
        *more,
        Mount("/page", StaticFiles(directory=PAGE)),
    ]
    handlers: dict[Any, Any] = {
        Refusal: _refused,
        ValueError: _wrong,
        TypeError: _wrong,
        OutOfMemory: _out_of_memory,
        MemoryError: _out_of_memory,
        TrtsegError: _failed,
        Exception: _failed,
        404: _nothing_here,
        405: _nothing_here,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    app.state.workspace = workspace
    return Guard(app, token=token, hosts=hosts, limits=workspace.limits)


async def _index(request: Request) -> Response:
    return FileResponse(PAGE / "index.html")


async def _health(request: Request) -> Response:
    return JSONResponse({"status": "UP"})


async def _refused(request: Request, error: Refusal) -> Response:
    return _told(error.status, str(error))


async def _wrong(request: Request, error: Exception) -> Response:
    return _told(400, str(error))


async def _out_of_memory(request: Request, error: Exception) -> Response:
    return _told(503, f"the server has no memory left for this: {error}")


async def _failed(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _told(500, str(error) if isinstance(error, TrtsegError) else "the server failed")


async def _nothing_here(request: Request, error: Any) -> Response:
    return _told(error.status_code, f"there is no {request.method} {request.url.path} here")


def _told(status: int, message: str) -> Response:
    headers = {"retry-after": "1"} if status == 503 else None
    return JSONResponse({"error": message}, status_code=status, headers=headers)
