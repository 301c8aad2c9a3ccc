"""Annotation tools' own requests, answered as the Python API answers."""

from __future__ import annotations

import base64
import importlib.util
import json
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from trtseg.serve.prompts import apply
from trtseg.serve.tools import cvat, label_studio, prompted, x_anylabeling
from trtseg.serve.workspace import Workspace
from trtseg.types import Box, Click

from .conftest import picture, png
from .running import TOKEN, Running

REQUESTS = Path(__file__).parent / "requests"
INTEGRATIONS = Path(__file__).parents[2] / "integrations"


def recorded(name: str) -> Any:
    image = base64.b64encode(png(picture())).decode()
    return json.loads((REQUESTS / f"{name}.json").read_text().replace("IMAGE", image))


def expected(workspace: Workspace, *said: Any) -> Any:
    session = workspace.segmenter.session(workspace.segmenter.encode(picture()))
    for prompt in said:
        prediction = apply(session, prompt)
    return prediction


def brush_mask(rle: list[int]) -> np.ndarray:
    """Label Studio's own way to read a brush, after its JavaScript."""
    bits = np.unpackbits(np.array(rle, np.uint8))
    at = 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        return int("".join(map(str, bits[at - count : at])), 2)

    size, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    out = np.zeros(size, np.uint8)
    done = 0
    while done < size:
        run = read(1)
        end = done + 1 + read(sizes[read(2)])
        if run:
            out[done:end] = read(word)
        else:
            for index in range(done, end):
                out[index] = read(word)
        done = end
    return out.reshape(-1, 4)[:, 3]


@pytest.mark.parametrize("kind", ["empty", "full", "long", "random"])
def test_brush_masks_are_read_as_they_were(kind: str) -> None:
    mask = np.zeros((150, 300), np.uint8)
    if kind == "full":
        mask[:] = 255
    elif kind == "long":
        mask[:110] = 255  # more than 65,536 words in one run
    elif kind == "random":
        mask = (np.random.default_rng(0).random((20, 30)) > 0.5).astype(np.uint8) * 255
    rle = label_studio.brush_rle(mask)
    np.testing.assert_array_equal(brush_mask(rle), mask.ravel())
    try:
        from label_studio_sdk.converter import brush
    except ImportError:
        return
    np.testing.assert_array_equal(brush.decode_rle(rle).reshape(-1, 4)[:, 3], mask.ravel())


PERSONAL = "header.payload.signature"


class Images(BaseHTTPRequestHandler):
    """A Label Studio that gives images to who has its key, a personal one or one of old.

    A personal key is exchanged for an access token, which is good for one image here.
    """

    access: str = ""
    renewals: int = 0

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        good = self.path == "/api/token/refresh/" and sent == {"refresh": PERSONAL}
        if good:
            Images.renewals += 1
            Images.access = f"access-{Images.renewals}"
        self.send_response(200 if good else 401)
        self.end_headers()
        self.wfile.write(json.dumps({"access": Images.access} if good else {}).encode())

    def do_GET(self) -> None:
        given = self.headers["Authorization"]
        good = given == "Token the-key"
        if Images.access and given == f"Bearer {Images.access}":
            good, Images.access = True, ""
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/data/upload/1/3f2a-waves.png")
            self.end_headers()
            return
        self.send_response(200 if good else 401)
        self.end_headers()
        self.wfile.write(png(picture()) if good else b"")

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def studio():
    server = HTTPServer(("127.0.0.1", 0), Images)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("key", ["the-key", PERSONAL])
