"""The application behind a socket."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote

import uvicorn
from starlette.routing import BaseRoute

from trtseg.runtime.segmenter import Segmenter
from trtseg.serve.folder import Folder
from trtseg.serve.http.app import create_app
from trtseg.serve.limits import Limits
from trtseg.serve.workspace import Workspace

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
USUAL_SIZE = (960, 1280)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        OSError: the address is not to be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise OSError(f"{host}:{port}: {error.strerror or error}") from None
    return listener


def serve(
    segmenter: Segmenter,
    listener: socket.socket,
    *,
    state: Path,
    limits: Limits,
    token: str | None = None,
    names: Iterable[str] = (),
    more: Callable[[Workspace], Iterable[BaseRoute]] = lambda workspace: (),
    ready: Callable[[Workspace, str], None] = lambda workspace, url: None,
) -> None:
    """Serve until interrupted.

    Args:
        segmenter: the model.
        listener: see `bind`.
        state: the folder with the work.
        limits: what requests may take.
        token: for the URL; a random one by default.
        names: under which others reach this machine, beside the loopback's.
        more: makes further routes, for annotation tools and studies.
        ready: called with the workspace and the page's URL before the first request is read.

    Raises:
        OSError: the state folder cannot be used.
    """
    token = token or secrets.token_urlsafe(24)
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    shown = f"[{host}]" if ":" in host else host
    reached = (*LOOPBACK, shown, *names)
    # a name that was given may stand for a proxy, which has a port of its own; browsers omit 80
    hosts = [*(reached if port == 80 else names), *(f"{name}:{port}" for name in reached)]
    folder = Folder(state)
    with folder.held():
        workspace = Workspace(segmenter, folder, limits)
        segmenter.warm_up(*USUAL_SIZE)
        app = create_app(workspace, token=token, hosts=hosts, more=more(workspace))
        # no access log: addresses carry the token
        config = uvicorn.Config(
            app, access_log=False, log_level="warning", ws="auto",
            ws_max_size=limits.json_bytes, limit_concurrency=limits.connections * 2,
            timeout_keep_alive=30, server_header=False, lifespan="off",
            timeout_graceful_shutdown=3,
        )  # fmt: skip
        # all that is imported is by now: Python may lose a Ctrl-C that comes during an import
        config.load()
        ready(workspace, f"http://{shown}:{port}/?token={quote(token, safe='')}")
        uvicorn.Server(config).run(sockets=[listener])
