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

from .backends import ChannelsLast, Raw, Torch


def cpu():
    from trtseg import _cpu

    return Raw("cpu", _cpu)


def torch():
    pytest.importorskip("torch")
    return Torch()


def cuda(kind=Raw):
    try:
        from trtseg import _cuda
    except ImportError as error:
        require_cuda(f"_cuda cannot be imported: {error}")
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        require_cuda("torch finds no CUDA device")

    def to_device(array):
        return torch.from_numpy(np.ascontiguousarray(array)).cuda()

    return kind("cuda", _cuda, to_device, lambda tensor: tensor.cpu().numpy())


def emulated(kind=Raw):
    """The CUDA kernels, run on the host."""
    if compiler() is None:
        pytest.skip("no C++ compiler")
    return kind("emulated", load())


BACKENDS = {"cpu": cpu, "emulated": emulated, "torch": torch, "cuda": cuda}
# `maps_backend`: for operations that take maps channels-last, too, where CUDA computes them
LAYOUTS = {
    "emulated_channels_last": functools.partial(emulated, ChannelsLast),
    "cuda_channels_last": functools.partial(cuda, ChannelsLast),
}


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@functools.cache
def make(name):
    return {**BACKENDS, **LAYOUTS}[name]()


@pytest.fixture(params=list(BACKENDS))
def backend(request):
    return make(request.param)


@pytest.fixture(params=[*BACKENDS, *LAYOUTS])
def maps_backend(request):
    return make(request.param)
