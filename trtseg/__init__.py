"""trtseg turns clicks into masks: `Segmenter` loads a model, encodes an image once and answers
every click within milliseconds. Importing it loads nothing heavy; the runtime loads at first use.

The house, from the ground up; a room imports only from those above it in this list:

    errors, types, parse, bundle    clicks and regions, typed JSON, the model's file
    ops             single operations, in C++ and CUDA, on arrays of any library
    runtime         images and clicks in, masks out; never torch
        pipeline        lanes, buffers with their stages, and the chain: encode once, click cheaply
        maps            from maps to a mask: focus crops, the choice, corrections that hold
        session         one object: its prompts and states, undo, what is shown and saved
        onnxruntime, tensorrt   the two backends, behind the protocols of `engine`
        segmenter       a loaded model: begin here
    nn              the networks in torch, their losses, checkpoints
    adapt           learning from corrections while one clicks
    evaluate        data sets, simulated users, metrics, methods, studies; no torch
    serve           the page, the API, annotation tools, the study with people; no torch
    train           from images with masks to a checkpoint
    export          from a checkpoint to a bundle, a Triton repository
    benchmark       latency by stage, and the floor under it
    commands, cli   the command line: a file for each subcommand, and the one door
"""

from __future__ import annotations

import importlib
from importlib.machinery import PathFinder
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

from trtseg.errors import (
    BackendUnavailable,
    BundleError,
    CheckpointError,
    DatasetError,
    EngineError,
    TrtsegError,
)
from trtseg.types import Box, Click, Lasso, Stroke

if TYPE_CHECKING:
    from trtseg.runtime.encoded import EncodedImage
    from trtseg.runtime.encoding_cache import EncodingCache
    from trtseg.runtime.segmenter import Segmenter
    from trtseg.runtime.session import Prediction, Session

# In a checkout that was not built, the native module (and `trtseg.export`) of an installed trtseg.
__path__ = extend_path(__path__, __name__)
if PathFinder.find_spec("_cpu", __path__) is None:
    raise ImportError(
        f"trtseg: {__path__[0]} is a source tree without its native module; run elsewhere to use "
        "the installed package, or build it here: pip install -e ."
    )

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable",
    "Box",
    "BundleError",
    "CheckpointError",
    "Click",
    "DatasetError",
    "EncodedImage",
    "EncodingCache",
    "EngineError",
    "Lasso",
    "Prediction",
    "Segmenter",
    "Session",
    "Stroke",
    "TrtsegError",
]

_RUNTIME = {
    "EncodedImage": "trtseg.runtime.encoded",
    "EncodingCache": "trtseg.runtime.encoding_cache",
    "Prediction": "trtseg.runtime.session",
    "Segmenter": "trtseg.runtime.segmenter",
    "Session": "trtseg.runtime.session",
}


def __getattr__(name: str) -> Any:
    if name not in _RUNTIME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_RUNTIME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_RUNTIME})
