from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from trtseg import Segmenter
from trtseg.serve.http import server
from trtseg.serve.http.api import OPERATIONS
from trtseg.serve.limits import Limits
from trtseg.serve.workspace import Workspace

from .conftest import picture, png
from .running import TOKEN, Client, Running

# pycocotools speaks an older protocol of NumPy's
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def begin(client: Client, seed: int = 0) -> tuple[str, str]:
    photo = client("POST", "/api/photos?name=cup.png", png(picture(seed)))["id"]
    assert client.status == 201
    one = client("POST", f"/api/photos/{photo}/objects", {})["id"]
    assert client.status == 201
    return photo, f"/api/photos/{photo}/objects/{one}"


def session_of(workspace: Workspace):
    return workspace.segmenter.session(workspace.segmenter.encode(picture()))


def test_a_whole_visit_equals_the_python_api(client: Client, workspace: Workspace) -> None:
    photo, one = begin(client)
    session = session_of(workspace)
    client("POST", f"{one}/prompts", {"type": "click", "x": 80, "y": 60})
    answer = client("POST", f"{one}/prompts", {"type": "click", "x": 20, "y": 20,
                                               "positive": False})  # fmt: skip
    session.add_click(80, 60)
    p = session.add_click(20, 20, False)
    np.testing.assert_array_equal(coco.decode(answer["rle"]) * 255, p.mask)
    assert answer["selected"] == p.selected
    assert answer["box"] == list(p.box)
    assert answer["clicks"] == [
        {"x": 80, "y": 60, "positive": True}, {"x": 20, "y": 20, "positive": False},
    ]  # fmt: skip
    assert [c["score"] for c in answer["candidates"]["masks"]] == pytest.approx(list(p.scores))
    assert answer["timing"]["total_ms"] > 0
    assert (answer["can_undo"], answer["can_redo"]) == (True, False)

    flat = np.frombuffer(client("GET", f"{one}/mask.png"), np.uint8)
    assert client.headers["content-disposition"] == 'attachment; filename="Object-1-mask.png"'
    np.testing.assert_array_equal(cv2.imdecode(flat, cv2.IMREAD_UNCHANGED), p.mask)
    for soft in (False, True):
        flat = np.frombuffer(client("GET", f"{one}/cutout.png?soft={int(soft)}"), np.uint8)
        rgba = cv2.cvtColor(cv2.imdecode(flat, cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
        np.testing.assert_array_equal(rgba, p.cutout(soft=soft))
    assert client("GET", f"{one}/rle") == p.rle()
    found = client("GET", f"{one}/polygons?tolerance_px=2")["polygons"]
    assert [part["outline"] for part in found] == [
        part.outline.tolist() for part in p.polygons(2.0)
    ]
    undone = client("POST", f"{one}/undo")
    np.testing.assert_array_equal(coco.decode(undone["rle"]) * 255, session.undo().mask)
    np.testing.assert_array_equal(
        coco.decode(client("POST", f"{one}/redo")["rle"]) * 255, session.redo().mask
    )
    assert not coco.decode(client("POST", f"{one}/reset")["rle"]).any()
    assert client("GET", "/api/photos")["photos"][0]["id"] == photo


def test_objects_have_names_and_colours(client: Client) -> None:
    photo, one = begin(client)
    second = client("POST", f"/api/photos/{photo}/objects", {"name": "saucer"})
    assert second["name"] == "saucer"
    first = client("GET", f"/api/photos/{photo}")["objects"][0]
    assert first["name"] == "Object 1"
    assert first["colour"] != second["colour"]
    changed = client("PATCH", one, {"name": "cup", "colour": "#102030"})
    assert (changed["name"], changed["colour"]) == ("cup", "#102030")
    client("DELETE", one)
    assert client.status == 204
    client("GET", one)
    assert client.status == 404


def test_coco_s_own_tools_read_what_is_exported(client: Client, tmp_path) -> None:
    from pycocotools.coco import COCO

    photo, one = begin(client)
    client("POST", f"{one}/prompts", {"type": "click", "x": 80, "y": 60})
    client("POST", f"/api/photos/{photo}/objects", {"name": "never clicked"})
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(client("GET", f"/api/photos/{photo}/coco")))
    data = COCO(path)
    (annotation,) = data.loadAnns(data.getAnnIds())
    wanted = coco.decode(client("GET", f"{one}/rle"))
    np.testing.assert_array_equal(data.annToMask(annotation), wanted)
    assert annotation["area"] == wanted.sum()


def test_the_image_is_shown_upright(client: Client) -> None:
    photo, _ = begin(client)
    shown = cv2.imdecode(np.frombuffer(client("GET", f"/api/photos/{photo}/image"), np.uint8), 1)
    assert client.headers["content-type"] == "image/jpeg"
    assert np.abs(shown[..., ::-1].astype(int) - picture()).mean() < 4  # JPEG of quality 93
    small = client("GET", f"/api/photos/{photo}/thumbnail")
    assert cv2.imdecode(np.frombuffer(small, np.uint8), 1).shape == (120, 160, 3)
    rgba = np.dstack((picture(), np.full((120, 160), 90, np.uint8)))
    key = client("POST", "/api/photos", cv2.imencode(".png", rgba)[1].tobytes())["id"]
    shown = np.frombuffer(client("GET", f"/api/photos/{key}/image"), np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(shown, cv2.IMREAD_UNCHANGED), rgba)


BAD = [
    (b"", 400), (b"{", 400), (b"[]", 400), (b"null", 400), (b"\xff\xfe", 400),
    (b"[" * 100_000, 400), ({}, 400), ({"type": "melt"}, 400), ({"type": ["click"]}, 400),
    ({"type": "click"}, 400), ({"type": "click", "x": "1", "y": 2}, 400),
    ({"type": "click", "x": 1, "y": 2, "z": 3}, 400), ({"type": "click", "x": 1e9, "y": 2}, 400),
    (b'{"type": "click", "x": NaN, "y": 2}', 400), (b'{"type": "click", "x": 1e999, "y": 2}', 400),
    ({"type": "click", "x": True, "y": 2}, 400), ({"type": "box", "x0": 5, "y0": 5, "x1": 5,
                                                   "y1": 9}, 400),
    ({"type": "stroke", "points": []}, 400), ({"type": "stroke", "points": [[1]]}, 400),
    ({"type": "stroke", "points": [[1, 1]], "radius_px": -1}, 400),
    ({"type": "lasso", "points": [[1, 1], [2, 2]]}, 400), ({"type": "select", "index": 99}, 400),
    ({"type": "select", "index": 0.5}, 400), ({"type": "mask", "size": [1, 1], "counts": "1"}, 400),
    ({"type": "mask", "size": [120, 160], "counts": "oo"}, 400),
    ({"type": "stroke", "points": [[1, 1]] * 5000}, 413),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status"), BAD, ids=[str(body)[:40] for body, _ in BAD])
def test_bad_prompts_are_told_in_words(client: Client, body: object, status: int) -> None:
    _, one = begin(client)
    before = client("POST", f"{one}/prompts", {"type": "click", "x": 80, "y": 60})
    told = client("POST", f"{one}/prompts", body)
    assert client.status == status
    assert len(told["error"]) > 10
    assert client("GET", one)["rle"] == before["rle"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/photos/../../etc/passwd", 404), ("GET", "/api/photos/%2e%2e%2f", 404),
        ("GET", "/api/photos/%00", 404), ("GET", "/page/../app.py", 404),
        ("GET", "/page/%2e%2e/app.py", 404), ("GET", "/page/..%2fapp.py", 404),
        ("GET", "/page//etc/passwd", 404), ("GET", "/nothing", 404), ("PUT", "/api/photos", 405),
        ("DELETE", "/api/photos/" + "0" * 32, 404),
        ("GET", "/api/photos/" + "0" * 32 + "/image", 404),
    ],
)  # fmt: skip
def test_paths_that_lead_nowhere(client: Client, method: str, path: str, status: int) -> None:
    told = client(method, path)
    assert client.status == status
    assert isinstance(told, bytes) or "error" in told


def test_without_the_token_the_api_says_nothing(client: Client) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic !"}):
        for one in OPERATIONS:
            path = one.path.format(photo="0" * 32, object="0" * 16)
            client(one.method, path, headers=headers, token=None)
            assert client.status == 401, (one, headers)
    assert b"<html" in client("GET", "/", token=None)
    assert client.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Token {TOKEN}"}, {"Token": TOKEN},
        {"Authorization": "Basic dXNlcjphLXRva2VuLWZvci10aGUtdGVzdHM="},
    ],
)  # fmt: skip
def test_tools_may_carry_the_token_their_way(client: Client, headers: dict[str, str]) -> None:
    client("GET", "/api/about", token=None, headers=headers)
    assert client.status == 200
    client("GET", f"/api/about?token={TOKEN}", token=None)
    assert client.status == 200


