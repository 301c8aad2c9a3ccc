"""A real Label Studio: a project with a photo, the server connected, smart clicks as its page sends
them, the answer saved as an annotation and exported.

    pip install label-studio        # best in an environment of its own
    export TRTSEG_LABEL_STUDIO=/path/to/label-studio
    python -m pytest tests/integrations/test_label_studio.py

Skips without that program.
"""

from __future__ import annotations

import http.cookiejar
import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest

import trtseg
from trtseg import Click, Segmenter

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from serve.running import TOKEN, Running

from trtseg.serve.folder import Folder
from trtseg.serve.limits import Limits
from trtseg.serve.tools import label_studio
from trtseg.serve.workspace import Workspace

PROGRAM = os.environ.get("TRTSEG_LABEL_STUDIO") or shutil.which("label-studio")
PHOTO = Path(trtseg.__file__).parent / "data" / "coffee.jpg"
CUP, TABLE = (277, 215), (60, 60)  # pixels (x, y)
START_S = 180  # it makes its database first
USER = {"email": "somebody@example.com", "password": "a-password-of-theirs"}
CONFIG = """
<View>
  <Image name="image" value="$image" zoom="true"/>
  <BrushLabels name="brush" toName="image"><Label value="Cup" background="#3ea6ff"/></BrushLabels>
  <KeyPointLabels name="click" toName="image" smart="true"><Label value="Cup"/></KeyPointLabels>
  <RectangleLabels name="box" toName="image" smart="true"><Label value="Cup"/></RectangleLabels>
</View>"""

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="label-studio is not installed")


class Studio:
    """A person who has signed in to a running Label Studio."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._cookies = http.cookiejar.CookieJar()
        keep = urllib.request.HTTPCookieProcessor(self._cookies)
        self._opener = urllib.request.build_opener(keep)
        self._send("/user/login/")
        form = {**USER, "csrfmiddlewaretoken": self._crumb()}
        self._send("/user/login/", urllib.parse.urlencode(form).encode(), {})

    def _crumb(self) -> str:
        return next(one.value or "" for one in self._cookies if one.name == "csrftoken")

    def _send(self, path: str, body: bytes | None = None, headers: Any = None) -> bytes:
        sent = {"Referer": self.url, **(headers or {})}
        request = urllib.request.Request(self.url + path, body, sent)
        try:
            with self._opener.open(request, timeout=60) as answer:
                found: bytes = answer.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.code} {error.read()[:500]!r}") from None
        return found

    def __call__(self, path: str, value: Any = None) -> Any:
        """A request of its page: GET, or POST of JSON."""
        headers = {"X-CSRFToken": self._crumb(), "Content-Type": "application/json"}
        body = None if value is None else json.dumps(value).encode()
        return json.loads(self._send(path, body, headers))

    def upload(self, project: int, file: Path) -> None:
        """Import a photo, as its page does."""
        edge = "a-boundary-between-parts"
        head = (
            f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"'
            "\r\nContent-Type: image/jpeg\r\n\r\n"
        )
        body = head.encode() + file.read_bytes() + f"\r\n--{edge}--\r\n".encode()
        headers = {
            "X-CSRFToken": self._crumb(),
            "Content-Type": f"multipart/form-data; boundary={edge}",
        }
        self._send(f"/api/projects/{project}/import", body, headers)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("label-studio")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    started = [
        str(PROGRAM), "start", "--no-browser", "--port", str(port), "--data-dir", str(folder),
        "--username", USER["email"], "--password", USER["password"],
    ]  # fmt: skip
    # neither reports to its makers nor this process's environment for Python
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment = {
        **kept, "COLLECT_ANALYTICS": "0", "LATEST_VERSION_CHECK": "0", "SENTRY_DSN": "",
        "HOME": str(folder),
        "USE_DEFAULT_BANNED_SUBNETS": "false",  # or it refuses a model on its own machine
    }  # fmt: skip
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            started, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        until = monotonic() + START_S
        while True:
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            assert monotonic() < until, (folder / "log").read_text()[-2000:]
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).read()
                break
            except OSError:
                sleep(0.5)
        yield Studio(url)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def click(at: tuple[int, int], positive: bool, size: tuple[int, int]) -> dict[str, Any]:
    """A smart key point in the middle of a pixel, as the page puts it into its context."""
    height, width = size
    value = {
        "x": (at[0] + 0.5) / width * 100, "y": (at[1] + 0.5) / height * 100, "width": 0.5,
        "keypointlabels": ["Cup"],
    }  # fmt: skip
    return {
        "id": f"{at}", "type": "keypointlabels", "from_name": "click", "to_name": "image",
        "original_width": width, "original_height": height, "image_rotation": 0,
        "is_positive": positive, "value": value,
    }  # fmt: skip


def test_smart_clicks_become_an_annotation(studio: Studio, tmp_path: Path) -> None:
    key = studio("/api/token/", {})["token"]
    segmenter = Segmenter.load("lite")
    workspace = Workspace(segmenter, Folder(tmp_path / "state"), Limits())
    alone = workspace.add_photo(PHOTO.read_bytes(), PHOTO.name)
    size = alone.height, alone.width
    with Running(workspace, lambda w: label_studio.routes(w, studio.url, key)) as running:
        project = studio("/api/projects/", {"title": "Cups", "label_config": CONFIG})["id"]
        studio.upload(project, PHOTO)
        (task,) = studio(f"/api/tasks/?project={project}")["tasks"]
        backend = studio(
            "/api/ml/",
            {
                "project": project, "title": "trtseg", "is_interactive": True,
                "url": f"http://127.0.0.1:{running.port}/label-studio",
                "auth_method": "BASIC_AUTH", "basic_auth_user": "any", "basic_auth_pass": TOKEN,
            },
        )  # fmt: skip
        assert backend["state"] == "CO", "connected"
        said: list[dict[str, Any]] = []
        for at, positive in ((CUP, True), (TABLE, False)):
            said.append(click(at, positive, size))
            answer = studio(
                f"/api/ml/{backend['id']}/interactive-annotating",
                {"task": task["id"], "context": {"result": said}},
            )
            assert "errors" not in answer, answer
            (region,) = answer["data"]["result"]
            assert (region["from_name"], region["type"]) == ("brush", "brushlabels")
        annotation = studio(f"/api/tasks/{task['id']}/annotations/", {"result": [region]})
        (exported,) = studio(f"/api/projects/{project}/export?exportType=JSON")
        (kept,) = exported["annotations"]
        assert kept["id"] == annotation["id"]
        rle = kept["result"][0]["value"]["rle"]
        p = workspace.revise(alone.id, "alone", [Click(*CUP), Click(*TABLE, False)]).prediction
        assert p.mask.any()
        np.testing.assert_array_equal(decoded(rle, size), p.mask)


def decoded(rle: list[int], size: tuple[int, int]) -> np.ndarray:
    """The brush's mask, by the decoder of the installed label-studio-converter."""
    assert PROGRAM is not None
    python = Path(PROGRAM).resolve().with_name("python")
    program = (
        "import json, sys\n"
        "from label_studio_sdk.converter.brush import decode_rle\n"
        "sys.stdout.buffer.write(bytes(decode_rle(json.load(sys.stdin))[3::4]))"
    )
    done = subprocess.run(
        [python, "-c", program], input=json.dumps(rle).encode(), capture_output=True, check=True
    )
    return np.frombuffer(done.stdout, np.uint8).reshape(size)
