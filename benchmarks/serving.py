"""The server under pages that click at once, hostile requests, and kill -9.

    python benchmarks/serving.py --json benchmarks/results/serving-cpu.json

Needs the extra `serve`. Everything runs on this machine's loopback; prints the table of
docs/serving.md.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from importlib import resources
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Any

import numpy as np

from trtseg import Segmenter
from trtseg.machine import describe
from trtseg.runtime.image import load_image
from trtseg.serve.folder import Folder

TOKEN = "the-token-of-the-benchmark"
PAGES, CLICKS = 8, 12
THINK_S = (0.5, 1.5)  # between a page's answer and its next click
HOSTILE, KILLS = 1000, 50


class Server:
    """A `trtseg serve` of its own."""

    def __init__(self, state: Path, port: int = 0) -> None:
        command = [
            sys.executable, "-m", "trtseg", "serve", "--state", str(state), "--token", TOKEN,
            "--port", str(port),
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        url = self.process.stdout.readline()
        self.port = int(url.split(":")[2].split("/")[0])

    def kill(self) -> None:
        """At once, with nothing written any more."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
            sent = {"Authorization": f"Bearer {TOKEN}", **headers}
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            found = answer.read()
        finally:
            connection.close()
        is_json = answer.getheader("content-type") == "application/json"
        return answer.status, json.loads(found) if is_json else found


def photos() -> list[bytes]:
    """The photos that ship, each in four versions that differ in a trailing byte."""
    data = resources.files("trtseg") / "data"
    shipped = [(data / name).read_bytes() for name in ("coffee.jpg", "chelsea.jpg")]
    return [shipped[index % 2] + bytes([index]) for index in range(PAGES)]


def begin(server: Server, photo: bytes) -> str:
    """The address of a new object in a photo that is encoded."""
    _, found = server.ask("POST", "/api/photos?name=photo.jpg", photo)
    _, made = server.ask("POST", f"/api/photos/{found['id']}/objects", {})
    address = f"/api/photos/{found['id']}/objects/{made['id']}"
    server.ask("GET", address)
    return address


def page(server: Server, seed: int, photo: bytes, took_ms: list[float], told: list[str]) -> None:
    """A person who clicks, thinks, and clicks again; masks are compared with the library's."""
    rng = random.Random(seed)
    address = begin(server, photo)
    answers, clicks = [], []
    for index in range(CLICKS):
        sleep(rng.uniform(*THINK_S))
        click = {
            "type": "click", "x": rng.uniform(0, 400), "y": rng.uniform(0, 290),
            "positive": index % 3 != 2,
        }  # fmt: skip
        start = perf_counter()
        status, answer = server.ask("POST", f"{address}/prompts", click)
        took_ms.append((perf_counter() - start) * 1e3)
        if status != 200:
            told.append(f"{status}: {answer}")
            return
        clicks.append(click)
        answers.append(answer["rle"])
    with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
        file.write(photo)
        file.flush()
        picture = load_image(file.name)
    session = SEGMENTER.session(SEGMENTER.encode(picture.pixels, picture.image_format))
    for click, rle in zip(clicks, answers, strict=True):
        if session.add_click(click["x"], click["y"], click["positive"]).rle() != rle:
            told.append(f"page {seed}: another mask than the library's")


