"""FP16 engines against the FP32 graphs of their bundle, before the first click.

Builders and drivers have made FP16 engines that run without an error and answer nonsense. One
click on a photograph of the package shows it.
"""

from __future__ import annotations

import logging
import threading
from importlib import resources
from time import perf_counter

import numpy as np

from trtseg.bundle import Bundle
from trtseg.errors import EngineError, TrtsegError
from trtseg.runtime import onnxruntime
from trtseg.runtime.image import Picture, load_image
from trtseg.runtime.pipeline.pipeline import Pipeline
from trtseg.types import Click

_log = logging.getLogger(__name__)
# of the cells: a sound FP16 engine moves the contour by less than a cell here and there
LARGEST_SHARE = 0.02
# enough to run every layer, and cheap on a CPU
_LONG_SIDE_PX = 128

_checked: set[tuple[str, str]] = set()
_lock = threading.Lock()


def check_half(bundle: Bundle, pipeline: Pipeline) -> None:
    """Log how far a pipeline in FP16 is from FP32 on the CPU; a warning where it is too far.

    Once for each model and engines in a process. What cannot be checked is logged and raises
    nothing.
    """
    engines = pipeline.engines
    key = bundle.fingerprint, engines.description
    with _lock:
        if engines.segment.inputs[0].dtype != np.float16 or key in _checked:
            return
        _checked.add(key)
    start = perf_counter()
    try:
        share = share_that_differs(bundle, pipeline)
    except (TrtsegError, OSError) as error:
        _log.warning("%s on %s: not checked against fp32: %s", bundle.name, engines.description,
                     error)  # fmt: skip
        return
    finally:
        pipeline.lanes.clear()
    elapsed_ms = (perf_counter() - start) * 1e3
    if share > LARGEST_SHARE:
        _log.warning(
            "%s on %s: its answers are wrong: a mask differs from fp32 in %.1f %% of its cells; "
            "load the model with precision='fp32', and report this", bundle.name,
            engines.description, 100 * share,
        )  # fmt: skip
    else:
        _log.info(
            "%s on %s: agrees with fp32 but for %.2f %% of a mask's cells (checked in %.0f ms)",
            bundle.name, engines.description, 100 * share, elapsed_ms,
        )  # fmt: skip


def share_that_differs(bundle: Bundle, pipeline: Pipeline) -> float:
    """The share of cells, of all candidates, that lie on another side of the threshold; 1 where
    values are not finite.

    Raises:
        EngineError: a network cannot run.
    """
    with resources.as_file(resources.files("trtseg") / "data" / "coffee.jpg") as path:
        photo = load_image(path)
    multiple = bundle.manifest.multiple_px
    side = -(-_LONG_SIDE_PX // multiple) * multiple
    small = (max(multiple, side * 3 // 4 // multiple * multiple), side)
    try:
        found = _maps(pipeline, photo, small)
    except EngineError:  # engines that were built for chosen sizes take no other
        small = pipeline.working_size(*photo.size)
        found = _maps(pipeline, photo, small)
    reference = Pipeline(bundle, onnxruntime.load(bundle, device="cpu", precision="fp32"))
    wanted = _maps(reference, photo, small)
    if not np.isfinite(found).all():
        return 1.0
    threshold = bundle.manifest.threshold
    return float(((found >= threshold) != (wanted >= threshold)).mean())


def _maps(pipeline: Pipeline, photo: Picture, size: tuple[int, int]) -> np.ndarray:
    """Probabilities [M, h, w] after one click in the middle."""
    height, width = photo.size
    encoded = pipeline.encode(photo, (0, 0, height, width), size)
    found = pipeline.click(encoded, [Click(width / 2, height / 2)], None)
    return np.asarray(pipeline.engines.memory.host(found.probabilities), np.float32)
