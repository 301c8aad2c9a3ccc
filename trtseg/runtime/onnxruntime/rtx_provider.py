"""ONNX Runtime's provider for TensorRT for RTX, from PyPI: the plugin that brings its libraries."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any

import onnxruntime

from trtseg.errors import BackendUnavailable

PACKAGE = "onnxruntime_ep_nv_tensorrt_rtx"
NAME = "NvTensorRTRTXExecutionProvider"


def installed() -> bool:
    """Whether the package is there; nothing is imported, since that loads 300 MB of libraries."""
    return importlib.util.find_spec(PACKAGE) is not None


@functools.cache
def _registered() -> None:
    plugin = importlib.import_module(PACKAGE)
    onnxruntime.register_execution_provider_library(plugin.get_ep_name(), plugin.get_library_path())


def device(index: int) -> Any:
    """The RTX GPU of that number, as ONNX Runtime's session options take it.

    Raises:
        BackendUnavailable: the package or the driver is missing, or there is no such GPU.
    """
    if not installed():
        raise BackendUnavailable(
            "device tensorrt-rtx: pip install onnxruntime-ep-nv-tensorrt-rtx-cu13 "
            "(CUDA 12: onnxruntime-ep-nv-tensorrt-rtx-cu12)"
        )
    try:
        _registered()
    except Exception as error:  # ONNX Runtime's exceptions share no narrower base
        raise BackendUnavailable(f"device tensorrt-rtx: {error}") from None
    found = [entry for entry in onnxruntime.get_ep_devices() if entry.ep_name == NAME]
    if index >= len(found):
        raise BackendUnavailable(
            f"device tensorrt-rtx:{index}: the provider finds {len(found)} RTX GPUs"
        )
    return found[index]
