"""Which extra of the package brings a module that is not always there."""

from __future__ import annotations

import importlib.util

EXTRAS = {
    "torch": "train",
    "safetensors": "train",
    "onnx": "train",
    "onnxscript": "train",
    "matplotlib": "evaluate",
    "maxflow": "evaluate",
    "pycocotools": "evaluate",
    "scipy": "evaluate",
    "skimage": "evaluate",
    "PIL": "evaluate",
    "anyio": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
}


def require(*modules: str) -> None:
    """Tell before any work what a command will miss; the command line names the extra.

    Raises:
        ModuleNotFoundError: one of them is not installed.
    """
    for name in modules:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
