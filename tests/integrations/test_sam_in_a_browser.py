"""Segment Anything's two graphs in a real browser, by ONNX Runtime's WebAssembly, as its demos and
annotation pages run them; against ONNX Runtime here.

    npm pack onnxruntime-web && tar -xzf onnxruntime-web-*.tgz
    export TRTSEG_ORT_WEB=package/dist
    python -m pytest tests/integrations/test_sam_in_a_browser.py

Skips without it, or without Chromium.
"""

from __future__ import annotations

import base64
import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from serve.browsing import chromium

import trtseg
from trtseg.cli import main

PHOTO = Path(trtseg.__file__).parent / "data" / "coffee.jpg"
WEB = os.environ.get("TRTSEG_ORT_WEB")
NEEDED = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
PAGE = """<!doctype html><script src="ort.wasm.min.js"></script><script>
ort.env.wasm.numThreads = 1;
const floats = async name => new Float32Array(await (await fetch(name)).arrayBuffer());
const tensor = (data, dims) => new ort.Tensor("float32", Float32Array.from(data), dims);
async function run(height, width, points) {
  const encoder = await ort.InferenceSession.create("encoder.onnx");
  const decoder = await ort.InferenceSession.create("decoder.onnx");
  const image = new ort.Tensor("float32", await floats("image.bin"), [height, width, 3]);
  const { image_embeddings } = await encoder.run({ image });
  const scale = 1024 / Math.max(height, width);
  const all = [...points, [0, 0, -1]];
  const { masks, iou_predictions } = await decoder.run({
    image_embeddings,
    point_coords: tensor(all.flatMap(([x, y]) => [x * scale, y * scale]), [1, all.length, 2]),
    point_labels: tensor(all.map(point => point[2]), [1, all.length]),
    mask_input: tensor(new Float32Array(256 * 256), [1, 1, 256, 256]),
    has_mask_input: tensor([0], [1]),
    orig_im_size: tensor([height, width], [2]),
  });
  const bits = Uint8Array.from(masks.data, value => value > 0);
  let text = "";
  for (let i = 0; i < bits.length; i += 32768)
    text += String.fromCharCode(...bits.subarray(i, i + 32768));
  return { masks: btoa(text), dims: masks.dims, scores: [...iou_predictions.data] };
}
</script>"""

pytestmark = pytest.mark.skipif(WEB is None, reason="TRTSEG_ORT_WEB names no onnxruntime-web")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """(address, folder) of a page beside the graphs, the photo and the runtime."""
    folder = tmp_path / "site"
    assert main(["export-sam", "lite", str(folder)]) == 0
    for name in NEEDED:
        shutil.copy(Path(str(WEB)) / name, folder)
    (folder / "index.html").write_text(PAGE)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", folder
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_page_segments_by_itself(site: tuple[str, Path]) -> None:
    address, folder = site
    photo = cv2.cvtColor(cv2.imread(str(PHOTO)), cv2.COLOR_BGR2RGB).astype(np.float32)
    (folder / "image.bin").write_bytes(photo.tobytes())
    height, width = photo.shape[:2]
    points = [[277, 215, 1], [60, 60, 0]]
    try:
        with chromium() as browser:
            tab = browser.new_page()
            tab.goto(address)
            found = tab.evaluate(f"points => run({height}, {width}, points)", points)
    except (ImportError, FileNotFoundError) as error:
        pytest.skip(str(error))
    masks = np.frombuffer(base64.b64decode(found["masks"]), np.uint8).reshape(found["dims"])
    scale = 1024 / max(height, width)
    padded = np.array([*points, [0, 0, -1]], np.float32)
    encoder, decoder = (
        onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
        for name in ("encoder.onnx", "decoder.onnx")
    )
    wanted, scores = decoder.run(
        ["masks", "iou_predictions"],
        {
            "image_embeddings": encoder.run(None, {"image": photo})[0],
            "point_coords": padded[None, :, :2] * np.float32(scale),
            "point_labels": padded[None, :, 2],
            "mask_input": np.zeros((1, 1, 256, 256), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
            "orig_im_size": np.array([height, width], np.float32),
        },
    )
    # float32 sums in another order: a mask changes where its logit is next to 0
    assert masks.shape == wanted.shape
    assert ((masks > 0) != (wanted > 0)).mean() < 1e-3
    np.testing.assert_allclose(found["scores"], scores.ravel(), atol=1e-3)
    assert masks[0, 0].any()
