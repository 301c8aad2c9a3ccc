"""Opens files, each in a process of its own, and tells what became of it.

    python -m hostile.opener MODEL < lines of {"kind": "bundle" | "photo" | "state", "path": ...}

A line of JSON answers each: `end` (OK, the name of the error, or how the process died), `told` (the
message), `seconds` of this process's computing, `wall_s`, and `mib`, its memory at the most,
including that of Python and the libraries.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path

import numpy as np

from trtseg import Segmenter
from trtseg.runtime.image import load_image

PATIENCE_S = 60  # of computing
ROOM_BYTES = 12 * 2**30  # what goes beyond is told as if memory were at its end
IMAGE = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)


def click(segmenter: Segmenter, image: np.ndarray, image_format: str | None = None) -> None:
    session = segmenter.session(segmenter.encode(image, image_format))
    height, width = session.encoded.image_size
    session.add_click(width // 2, height // 2)
    session.add_click(0, 0, False)
    _ = session.prediction.candidates, session.prediction.polygons()


def open_bundle(path: Path, model: Segmenter) -> None:
    click(Segmenter.load(path, backend="onnxruntime", threads=1), IMAGE)


def open_photo(path: Path, model: Segmenter) -> None:
    picture = load_image(path)
    click(model, picture.pixels, picture.image_format)


def open_state(path: Path, model: Segmenter) -> None:
    from adapt.conftest import make_learner

    from trtseg.adapt import Sequence

    Sequence(make_learner(model, {}), "sequence", state=path)


OPENERS = {"bundle": open_bundle, "photo": open_photo, "state": open_state}


def opened(kind: str, path: Path, model: Segmenter) -> dict[str, object]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(10 * PATIENCE_S)  # who waits computes nothing, and the machine may be busy
        resource.setrlimit(resource.RLIMIT_CPU, (PATIENCE_S, PATIENCE_S))
        resource.setrlimit(resource.RLIMIT_AS, (ROOM_BYTES, ROOM_BYTES))
        end, told = "OK", ""
        try:
            OPENERS[kind](path, model)
        except BaseException as error:
            end, told = type(error).__name__, str(error)
            end = "OSError" if isinstance(error, OSError) else end  # whatever the system says
        os.write(writing, json.dumps([end, told[:1000]]).encode())
        os._exit(0)
    os.close(writing)
    _, status, usage = os.wait4(child, 0)
    with os.fdopen(reading, "rb") as stream:
        text = stream.read()
    code = os.waitstatus_to_exitcode(status)
    end, told = json.loads(text) if text else (f"died of {code}", "")
    return {
        "end": end,
        "told": told,
        "seconds": usage.ru_utime + usage.ru_stime,
        "mib": usage.ru_maxrss / 1024,
    }


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what others print is no answer
    model = Segmenter.load(sys.argv[1], backend="onnxruntime", threads=1)
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["kind"] == "state":
            import adapt.conftest  # noqa: F401  # once, for all that are forked
        print(json.dumps(opened(asked["kind"], Path(asked["path"]), model)), file=answers)


if __name__ == "__main__":
    main()
