"""Where the arrays of a call lie decides which native module runs it, and on which stream."""

from __future__ import annotations

import contextlib
import importlib
import reprlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from trtseg.errors import BackendUnavailable

# DLPack's numbers of the devices whose memory the native modules reach
_HOST, _CUDA, _CUDA_MANAGED = 1, 2, 13


def native(array: Any, name: str) -> ModuleType:
    """The raw native module for an array.

    Raises:
        TypeError: neither in host nor in CUDA memory, or an array that tells neither.
        BackendUnavailable: an array in CUDA memory, but this installation has no `_cuda`.
    """
    device = _HOST if isinstance(array, np.ndarray) else _device_type(array)
    if device == _HOST:
        return importlib.import_module("trtseg._cpu")
    if device in (_CUDA, _CUDA_MANAGED):
        return cuda_module()
    raise TypeError(
        f"{name}: expected an array in host or CUDA memory (NumPy, CUDA libraries, torch), "
        f"got {type(array).__name__}"
    )


def _device_type(array: Any) -> int | None:
    if hasattr(array, "__dlpack_device__"):
        try:
            return int(array.__dlpack_device__()[0])
        except (ValueError, BufferError):  # torch's "meta" device
            return None
    return _CUDA if hasattr(array, "__cuda_array_interface__") else None


def cuda_module() -> ModuleType:
    """`trtseg._cuda`.

    Raises:
        BackendUnavailable: this installation was built without it.
    """
    try:
        return importlib.import_module("trtseg._cuda")
    except ModuleNotFoundError:
        raise BackendUnavailable(
            "trtseg was built without CUDA; install trtseg-cuda13 beside it, or trtseg again where "
            "nvcc is found, with TRTSEG_CUDA=1"
        ) from None


def run(function: Callable[..., None], *arguments: Any, stream: int) -> None:
    """Call a native function: torch's tensors detached, on torch's current stream unless `stream`
    names another."""
    if not stream:
        stream = _current_stream(arguments)
    function(*map(_detached, arguments), stream)


def _torch(array: Any) -> ModuleType | None:
    """torch, if the caller already holds a tensor of it."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(array, torch.Tensor) else None


def _detached(argument: Any) -> Any:
    if isinstance(argument, (list, tuple)):
        return [_detached(one) for one in argument]
    return argument.detach() if _torch(argument) else argument


def _current_stream(arguments: tuple[Any, ...]) -> int:
    for argument in arguments:
        first = argument[0] if isinstance(argument, (list, tuple)) and argument else argument
        torch = _torch(first)
        if torch and first.device.type == "cuda":
            return torch.cuda.current_stream(first.device).cuda_stream
    return 0


def empty(like: Any, shape: tuple[int, ...], dtype: Any = None, stream: int = 0) -> Any:
    """An uninitialised array from the library of `like`, on its device; of its dtype where None.

    The pools of CuPy and torch hand memory out, and take it back, in the order of one stream: of
    `stream` where it is named, since that is where the kernels run.

    Raises:
        TypeError: a library that this package cannot allocate with; the caller passes `out`.
    """
    dtype = like.dtype if dtype is None else np.dtype(dtype)
    if isinstance(like, np.ndarray):
        return np.empty(shape, dtype)
    on: Any = contextlib.nullcontext()
    torch = _torch(like)
    if torch:
        if isinstance(dtype, np.dtype):
            dtype = getattr(torch, dtype.name)
        if stream and like.device.type == "cuda":
            on = torch.cuda.stream(torch.cuda.ExternalStream(stream, device=like.device))
        with on:
            return like.new_empty(shape, dtype=dtype)
    library = type(like).__module__.partition(".")[0]
    if library == "cupy":
        cupy = importlib.import_module("cupy")
        with like.device, _borrowed(cupy, stream) if stream else contextlib.nullcontext():
            return cupy.empty(shape, dtype)
    if library == "pycuda":
        return importlib.import_module("pycuda.gpuarray").empty(shape, dtype)
    raise TypeError(f"out: expected an array to write into, since {library} is not known here")


def empty_maps(like: Any, shape: tuple[int, ...], stream: int = 0) -> Any:
    """As `empty`, of maps [C, H, W] in the layout of others: C-contiguous or channels-last."""
    if not is_channels_last(like):
        return empty(like, shape, stream=stream)
    channels, height, width = shape
    pixels = empty(like, (height, width, channels), stream=stream)
    return pixels.permute(2, 0, 1) if _torch(like) else pixels.transpose(2, 0, 1)


def is_channels_last(maps: Any) -> bool:
    """Whether the channels of a pixel of [C, H, W] lie together; not where they do anyway."""
    channels, height, width = maps.shape
    step, item = (maps.stride()[0], 1) if _torch(maps) else (maps.strides[0], maps.dtype.itemsize)
    return channels > 1 and height * width > 1 and step == item


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
    kept: Any = type("Borrowed", (cupy.cuda.Stream,), {"__del__": lambda self: None})
    return kept.from_external(_Handle(stream))


# Beyond, the positions of neighbouring pixels are no longer different numbers in float32; the
# native modules hold arrays to the same (csrc/core/bilinear.h).
LARGEST_SIDE = 2**23


def check_size(size: Any, name: str = "size") -> tuple[int, int]:
    """(height, width), both at least 1."""
    try:
        height, width = size
        height, width = height.__index__(), width.__index__()
    except (TypeError, ValueError, AttributeError):
        found = reprlib.repr(size)
        raise TypeError(f"{name}: expected (height, width) as integers, got {found}") from None
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