def test_other_sites_and_other_names_are_refused(client: Client) -> None:
    port = client.port
    for headers, status in (
        ({"Host": "evil.example"}, 421), ({"Host": f"evil.example:{port}"}, 421),
        ({"Host": "127.0.0.1"}, 421), ({"Host": ""}, 421),
        ({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403),
        ({"Origin": f"http://127.0.0.1:{port + 1}"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403), ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": f"http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Host": f"LOCALHOST:{port}"}, 200),
    ):  # fmt: skip
        client("GET", "/api/about", headers=headers)
        assert client.status == status, headers


class _Served(Exception):
    """Enough is known: nothing needs to be served."""


def served(
    segmenter: Segmenter, state: Path, monkeypatch: pytest.MonkeyPatch, port: int, token: str
) -> tuple[set[str], str]:
    """The names that `serve` answers to, and the page's URL."""
    hosts: set[str] = set()
    made = server.create_app

    def noted(*args: Any, **options: Any) -> Any:
        hosts.update(options["hosts"])
        return made(*args, **options)

    def ready(workspace: Workspace, url: str) -> None:
        raise _Served(url)

    monkeypatch.setattr(server, "create_app", noted)
    listener = SimpleNamespace(getsockname=lambda: ("127.0.0.1", port))
    with pytest.raises(_Served) as stopped:
        server.serve(
            segmenter, listener, state=state, limits=Limits(), token=token,
            names=["me.example"], ready=ready,
        )  # fmt: skip
    return hosts, str(stopped.value)


def test_browsers_leave_out_the_usual_port(
    segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = {"127.0.0.1", "localhost", "[::1]", "me.example"}
    for port, wanted in ((80, bare), (8000, {"me.example"})):
        hosts, _ = served(segmenter, tmp_path, monkeypatch, port, TOKEN)
        assert hosts == wanted | {f"{name}:{port}" for name in bare}


@pytest.mark.parametrize("token", ["ab+cd" * 4, "ab cd&x=#?/" * 2, "50%41" * 4, "möbel" * 4])
def test_any_token_survives_the_url(
    segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    _, url = served(segmenter, tmp_path, monkeypatch, 8000, token)
    parts = urlsplit(f"{url}&photo=7")
    assert parse_qs(parts.query) == {"token": [token], "photo": ["7"]}
    assert (parts.path, parts.fragment) == ("/", "")
    assert url.count("/?") == 1


def test_a_damaged_record_is_told_without_the_server_s_paths(
    client: Client, workspace: Workspace
) -> None:
    photo, _ = begin(client)
    (workspace.folder.path / photo / "record.json").write_text("{")
    workspace._live.clear()
    told = client("GET", f"/api/photos/{photo}")
    assert client.status == 400
    assert str(workspace.folder.path) not in told["error"]
    client("POST", "/api/photos?name=cup.png", png(picture()))
    assert client.status == 201
    (workspace.folder.path / photo / "record.json").write_text("{")
    workspace._live.clear()
    client("DELETE", f"/api/photos/{photo}")
    assert client.status == 204


def test_every_answer_is_locked_down(client: Client) -> None:
    for path in ("/", "/api/about", "/api/nothing", "/page/style.css"):
        client("GET", path)
        assert "default-src 'none'" in client.headers["content-security-policy"]
        assert client.headers["x-content-type-options"] == "nosniff"
        assert client.headers["referrer-policy"] == "no-referrer"
    client("GET", "/api/about")
    assert client.headers["cache-control"] == "no-store"


def test_too_much_and_too_slow(segmenter, folder) -> None:
    limits = replace(Limits(), upload_bytes=5000, json_bytes=1000, wait_s=0.3)
    with Running(Workspace(segmenter, folder, limits)) as running:
        client = running.client()
        for path, size in (("/api/photos", 5001), ("/api/photos/x/objects", 1001)):
            told = client("POST", path, b" " * size)
            assert client.status == 413
            assert "bytes" in told["error"]
        head = (
            f"POST /api/photos HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\n"
            f"Authorization: Bearer {TOKEN}\r\n"
        )
        with socket.create_connection(("127.0.0.1", running.port), 5) as slow:
            slow.sendall(f"{head}Content-Length: 4000\r\n\r\nabc".encode())
            start = monotonic()
            assert b" 408 " in slow.recv(1000)
            assert monotonic() - start < 4
        with socket.create_connection(("127.0.0.1", running.port), 5) as chunked:
            chunked.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            chunked.sendall(b"1770\r\n" + b"x" * 6000 + b"\r\n")
            assert b" 413 " in chunked.recv(1000)
        client("GET", "/api/about")
        assert client.status == 200


def test_previews_answer_the_newest_alone(client: Client, workspace: Workspace) -> None:
    _, one = begin(client)
    client("POST", f"{one}/prompts", {"type": "click", "x": 80, "y": 60})
    session = session_of(workspace)
    session.add_click(80, 60)
    wanted = session.add_click(30, 99, False).mask
    address = f"ws://127.0.0.1:{client.port}{one}/preview?token={TOKEN}"
    with connect(address) as ws:
        for number in range(50):
            ws.send(json.dumps({"id": number, "x": number, "y": 5}))
        ws.send(json.dumps({"id": 50, "x": 30, "y": 99, "positive": False}))
        seen = []
        while not seen or seen[-1] != 50:
            answer = json.loads(ws.recv(timeout=10))
            seen.append(answer["id"])
        assert seen == sorted(seen)
        assert len(seen) < 51
        np.testing.assert_array_equal(coco.decode(answer["rle"]) * 255, wanted)
        for bad in ("", "{", "7", "[]", '{"id": 1}', '{"id": 1, "x": "a", "y": 2}',
                    '{"id": 1, "x": 1e9, "y": 2}', '{"id": 1, "x": NaN, "y": 2}'):  # fmt: skip
            ws.send(bad)
            assert "expected" in json.loads(ws.recv(timeout=10))["error"]
    assert client("GET", one)["object"]["at"] == 1


def test_who_leaves_in_the_middle_hurts_nobody(client: Client, capfd) -> None:
    _, one = begin(client)
    address = f"ws://127.0.0.1:{client.port}{one}/preview?token={TOKEN}"
    for _ in range(5):
        with connect(address) as ws:
            ws.send(json.dumps({"id": 1, "x": 5, "y": 5}))
            ws.socket.close()
    with connect(address) as ws:
        ws.send(json.dumps({"id": 2, "x": 5, "y": 5}))
        assert json.loads(ws.recv(timeout=10))["id"] == 2
    assert "Traceback" not in capfd.readouterr().err


def test_previews_ask_for_the_token_too(client: Client) -> None:
    _, one = begin(client)
    address = f"ws://127.0.0.1:{client.port}{one}/preview"
    for query, origin in (("", None), ("?token=x", None), (f"?token={TOKEN}", "http://evil")):
        with pytest.raises(InvalidStatus), connect(address + query, origin=origin):
            pass
    with connect(f"{address}?token={TOKEN}") as ws:
        ws.send(b"bytes are no question")
        with pytest.raises(ConnectionClosed):
            ws.recv(timeout=10)


def test_the_description_names_every_operation(client: Client) -> None:
    document = client("GET", "/api/openapi.json")
    listed = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    assert listed == {(one.method, one.path) for one in OPERATIONS}
    kinds = document["components"]["schemas"]
    assert kinds["stroke"]["properties"]["points"] == {
        "type": "array",
        "items": {"type": "array", "prefixItems": [{"type": "number"}] * 2, "items": False},
    }
    assert kinds["click"]["required"] == ["type", "x", "y"]
