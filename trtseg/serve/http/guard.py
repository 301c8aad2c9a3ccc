"""Who may speak to the server, and how much they may say."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from trtseg.serve.limits import Limits
from trtseg.serve.refusals import TooLarge, TooSlow

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Nothing but the page's own files; pictures also from its memory.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
OPEN = ("/", "/page/", "/health")  # no secret in them; the page asks the API with the token

IMAGES_IN_JSON = ("/predict", "/cvat")  # of annotation tools


class Guard:
    """ASGI middleware: Host, Origin, token, and the size and time of what comes in.

    A page of another site can make a browser send requests here. It does not know the token, its
    Origin differs, and where it gave its own name this address (DNS rebinding), the Host differs.
    """

    def __init__(self, app: Any, *, token: str, hosts: Iterable[str], limits: Limits) -> None:
        """
        Args:
            app: what is guarded.
            token: that the API asks for.
            hosts: the values of the Host header that are served, with their port.
            limits: see `Limits`.
        """
        self._app, self._token, self._limits = app, token, limits
        self._hosts = frozenset(host.lower() for host in hosts)
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _refuse(scope, receive, send, *refusal)
            return
        self._open += 1
        try:
            if scope["type"] == "http":
                receive, send = self._metered(scope, receive), _with_headers(scope, send)
            await self._app(scope, receive, send)
        finally:
            self._open -= 1

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if host not in self._hosts:
            return 421, f"this server does not answer to the name {host!r}; see --allow-host"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host:
            return 403, "requests from pages of other sites are not answered"
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return 403, "requests from pages of other sites are not answered"
        if self._open >= self._limits.connections:
            return 503, "too many requests at once"
        path = scope["path"]
        if path in OPEN or path.startswith("/page/"):
            return None
        if not any(self._is_token(one) for one in _tokens(scope, headers)):
            return 401, "the token is missing or wrong; open the link that the server printed"
        return None

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self._token.encode())

    def _limit(self, scope: Scope) -> int:
        if scope["path"] == "/api/photos":
            return self._limits.upload_bytes
        if scope["path"].endswith(IMAGES_IN_JSON):
            return self._limits.upload_bytes * 4 // 3 + self._limits.json_bytes  # base64
        return self._limits.json_bytes

    def _metered(self, scope: Scope, receive: Receive) -> Receive:
        limit = self._limit(scope)
        declared = Headers(scope=scope).get("content-length", "0")
        count = 0
        until = anyio.current_time() + self._limits.wait_s
        complete = False

        async def metered() -> MutableMapping[str, Any]:
            nonlocal count, complete
            if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
                raise TooLarge(f"the request has more than {limit} bytes")
            if complete:  # what comes now is the end of the connection, whenever that is
                return await receive()
            try:
                with anyio.fail_after(max(0.0, until - anyio.current_time())):
                    message = await receive()
            except TimeoutError:
                took = f"{self._limits.wait_s:g} s"
                raise TooSlow(f"the request did not arrive within {took}") from None
            count += len(message.get("body", b""))
            if count > limit:
                raise TooLarge(f"the request has more than {limit} bytes")
            complete = not message.get("more_body", False)
            return message

        return metered


def _tokens(scope: Scope, headers: Headers) -> Iterable[str]:
    """Where a request may carry the token: a browser cannot set headers on a WebSocket, and some
    tools know only basic authentication, or an API key."""
    query = scope.get("query_string", b"").decode("latin-1")
    yield from parse_qs(query).get("token", [])[:1]
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() in ("bearer", "token"):
        yield value
    elif kind.lower() == "basic":
        try:
            yield base64.b64decode(value, validate=True).decode("latin-1").partition(":")[2]
        except (binascii.Error, ValueError):
            return
    if "token" in headers:
        yield headers["token"]


def _with_headers(scope: Scope, send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            present = {name for name, _ in message["headers"]}
            added = [
                (name.encode(), value.encode())
                for name, value in HEADERS.items()
                if name.encode() not in present
            ]
            if b"cache-control" not in present:
                added.append((b"cache-control", b"no-store"))
            message["headers"] = [*message["headers"], *added]
        await send(message)

    return sending


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, message: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": message})
        return
    headers = {**HEADERS, "cache-control": "no-store", "connection": "close"}
    response = JSONResponse({"error": message}, status_code=status, headers=headers)
    await response(scope, receive, send)
