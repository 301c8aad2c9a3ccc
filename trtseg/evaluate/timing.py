"""How long a method takes on one image of a usual size, for a column of a study."""

from __future__ import annotations

import time

import numpy as np

from trtseg.evaluate.methods import Method

VGA = (480, 640)


def time_at_vga(method: Method, image: np.ndarray, repeats: int = 3) -> dict[str, float]:
    """Milliseconds of one encode and of one click, medians.

    Args:
        method: what to time.
        image: uint8 RGB [480, 640, 3].
        repeats: encodes, each with five clicks; the first of either kind is not counted.
    """
    height, width = image.shape[:2]
    places = ((0.5, 0.5, True), (0.1, 0.1, False), (0.6, 0.4, True),
              (0.9, 0.5, False), (0.4, 0.6, True))  # fmt: skip
    encodes, clicks = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        encoded = method.encode(image)
        encodes.append((time.perf_counter() - start) * 1000)
        with method.session(encoded) as session:
            for x, y, positive in places:
                start = time.perf_counter()
                session.add_click(x * width, y * height, positive)
                clicks.append((time.perf_counter() - start) * 1000)
    return {
        "encode_ms": round(float(np.median(encodes[1:])), 2),
        "click_ms": round(float(np.median(clicks[1:])), 2),
    }
