"""A server on a thread of this process, and a small client."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterable
from time import monotonic, sleep
from typing import Any

import uvicorn
from starlette.routing import BaseRoute

from trtseg.serve.http.app import create_app
from trtseg.serve.http.server import LOOPBACK, bind
from trtseg.serve.workspace import Workspace

TOKEN = "a-token-for-the-tests"


class Client:
    """Speaks to a server; `status`, `headers` and `data` are those of the last answer."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.status, self.data = 0, b""
        self.headers: dict[str, str] = {}

    def __call__(
        self, method: str, path: str, body: Any = None, *, token: str | None = TOKEN,
        headers: dict[str, str] | None = None,
    ) -> Any:  # fmt: skip
        """One request; its JSON, or bytes where it is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            sent = dict(headers or {})
            if token is not None:
                sent.setdefault("Authorization", f"Bearer {token}")
            data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            self.status, self.data = answer.status, answer.read()
            self.headers = {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()
        if self.headers.get("content-type", "") == "application/json":
            return json.loads(self.data)
        return self.data


class Running:
    """A server for the length of a `with` block."""

    def __init__(
        self,
        workspace: Workspace,
        more: Callable[[Workspace], Iterable[BaseRoute]] = lambda workspace: (),
        port: int = 0,
    ) -> None:
        self.workspace = workspace
        self._listener = bind("127.0.0.1", port)
        self.port = self._listener.getsockname()[1]
        hosts = [f"{name}:{self.port}" for name in LOOPBACK]
        app = create_app(workspace, token=TOKEN, hosts=hosts, more=more(workspace))
        config = uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}, daemon=True
        )

    @property
    def url(self) -> str:
        """Of the page."""
        return f"http://127.0.0.1:{self.port}/?token={TOKEN}"

    def client(self) -> Client:
        """A client of its own."""
        return Client(self.port)

    def __enter__(self) -> Running:
        self._thread.start()
        until = monotonic() + 10
        while not self._server.started:
            assert monotonic() < until, "the server did not start"
            sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._listener.close()
