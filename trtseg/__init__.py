"""trtseg turns clicks into masks: `Segmenter` loads a model, encodes an image once and answers
every click within milliseconds.

Importing this package loads nothing heavy; the runtime loads when one of its names is first used.
"""

from __future__ import annotations

import importlib
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

from trtseg.errors import (
    BackendUnavailable,
    BundleError,
    CheckpointError,
    DatasetError,
    EngineError,
    TrtsegError,
)
from trtseg.types import Click

if TYPE_CHECKING:
    from trtseg.runtime.encoded import EncodedImage
    from trtseg.runtime.encodings import EncodingCache
    from trtseg.runtime.segmenter import Segmenter
    from trtseg.runtime.session import Prediction, Session

if PathFinder.find_spec("_cpu", __path__) is None:
    raise ImportError(
        f"trtseg: {__path__[0]} is a source tree without its native module; run elsewhere to use "
        "the installed package, or build it here: pip install -e ."
    )

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable",
    "BundleError",
    "CheckpointError",
    "Click",
    "DatasetError",
    "EncodedImage",
    "EncodingCache",
    "EngineError",
    "Prediction",
    "Segmenter",
    "Session",
    "TrtsegError",
]

_RUNTIME = {
    "EncodedImage": "trtseg.runtime.encoded",
    "EncodingCache": "trtseg.runtime.encodings",
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
