from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_model import write_tiny

from trtseg import Segmenter


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("bundles") / "tiny", region=True)


@pytest.fixture(scope="session")
def segmenter(tiny_path: Path) -> Segmenter:
    """A small model with random weights whose masks follow the clicks."""
    return Segmenter.load(tiny_path, threads=1)


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A smooth colour image of 120 x 160 pixels."""
    y, x = np.mgrid[:120, :160]
    waves = [np.sin(x / 17 + k) + np.cos(y / 23 - k) for k in range(3)]
    image = (np.stack(waves, -1) * 60 + 128).astype(np.uint8)
    image.flags.writeable = False
    return image