def latency(state: Path) -> dict[str, Any]:
    """Round trips of a click, of one page and of `PAGES` at once."""
    server = Server(state)
    found: dict[str, Any] = {}
    try:
        for count in (1, PAGES):
            took_ms: list[float] = []
            told: list[str] = []
            threads = [
                threading.Thread(target=page, args=(server, seed, photos()[seed], took_ms, told))
                for seed in range(count)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            p50, p95 = np.percentile(took_ms, (50, 95))
            found[f"pages_{count}"] = {
                "clicks": len(took_ms), "p50_ms": round(float(p50), 1),
                "p95_ms": round(float(p95), 1), "wrong": told,
            }  # fmt: skip
    finally:
        server.kill()
    return found


def hostile_requests(address: str, photo: str) -> list[bytes]:
    """Raw requests that no page sends."""
    rng = random.Random(0)
    head = f"Authorization: Bearer {TOKEN}\r\n"
    host = "Host: 127.0.0.1:PORT\r\n"
    bodies = [
        b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b"[" * 50_000, b'{"type":"click"}',
        b'{"type":"click","x":NaN,"y":1}', b'{"type":"click","x":1e308,"y":-1e308}',
        b'{"type":"stroke","points":' + b"[[1,1]," * 3000 + b"[1,1]" + b"]" * 3001 + b"}",
        b'{"type":"mask","size":[99999999,99999999],"counts":"1"}',
        b'{"type":"mask","size":[400,600],"counts":"' + b"o" * 90_000 + b'"}',
        b'{"type":"select","index":-1}', b'{"type":["click"]}', b'{"type":"lasso","points":[]}',
        b'{"type":"click","x":"../../etc/passwd","y":{}}', b'{"name":"' + b"A" * 70_000 + b'"}',
    ]  # fmt: skip
    paths = [
        "/api/photos/../../../etc/passwd", "/api/photos/%2e%2e%2f%2e%2e%2fetc%2fpasswd/image",
        "/page/../../../../etc/passwd", "/page/..%2f..%2fapp.py", "/page/%00", "//etc/passwd",
        "/api/photos/" + "0" * 32 + "/image", "/api/photos/" + "a" * 8000, "/\xff".encode().hex(),
        f"/api/photos/{photo}/objects/../../x", "/api/photos?name=../../evil", "/v1/predict",
        "/label-studio/predict", "/cvat", "*", "http://evil.example/",
    ]  # fmt: skip
    found = []
    for index in range(HOSTILE):
        kind = index % 8
        body = rng.choice(bodies)
        target = rng.choice([f"{address}/prompts", f"{address}/undo", "/api/photos",
                             f"/api/photos/{photo}/objects", "/cvat", "/v1/predict",
                             "/label-studio/predict"])  # fmt: skip
        length = f"Content-Length: {len(body)}\r\n"
        if kind == 0:  # a body that is none
            text = f"POST {target} HTTP/1.1\r\n{host}{head}{length}\r\n"
        elif kind == 1:  # paths that lead elsewhere
            method = rng.choice(["GET", "POST", "DELETE", "PUT", "PATCH"])
            text, body = f"{method} {rng.choice(paths)} HTTP/1.1\r\n{host}{head}\r\n", b""
        elif kind == 2:  # a wrong token
            wrong = rng.choice(["", "Authorization: Bearer x\r\n", "Authorization: Basic !!\r\n"])
            text = f"POST {target} HTTP/1.1\r\n{host}{wrong}{length}\r\n"
        elif kind == 3:  # another site, another name
            other = rng.choice(["Origin: http://evil.example\r\n", "Sec-Fetch-Site: cross-site\r\n",
                                "Origin: null\r\n"])  # fmt: skip
            name = rng.choice([host, "Host: evil.example\r\n", ""])
            text = f"POST {target} HTTP/1.1\r\n{name}{head}{other}{length}\r\n"
        elif kind == 4:  # sizes that are none
            size = rng.choice(["-1", "99999999999999999999", "1e9", "0x10", "4000000000"])
            text = f"POST {target} HTTP/1.1\r\n{host}{head}Content-Length: {size}\r\n\r\n"
        elif kind == 5:  # files that are no images
            body = rng.choice([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM", b"II*\0", b"RIFF",
                               b"GIF89a", b"%PDF-1.7"])  # fmt: skip
            body += rng.randbytes(rng.randrange(4000))
            length = f"Content-Length: {len(body)}\r\n"
            text = f"POST /api/photos?name=../../x HTTP/1.1\r\n{host}{head}{length}\r\n"
        elif kind == 6:  # no HTTP
            text, body = "", rng.randbytes(rng.randrange(1, 500)) + b"\r\n\r\n"
        else:  # heads that are too long, or twisted
            junk = rng.choice(["X: " + "a" * 100_000, "Transfer-Encoding: chunked\r\nX: y",
                               "Upgrade: websocket\r\nConnection: Upgrade", "\0: \0"])  # fmt: skip
            text = f"POST {target} HTTP/1.1\r\n{host}{head}{junk}\r\n\r\n"
        found.append(text.encode("latin-1") + body)
    return found


def hostile(state: Path) -> dict[str, Any]:
    """What the server makes of them: it answers or closes each, lives on, and writes nowhere."""
    server = Server(state)
    counts: dict[str, int] = {}
    unanswered = 0
    outside = state.parent / "outside"
    outside.mkdir()
    (outside / "canary").write_text("untouched")

    def seen() -> list[tuple[str, int]]:
        return sorted(
            (str(path), path.stat().st_mtime_ns)
            for path in state.parent.rglob("*")
            if state not in (path, *path.parents)
        )

    try:
        address = begin(server, photos()[0])
        server.ask("POST", f"{address}/prompts", {"type": "click", "x": 277, "y": 215})
        files = seen()
        for request in hostile_requests(address, address.split("/")[3]):
            with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
                try:
                    connection.sendall(request.replace(b"PORT", str(server.port).encode()))
                    connection.shutdown(socket.SHUT_WR)
                    answer = connection.recv(64)
                except ConnectionError:
                    answer = b"closed"
                except TimeoutError:
                    answer = b""
                    unanswered += 1
            status = answer.split(b" ")[1].decode() if answer.startswith(b"HTTP/") else "closed"
            counts[status] = counts.get(status, 0) + 1
        alive = server.process.poll() is None
        return {
            "requests": HOSTILE, "statuses": dict(sorted(counts.items())),
            "unanswered": unanswered, "crashes": int(not alive),
            "files_touched_outside": len(set(seen()) ^ set(files)),
        }  # fmt: skip
    finally:
        server.kill()


def kills(state: Path) -> dict[str, Any]:
    """How many answered prompts a server that is killed at a random moment has lost."""
    rng = random.Random(1)
    answered, lost, damaged, port = 0, 0, 0, 0
    for _ in range(KILLS):
        server = Server(state, port)
        port = server.port
        address = begin(server, photos()[rng.randrange(PAGES)])
        done: list[dict[str, Any]] = []
        until = monotonic() + rng.uniform(0.1, 1.2)
        killer = threading.Timer(max(0.0, until - monotonic()), server.kill)
        killer.start()
        try:
            while True:
                click = {"type": "click", "x": rng.uniform(0, 400), "y": rng.uniform(0, 290)}
                status, _ = server.ask("POST", f"{address}/prompts", click)
                if status == 200:
                    done.append(click)
        except (OSError, http.client.HTTPException):
            pass
        killer.join()
        photo, object_id = address.split("/")[3], address.split("/")[5]
        try:
            said = Folder(state).read(photo).object(object_id).said
        except ValueError:
            damaged += 1
            continue
        kept = {(prompt.x, prompt.y) for prompt in said}
        answered += len(done)
        lost += sum((click["x"], click["y"]) not in kept for click in done)
    return {"kills": KILLS, "answered": answered, "lost": lost, "damaged": damaged}


def table(found: dict[str, Any]) -> str:
    """The table of docs/serving.md."""
    one, many = found["latency"]["pages_1"], found["latency"][f"pages_{PAGES}"]
    hard, dead = found["hostile"], found["kills"]
    rows = [
        ("one page: a click's round trip, p50 / p95", f"{one['p50_ms']} / {one['p95_ms']} ms"),
        (f"{PAGES} pages at once", f"{many['p50_ms']} / {many['p95_ms']} ms"),
        ("errors, or masks that differ from the library's",
         str(len(one["wrong"]) + len(many["wrong"]))),
        (f"{hard['requests']:,} hostile requests: crashes, unanswered, files touched outside",
         f"{hard['crashes']}, {hard['unanswered']}, {hard['files_touched_outside']}"),
        (f"kill -9 at {dead['kills']} random moments: answered prompts, of them lost",
         f"{dead['answered']}, {dead['lost']}"),
    ]  # fmt: skip
    return "\n".join(["| what | figure |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)])


def main() -> None:
    """Run the three parts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where the figures are kept")
    args = parser.parse_args()
    found: dict[str, Any] = {"machine": describe(), "think_s": THINK_S, "cores": os.cpu_count()}
    for part in (latency, hostile, kills):
        with tempfile.TemporaryDirectory() as place:
            found[part.__name__] = part(Path(place) / "state")
        print(part.__name__, json.dumps(found[part.__name__]), file=sys.stderr)
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


SEGMENTER = Segmenter.load("lite")

if __name__ == "__main__":
    main()
