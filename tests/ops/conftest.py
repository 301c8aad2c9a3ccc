"""The `backend` fixture: every test that takes it runs on each backend this machine has.

A backend is a name and a function that makes it, or calls pytest.skip. To add one, add a line to
BACKENDS.
"""

import functools

import numpy as np
import pytest
from devices import require_cuda
from emulation.build import compiler
from emulation.module import load

from .backends import Raw, Torch


def cpu():
    from trtseg import _cpu

    return Raw("cpu", _cpu)


def torch():
    pytest.importorskip("torch")
    return Torch()


def cuda():
    try:
        from trtseg import _cuda
    except ImportError as error:
        require_cuda(f"_cuda cannot be imported: {error}")
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        require_cuda("torch finds no CUDA device")

    def to_device(array):
        return torch.from_numpy(np.ascontiguousarray(array)).cuda()

    return Raw("cuda", _cuda, to_device, lambda tensor: tensor.cpu().numpy())


def emulated():
    """The CUDA kernels, run on the host."""
    if compiler() is None:
        pytest.skip("no C++ compiler")
    return Raw("emulated", load())


BACKENDS = {"cpu": cpu, "emulated": emulated, "torch": torch, "cuda": cuda}


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@functools.cache
def make(name):
    return BACKENDS[name]()


@pytest.fixture(params=list(BACKENDS))
def backend(request):
    return make(request.param)
