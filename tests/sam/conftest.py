from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_model import write_tiny

from trtseg.sam import Sam, build_sam


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of four hypotheses with random weights, whose masks follow the clicks."""
    return write_tiny(tmp_path_factory.mktemp("bundles") / "tiny", candidates=4, region=True)


@pytest.fixture(scope="session")
def sam(tiny_path: Path) -> Sam:
    return build_sam(tiny_path)


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A smooth colour image of 120 x 160 pixels."""
    y, x = np.mgrid[:120, :160]
    waves = [np.sin(x / 17 + k) + np.cos(y / 23 - k) for k in range(3)]
    image = (np.stack(waves, -1) * 60 + 128).astype(np.uint8)
    image.flags.writeable = False
    return image
