"""Stands in for NVIDIA's `tensorrt_rtx` in tests: official bindings over the real RTX builder.

Importable only in a process that was started with the forwarding libraries on LD_LIBRARY_PATH.
It adds what `tensorrt_rtx` has and the bindings of TensorRT lack: compute capabilities.
"""

import ctypes
import enum

import tensorrt_bindings

__version__ = "1.7.1"


def __getattr__(name):
    # Not `import *`: the bindings export a `bool` of their own.
    return getattr(tensorrt_bindings, name)


_library = ctypes.CDLL("libnvinfer.so.11")
_library.trtseg_set_compute_capability_count.argtypes = [ctypes.c_void_p, ctypes.c_int32]
_library.trtseg_set_compute_capability.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32]


class ComputeCapability(enum.IntEnum):
    NONE = 0
    CURRENT = 1
    SM75 = 75
    SM80 = 80
    SM86 = 86
    SM89 = 89
    SM120 = 120
    SM121 = 121


def _address(config):
    """The C++ object behind a pybind11 instance: the word after the object's header."""
    return ctypes.c_void_p.from_address(id(config) + object.__basicsize__).value


def _set_count(config, count):
    _library.trtseg_set_compute_capability_count(_address(config), count)


def _set_compute_capability(config, value, index):
    return bool(_library.trtseg_set_compute_capability(_address(config), int(value), index))


tensorrt_bindings.IBuilderConfig.num_compute_capabilities = property(fset=_set_count)
tensorrt_bindings.IBuilderConfig.set_compute_capability = _set_compute_capability