def test_label_studio(workspace: Workspace, studio: str, key: str) -> None:
    def routes(workspace: Workspace) -> Any:
        return label_studio.routes(workspace, studio, key)

    with Running(workspace, routes) as running:
        client = running.client()
        password = base64.b64encode(f"any:{TOKEN}".encode()).decode()
        basic = {"Authorization": f"Basic {password}"}
        assert client("GET", "/label-studio/health", headers=basic)["status"] == "UP"
        setup = {"project": "1.17", "schema": "<View/>", "hostname": studio, "access_token": "x"}
        assert "model_version" in client("POST", "/label-studio/setup", setup, headers=basic)
        request = recorded("label_studio")
        answer = client("POST", "/label-studio/predict", request, headers=basic)
        p = expected(workspace, Click(80, 60), Click(20, 20, False))
        (region,) = answer["results"][0]["result"]
        np.testing.assert_array_equal(brush_mask(region["value"]["rle"]), p.mask.ravel())
        assert region["value"]["brushlabels"] == ["Banana"]
        assert (region["from_name"], region["to_name"]) == ("tag", "image")
        assert answer["results"][0]["score"] == pytest.approx(float(p.scores[p.selected]))
        # an access token that has expired is renewed
        again = client("POST", "/label-studio/predict", request, headers=basic)
        assert again["results"][0]["result"][0]["value"] == region["value"]
        request["params"]["context"] = {}
        assert client("POST", "/label-studio/predict", request)["results"] == []


@pytest.mark.parametrize(
    "place",
    ["http://evil.example/x.png", "file:///etc/passwd", "//evil.example/x", "/moved", "/secret",
     "/private", "data:image/png;base64,!!!", "http://127.0.0.1:1/x.png"],
)  # fmt: skip
def test_images_from_elsewhere_are_not_fetched(
    workspace: Workspace, studio: str, place: str
) -> None:
    key = {"/secret": "wrong", "/private": "no.such.key"}.get(place, "the-key")
    with Running(workspace, lambda w: label_studio.routes(w, studio, key)) as running:
        client = running.client()
        request = recorded("label_studio")
        request["tasks"][0]["data"]["image"] = place
        told = client("POST", "/label-studio/predict", request)
        assert client.status == 415, told


