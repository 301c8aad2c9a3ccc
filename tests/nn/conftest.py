"""Small networks run fastest on one thread."""

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def one_thread():
    """Other users of the machine must not make the tests slow, nor the sums differ."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def weights_folder():
    """ImageNet weights, see CONTRIBUTING.md."""
    root = Path(os.environ.get("TRTSEG_DATA", ROOT / "data"))
    if not (root / "weights").is_dir():
        pytest.skip(f"no weights in {root}")
    return root / "weights"
