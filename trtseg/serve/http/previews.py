"""Previews over a WebSocket: only the newest is answered, so that a stale hover never queues."""

from __future__ import annotations

import json
from typing import Any

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocket, WebSocketDisconnect

from trtseg.errors import TrtsegError
from trtseg.serve.answers import preview_json
from trtseg.serve.workspace import Workspace
from trtseg.types import Click

_AGAIN_S = 0.03  # others' clicks go first; then ask again, if nothing newer has come


async def preview(websocket: WebSocket) -> None:
    """Answer {"id", "x", "y", "positive"} with {"id", "rle", "total_ms"} or {"id", "error"}."""
    await websocket.accept()
    waiting: list[Any] = []
    came = anyio.Event()

    async def read(group: anyio.abc.TaskGroup) -> None:
        try:
            while True:
                waiting[:] = [await websocket.receive_text()]
                came.set()
        except (WebSocketDisconnect, KeyError):  # the latter: it sent bytes, which is no question
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(read, group)
        while True:
            await came.wait()
            came = anyio.Event()
            text = waiting.pop()
            answer = await _answer(websocket, text)
            if answer is not None:
                try:
                    await websocket.send_text(json.dumps(answer))
                except (WebSocketDisconnect, RuntimeError):  # it has gone meanwhile
                    group.cancel_scope.cancel()
            elif not waiting:
                await anyio.sleep(_AGAIN_S)
                if not waiting:
                    waiting.append(text)
                came.set()


async def _answer(websocket: WebSocket, text: str) -> dict[str, Any] | None:
    workspace: Workspace = websocket.app.state.workspace
    key, object_id = websocket.path_params["photo"], websocket.path_params["object"]
    number = None

    def make(click: Click) -> dict[str, Any] | None:
        found = workspace.preview(key, object_id, click.x, click.y, click.positive)
        return None if found is None else preview_json(found)

    try:
        try:
            asked = json.loads(text)
            number = asked["id"]
            click = Click(asked["x"], asked["y"], asked.get("positive", True))
        except (TypeError, KeyError, AttributeError, RecursionError, ValueError):
            raise ValueError("expected an object with id, x, y and positive") from None
        answer = await run_in_threadpool(make, click)
    except (TrtsegError, ValueError) as error:
        return {"id": number, "error": str(error)}
    return None if answer is None else {"id": number, **answer}
