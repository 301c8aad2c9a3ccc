"""A workspace and a server over the small model of random weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_model import write_tiny

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from trtseg import Segmenter
from trtseg.serve.folder import Folder
from trtseg.serve.limits import Limits
from trtseg.serve.workspace import Workspace

from .running import Client, Running


def picture(seed: int = 0, height: int = 120, width: int = 160) -> np.ndarray:
    """uint8 [H, W, 3], another for each seed."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 17 + k + seed) + np.cos(y / 23 - k) for k in range(3)]
    return (np.stack(waves, -1) * 60 + 128).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """RGB or grey pixels as a file."""
    return cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tobytes()


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    path = tmp_path_factory.mktemp("model") / "tiny"
    write_tiny(path, region=True)
    return Segmenter.load(path, threads=1)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "state")


@pytest.fixture
def workspace(segmenter: Segmenter, folder: Folder) -> Workspace:
    return Workspace(segmenter, folder, Limits())


@pytest.fixture
def client(workspace: Workspace) -> Iterator[Client]:
    with Running(workspace) as running:
        yield running.client()
