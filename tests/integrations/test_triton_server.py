"""The pipeline on a real Triton server, on the CPU: the one that nvidia-pytriton brings, with its
Python backend and no other. Sequences of two clients at once, and what is wrong with a request.

    pip install nvidia-pytriton        # best in an environment of its own, of the same Python
    export TRTSEG_TRITON=/path/to/its/python
    python -m pytest tests/integrations/test_triton_server.py

Skips without it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest

import trtseg
from trtseg import Click, Segmenter, Stroke
from trtseg.cli import main
from trtseg.errors import EngineError
from trtseg.runtime.image import load_image

PHOTO = Path(trtseg.__file__).parent / "data" / "coffee.jpg"
START_S = 120
PYTHON = os.environ.get("TRTSEG_TRITON")


def packages() -> Path:
    """Where nvidia-pytriton is installed."""
    if PYTHON is None:
        pytest.skip("TRTSEG_TRITON names no Python with nvidia-pytriton")
    told = "import pytriton, sys; print(pytriton.__path__[0]); print(sys.version_info[:2])"
    done = subprocess.run([PYTHON, "-c", told], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{PYTHON}: {done.stderr.strip().splitlines()[-1]}")
    place, version = done.stdout.splitlines()
    if version != str(sys.version_info[:2]):
        pytest.skip(f"{PYTHON} is Python {version}, this is {sys.version_info[:2]}")
    return Path(place).parent


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a running server."""
    where = packages()
    server = where / "pytriton" / "tritonserver"
    folder = tmp_path_factory.mktemp("triton")
    models, backends = folder / "models", folder / "backends"
    assert main(["export-triton", "lite", str(models), "--pipeline", "--kind", "cpu"]) == 0
    for other in ("lite_encoder", "lite_segment", "lite_select"):
        shutil.rmtree(models / other)  # for a server with the backend of ONNX Runtime
    shutil.copytree(server / "backends" / "python", backends / "python")
    version = ".".join(map(str, sys.version_info[:2]))
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, backends / "python")
    libraries = [where / "nvidia_pytriton.libs", Path(sys.base_prefix) / "lib"]
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        # trtseg and what it needs, for the backend's own interpreter
        "PYTHONPATH": ":".join(filter(None, sys.path)),
    }
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        str(server / "bin" / "tritonserver"), "--model-repository", str(models),
        "--backend-directory", str(backends), "--http-port", str(port),
        "--allow-grpc", "false", "--allow-metrics", "false", "--exit-timeout-secs", "5",
    ]  # fmt: skip
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        until = monotonic() + START_S
        while True:
            assert process.poll() is None, (folder / "log").read_text()[-4000:]
            assert monotonic() < until, (folder / "log").read_text()[-4000:]
            try:
                ready = f"http://127.0.0.1:{port}/v2/models/lite_pipeline/ready"
                urllib.request.urlopen(ready, timeout=5).read()
                break
            except OSError:
                sleep(0.2)
        sys.path.append(str(where))  # of tritonclient, where it is not installed here
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
        if str(where) in sys.path:
            sys.path.remove(str(where))


def test_two_people_on_one_server(url: str) -> None:
    """In turn, each with an object of their own: as the same sessions here."""
    from trtseg.serve.triton import RemoteSession

    segmenter = Segmenter.load("lite")
    picture = load_image(PHOTO)
    encoded = segmenter.encode(picture.pixels, picture.image_format)
    here = [segmenter.session(encoded) for _ in range(2)]
    first = (Click(277, 215), Click(60, 60, False))
    second = (Stroke([(240, 215), (300, 215)]), Click(277, 180))
    data = PHOTO.read_bytes()
    with (
        RemoteSession(data, url=url, model="lite_pipeline") as one,
        RemoteSession(data, url=url, model="lite_pipeline") as two,
    ):
        for left, right in zip(first, second, strict=True):
            for there, local, prompt in ((one, here[0], left), (two, here[1], right)):
                p = local.add(prompt)
                np.testing.assert_array_equal(there.say(prompt), p.mask)
                np.testing.assert_array_equal(there.scores, p.scores.astype(np.float32))
                assert there.selected == p.selected
        with pytest.raises(EngineError, match="expected"):
            one.say(Click(10_000, 5))
        np.testing.assert_array_equal(one.say(), here[0].prediction.mask)


def test_what_is_no_image_holds_up_nobody(url: str) -> None:
    """Nor do people who leave without a word."""
    from trtseg.serve.triton import RemoteSession

    for _ in range(3):
        with pytest.raises(EngineError, match="not an image"):
            RemoteSession(b"no image at all", url=url, model="lite_pipeline")
    left = [RemoteSession(PHOTO.read_bytes(), url=url, model="lite_pipeline") for _ in range(3)]
    assert left[0].say(Click(277, 215)).any()
