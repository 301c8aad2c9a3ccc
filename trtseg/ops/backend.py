"""The array's type chooses the backend: NumPy runs in `_cpu`, device arrays in `_cuda`, torch
tensors in `trtseg.nn.ops`, which is imported only if the caller already holds a tensor."""

from __future__ import annotations

import contextlib
import importlib
from types import ModuleType
from typing import Any

import numpy as np

from trtseg.errors import BackendUnavailable


def is_torch(array: Any) -> bool:
    return type(array).__module__.partition(".")[0] == "torch"


def torch_ops() -> ModuleType:
    return importlib.import_module("trtseg.nn.ops")


def native(array: Any, name: str) -> ModuleType:
    """The raw native module for an array.

    Raises:
        TypeError: neither a NumPy array nor one with `__cuda_array_interface__`.
        BackendUnavailable: a device array, but this installation has no `_cuda`.
    """
    if isinstance(array, np.ndarray):
        return importlib.import_module("trtseg._cpu")
    if hasattr(array, "__cuda_array_interface__"):
        return cuda_module()
    raise TypeError(
        f"{name}: expected a NumPy array, a CUDA array or a torch tensor, "
        f"got {type(array).__name__}"
    )


def cuda_module() -> ModuleType:
    """`trtseg._cuda`.

    Raises:
        BackendUnavailable: this installation was built without it.
    """
    try:
        return importlib.import_module("trtseg._cuda")
    except ModuleNotFoundError:
        raise BackendUnavailable(
            "trtseg was built without CUDA; install it again where nvcc is found, "
            "with TRTSEG_CUDA=1"
        ) from None


def empty(like: Any, shape: tuple[int, ...], dtype: Any, stream: int = 0) -> Any:
    """An uninitialised array from the library of `like`, on its device.

    CuPy's pool hands memory out, and takes it back, in the order of one stream: of `stream` where
    it is named, since that is where the kernels run.

    Raises:
        TypeError: a library that this package cannot allocate with; the caller passes `out`.
    """
    if isinstance(like, np.ndarray):
        return np.empty(shape, dtype)
    library = type(like).__module__.partition(".")[0]
    if library == "cupy":
        cupy = importlib.import_module("cupy")
        with like.device, _borrowed(cupy, stream) if stream else contextlib.nullcontext():
            return cupy.empty(shape, dtype)
    if library == "pycuda":
        return importlib.import_module("pycuda.gpuarray").empty(shape, np.dtype(dtype))
    raise TypeError(f"out: expected an array to write into, since {library} is not known here")


class _Handle:
    """A stream's handle under the CUDA stream protocol."""

    def __init__(self, stream: int) -> None:
        self._stream = stream

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._stream


def _borrowed(cupy: Any, stream: int) -> Any:
    """Somebody else's stream for CuPy, which must not destroy it."""
    if not hasattr(cupy.cuda.Stream, "from_external"):  # before CuPy 14
        return cupy.cuda.ExternalStream(stream)
    kept = type("Borrowed", (cupy.cuda.Stream,), {"__del__": lambda self: None})
    return kept.from_external(_Handle(stream))


# Beyond, the positions of neighbouring pixels are no longer different numbers in float32.
LARGEST_SIDE = 2**23


def check_size(size: Any, name: str = "size") -> tuple[int, int]:
    """(height, width), both at least 1."""
    try:
        height, width = size
        height, width = height.__index__(), width.__index__()
    except (TypeError, ValueError, AttributeError):
        raise TypeError(f"{name}: expected (height, width) as integers, got {size!r}") from None
    if height < 1 or width < 1:
        raise ValueError(f"{name}: expected sides of at least 1, got {(height, width)}")
    if height > LARGEST_SIDE or width > LARGEST_SIDE:
        raise ValueError(
            f"{name}: expected sides of at most {LARGEST_SIDE}, got {(height, width)}"
        )
    return height, width


def _shape(array: Any, name: str) -> list[int]:
    try:
        return list(array.shape)
    except (AttributeError, TypeError):
        raise TypeError(f"{name}: expected an array, got {type(array).__name__}") from None


def check_shape(array: Any, shape: tuple[int, ...], name: str) -> None:
    found = _shape(array, name)
    if found != list(shape):
        raise ValueError(f"{name}: expected shape {list(shape)}, got {found}")


def check_rank(array: Any, axes: str, name: str) -> None:
    found = _shape(array, name)
    if len(found) != axes.count(",") + 1:
        raise ValueError(f"{name}: expected shape [{axes}], got {found}")


def check_levels(levels: Any) -> None:
    """A sequence of at least one."""
    try:
        count = len(levels)
        if count:
            levels[0]
    except (TypeError, KeyError):
        raise TypeError(
            f"levels: expected a list of arrays, got {type(levels).__name__}"
        ) from None
    if count == 0:
        raise ValueError("levels: expected 1 to 8 levels, got 0")


def check_float_type(dtype: Any) -> np.dtype:
    """float32 or float16, in any of NumPy's spellings."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype: expected float32 or float16, got {dtype!r}") from None
    if found not in (np.float32, np.float16):
        raise TypeError(f"dtype: expected float32 or float16, got {found}")
    return found
