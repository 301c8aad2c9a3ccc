"""From a training checkpoint to a bundle that the runtime loads (ONNX graphs, verified), and from
a bundle to a server's model repository. Only the former needs torch."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Limits": "trtseg.export.verify",
    "export_bundle": "trtseg.export.bundle",
    "network_graphs": "trtseg.export.graphs",
    "verify_graphs": "trtseg.export.verify",
}

__all__ = ["Limits", "export_bundle", "network_graphs", "verify_graphs"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
