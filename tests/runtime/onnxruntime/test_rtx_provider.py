"""ONNX Runtime's plugin for TensorRT for RTX: what is said where it cannot run."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import onnxruntime
import pytest

from trtseg import Segmenter
from trtseg.errors import BackendUnavailable
from trtseg.runtime import onnxruntime as backend
from trtseg.runtime.onnxruntime import rtx_provider


def test_without_the_package_the_error_says_what_to_install(monkeypatch, tiny_path) -> None:
    monkeypatch.setattr(rtx_provider, "installed", lambda: False)
    with pytest.raises(BackendUnavailable, match="pip install onnxruntime-ep-nv-tensorrt-rtx"):
        Segmenter.load(tiny_path, backend="onnxruntime", device="tensorrt-rtx")
    assert "tensorrt-rtx" not in backend.availability().reason


def test_the_plugin_is_reported(monkeypatch) -> None:
    monkeypatch.setattr(rtx_provider, "installed", lambda: True)
    assert "tensorrt-rtx (its plugin is installed)" in backend.availability().reason


def test_the_gpu_is_chosen_by_number(monkeypatch) -> None:
    devices = [
        SimpleNamespace(ep_name=name)
        for name in ("CPUExecutionProvider", rtx_provider.NAME, rtx_provider.NAME)
    ]
    monkeypatch.setattr(rtx_provider, "installed", lambda: True)
    monkeypatch.setattr(rtx_provider, "_registered", lambda: None)
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: devices)
    assert rtx_provider.device(1) is devices[2]
    with pytest.raises(BackendUnavailable, match="finds 2 RTX GPUs"):
        rtx_provider.device(2)


@pytest.mark.skipif(not rtx_provider.installed(), reason="the plugin is not installed")
def test_the_real_plugin_without_a_gpu(tiny_path) -> None:
    """In a process of its own: importing the plugin loads its libraries for good."""
    code = (
        "import sys\nfrom trtseg import Segmenter\nfrom trtseg.errors import BackendUnavailable\n"
        "try:\n"
        "    Segmenter.load(sys.argv[1], backend='onnxruntime', device='tensorrt-rtx')\n"
        "    print('runs')\n"
        "except BackendUnavailable as error:\n    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tiny_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "runs" or "device tensorrt-rtx" in result.stdout
