"""All networks of a process share one arena, which has an end."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile.bundles import amplifying, folder, with_files
from tiny_model import CHANNELS, write_tiny

from trtseg import EngineError, Segmenter


def test_a_network_that_makes_much_of_little_is_told(tmp_path: Path) -> None:
    sound = Segmenter.load(write_tiny(tmp_path / "tiny"), backend="onnxruntime", threads=1)
    # 6 GiB; the system would hand out more than there is, and end the process when it is used
    resize = "Resize", ["x", "", "", "sizes"], "large"
    data = amplifying(resize, sizes=[1, CHANNELS, 14_000, 14_000])
    folder(with_files(segment_onnx=data))(tmp_path / "greedy")
    with pytest.raises(EngineError, match=r"segment: .*[Aa]llocat"):
        Segmenter.load(tmp_path / "greedy", backend="onnxruntime", threads=1)
    assert sound.memory_plan(100, 100)