def test_x_anylabeling(workspace: Workspace) -> None:
    with Running(workspace, x_anylabeling.routes) as running:
        client = running.client()
        token = {"Token": TOKEN}
        models = client("GET", "/v1/models", token=None, headers=token)["data"]
        assert {widget["name"] for widget in models["trtseg"]["widgets"]} >= {"button_add_point"}
        answer = client("POST", "/v1/predict", recorded("x_anylabeling"), token=None, headers=token)
        p = expected(
            workspace, Box(30, 30, 110, 90), Click(80, 60), Click(20, 20, False)
        )
        assert answer["success"]
        drawn = np.zeros((120, 160), np.uint8)
        for shape in answer["data"]["shapes"]:
            assert shape["points"][0] == shape["points"][-1]
            cv2.fillPoly(drawn, [np.int32(np.floor(shape["points"]))], 255)
        filled = np.zeros_like(drawn)  # a polygon of this tool has no holes
        outer = cv2.findContours(p.mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        cv2.drawContours(filled, outer, -1, 255, cv2.FILLED)
        assert np.mean(drawn != filled) < 0.01
        for wrong in ({}, {"image": 5}, {"image": "data:,x"}, {"params": 7}):
            told = client("POST", "/v1/predict", {**recorded("x_anylabeling"), **wrong}
                          if wrong else {})  # fmt: skip
            assert client.status == 200
            assert not told["success"]
            assert "expected" in told["error"]["message"]


def load_function() -> Any:
    spec = importlib.util.spec_from_file_location("cvat_main", INTEGRATIONS / "cvat" / "main.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cvat_s_function(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRTSEG_MODEL", str(workspace.segmenter.bundle.path))
    function = load_function()
    context = SimpleNamespace(user_data=SimpleNamespace(), Response=SimpleNamespace)
    function.init_context(context)
    event = recorded("cvat")
    answer = function.handler(context, SimpleNamespace(body=event))
    assert answer.status_code == 200
    p = expected(workspace, Click(80, 60), Click(100, 70), Click(20, 20, False))
    body = json.loads(answer.body)
    np.testing.assert_array_equal(np.array(body["mask"]) * 255, p.mask)
    np.testing.assert_array_equal(np.array(body["points"]) - 0.5, p.polygons()[0].outline)
    bad = function.handler(context, SimpleNamespace(body={"image": event["image"]}))
    assert bad.status_code == 400
    assert "pos_points" in json.loads(bad.body)["error"]


def test_cvat_s_function_in_nuclio_s_own_types(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the function's runtime calls the handler with, decoded by its own package."""
    sdk = pytest.importorskip("nuclio_sdk")
    from nuclio_sdk.event import EventDeserializerKinds

    monkeypatch.setenv("TRTSEG_MODEL", str(workspace.segmenter.bundle.path))
    function = load_function()
    context = sdk.Context()
    function.init_context(context)
    sent = {
        "body": json.dumps(recorded("cvat")).encode(), "content_type": "application/json",
        "trigger": {"kind": "http", "name": "http"}, "fields": {}, "headers": {}, "id": "1",
        "method": "POST", "path": "/", "size": 1, "timestamp": 0, "url": "/", "shard_id": 0,
        "num_shards": 1, "type": "", "type_version": "", "version": "",
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its own, of the time
        event = sdk.Event.deserialize(sent, EventDeserializerKinds.msgpack)
    answer = function.handler(context, event)
    assert isinstance(answer, sdk.Response)
    assert (answer.status_code, answer.content_type) == (200, "application/json")
    p = expected(workspace, Click(80, 60), Click(100, 70), Click(20, 20, False))
    np.testing.assert_array_equal(np.array(json.loads(answer.body)["mask"]) * 255, p.mask)


def test_cvat_keeps_the_order_of_clicks(workspace: Workspace) -> None:
    event = recorded("cvat")
    first, second = event["pos_points"]
    (third,) = event["neg_points"]
    for pos, neg in (([first], []), ([first], [third]), ([first, second], [third])):
        found = cvat.answer(workspace, {**event, "pos_points": pos, "neg_points": neg})
    p = expected(workspace, Click(80, 60), Click(20, 20, False), Click(100, 70))
    np.testing.assert_array_equal(np.array(found["mask"]) * 255, p.mask)
    found = cvat.answer(workspace, {**event, "pos_points": [second], "neg_points": []})
    p = expected(workspace, Click(100, 70))
    np.testing.assert_array_equal(np.array(found["mask"]) * 255, p.mask)
    boxed = {**event, "pos_points": [], "neg_points": [], "obj_bbox": [[110.5, 90.5], [30.5, 30.5]]}
    found = cvat.answer(workspace, boxed)
    p = expected(workspace, Box(30, 30, 110, 90))
    np.testing.assert_array_equal(np.array(found["mask"]) * 255, p.mask)


def test_only_new_prompts_run(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = workspace.add_photo(png(picture()), "x").id
    runs = []
    click = workspace.segmenter.pipeline.click
    monkeypatch.setattr(
        workspace.segmenter.pipeline, "click", lambda *a, **k: runs.append(1) or click(*a, **k)
    )
    said = [Click(80, 60), Click(20, 20, False), Click(90, 70)]
    for count in (1, 2, 3, 3):
        workspace.revise(photo, "tool", said[:count])
    assert len(runs) == 3
    assert [one.name for one in workspace.photo(photo).objects] == ["tool"]


def test_order_is_kept_as_far_as_it_goes() -> None:
    a, b, c = Click(1, 1), Click(2, 2, False), Click(3, 3)
    assert prompted.in_order([a, b], [a, c, b]) == [a, b, c]
    assert prompted.in_order([a, b], [c, b]) == [c, b]
    assert prompted.in_order([], [c, b]) == [c, b]
    assert prompted.in_order([a, a], [a]) == [a]
