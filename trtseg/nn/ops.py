"""The public operations on torch tensors: the same native kernels, on views that share memory.

Names, signatures and results are those of `trtseg.ops`; each docstring here adds only what torch
adds. CPU tensors run in `trtseg._cpu`, CUDA tensors in `trtseg._cuda` on torch's current stream
unless `stream` names another. Non-contiguous tensors are made contiguous first, where the operation
asks for that. `trtseg.nn.plain_ops` holds the same functions as compositions of torch's own.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch

from trtseg.ops.backend import (
    check_float_type,
    check_levels,
    check_rank,
    check_shape,
    check_size,
    cuda_module,
)

_DTYPES = {np.dtype(np.float32): torch.float32, np.dtype(np.float16): torch.float16}

# What NumPy knows too; the native module says which of these an argument may have.
_SHARED = {
    torch.float16,
    torch.float32,
    torch.float64,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.bool,
}


def _native(tensor: torch.Tensor, name: str) -> ModuleType:
    if tensor.device.type == "cpu":
        return importlib.import_module("trtseg._cpu")
    if tensor.device.type == "cuda":
        return cuda_module()
    raise TypeError(f"{name}: expected a tensor on cpu or cuda, got {tensor.device}")


def _check_tensor(tensor: Any, name: str) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name}: expected a torch tensor, got {type(tensor).__name__}")


def _contiguous(tensor: Any, name: str) -> torch.Tensor:
    _check_tensor(tensor, name)
    return tensor.contiguous()


def _view(tensor: torch.Tensor | None, name: str, device: torch.device) -> Any:
    """What the native module takes: a NumPy array over the same memory, or the CUDA tensor."""
    if tensor is None:
        return None
    _check_tensor(tensor, name)
    if tensor.device != device:
        raise ValueError(f"{name}: expected a tensor on {device}, got one on {tensor.device}")
    if tensor.dtype not in _SHARED:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise TypeError(f"{name}: expected float32 or float16, got {kind}")
    return tensor.detach() if device.type == "cuda" else tensor.detach().numpy()


def _stream(device: torch.device, stream: int) -> int:
    if stream or device.type != "cuda":
        return stream
    return torch.cuda.current_stream(device).cuda_stream


_Op = TypeVar("_Op", bound=Callable[..., Any])


def _on_named_stream(op: _Op) -> _Op:
    """Makes the stream that a call names torch's current one for as long as the call lasts.

    Torch's pool hands memory out, and takes it back, in the order of the current stream: on another
    one the kernels would race with whoever had the memory before, or gets it next.
    """

    @functools.wraps(op)
    def run(*arguments: Any, stream: int = 0, **named: Any) -> Any:
        device = _device_of(*arguments, *named.values())
        if not stream or device is None or device.type != "cuda":
            return op(*arguments, stream=stream, **named)
        with torch.cuda.stream(torch.cuda.ExternalStream(stream, device=device)):
            return op(*arguments, **named)

    return run  # type: ignore[return-value]


def _device_of(*arguments: Any) -> torch.device | None:
    for argument in arguments:
        first = argument[0] if isinstance(argument, (list, tuple)) and argument else argument
        if isinstance(first, torch.Tensor):
            return first.device
    return None


def _scratch(device: torch.device, size: int) -> torch.Tensor:
    return torch.empty(size, dtype=torch.uint8, device=device)


def _floats(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.float32, device=device)


def _wants_grad(*tensors: torch.Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _refuse_out(out: torch.Tensor | None) -> None:
    if out is not None:
        raise ValueError("out: expected None where a gradient is wanted, got a tensor")


@_on_named_stream
def distance_map(
    points: torch.Tensor,
    size: tuple[int, int],
    *,
    limit_px: float,
    into: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
    dtype: Any = torch.float32,
    stream: int = 0,
) -> torch.Tensor:
    """See `trtseg.ops.distance_map`. Not differentiable."""
    height, width = check_size(size)
    if into is not None and out is not None:
        raise ValueError("into: expected None when out is given, got both")
    device = points.device
    name = "out" if into is None else "into"
    target = out if into is None else into
    if target is None:
        if not isinstance(dtype, torch.dtype):
            dtype = _DTYPES[check_float_type(dtype)]
        if dtype not in _DTYPES.values():
            raise TypeError(f"dtype: expected float32 or float16, got {dtype}")
        target = torch.empty((height, width), dtype=dtype, device=device)
    check_shape(target, (height, width), name)
    _native(points, "points").distance_map(
        _view(points, "points", device),
        _view(target, name, device),
        limit_px,
        into is not None,
        _stream(device, stream),
    )
    return target


@_on_named_stream
def click_maps(
    points: torch.Tensor,
    out: torch.Tensor,
    *,
    limit_px: float,
    sigma_px: float | None = None,
    stream: int = 0,
) -> torch.Tensor:
    """See `trtseg.ops.click_maps`. Not differentiable."""
    device = points.device
    _native(points, "points").click_maps(
        _view(points, "points", device),
        _view(out, "out", device),
        limit_px,
        sigma_px,
        _stream(device, stream),
    )
    return out


@_on_named_stream
def best_map(
    maps: torch.Tensor, scores: torch.Tensor, out: torch.Tensor, *, stream: int = 0
) -> torch.Tensor:
    """See `trtseg.ops.best_map`. Not differentiable."""
    device = maps.device
    _native(maps, "maps").best_map(
        _view(maps, "maps", device),
        _view(scores, "scores", device),
        _view(out, "out", device),
        _stream(device, stream),
    )
    return out


@_on_named_stream
def prepare_image(
    pixels: torch.Tensor,
    out: torch.Tensor,
    *,
    mean: Sequence[float],
    scale: Sequence[float],
    bgr: bool = False,
    stream: int = 0,
) -> torch.Tensor:
    """See `trtseg.ops.prepare_image`. Not differentiable."""
    device = pixels.device
    _native(pixels, "pixels").prepare_image(
        _view(pixels, "pixels", device),
        tuple(mean),
        tuple(scale),
        bgr,
        _view(out, "out", device),
        _stream(device, stream),
    )
    return out


@_on_named_stream
def distance_transform(
    mask: torch.Tensor,
    *,
    limit_px: float | None = None,
    return_indices: bool = False,
    out: torch.Tensor | None = None,
    stream: int = 0,
) -> Any:
    """See `trtseg.ops.distance_transform`. Not differentiable."""
    check_rank(mask, "H, W", "mask")
    device = mask.device
    native = _native(mask, "mask")
    height, width = mask.shape
    scratch = _scratch(device, native.distance_transform_scratch(height, width))
    target = _floats((height, width), device) if out is None else out
    indices = None
    if return_indices:
        indices = torch.empty((2, height, width), dtype=torch.int32, device=device)
    native.distance_transform(
        _view(mask, "mask", device),
        _view(target, "out", device),
        _view(indices, "indices", device),
        _view(scratch, "scratch", device),
        math.inf if limit_px is None else limit_px,
        _stream(device, stream),
    )
    return (target, indices) if return_indices else target


def _hypercolumn(
    levels: Sequence[torch.Tensor],
    image: torch.Tensor | None,
    image_weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    out: torch.Tensor,
    stream: int,
) -> torch.Tensor:
    device = levels[0].device
    _native(levels[0], "levels[0]").hypercolumn(
        [_view(level, f"levels[{i}]", device) for i, level in enumerate(levels)],
        _view(image, "image", device),
        _view(image_weight, "image_weight", device),
        _view(bias, "bias", device),
        _view(out, "out", device),
        _stream(device, stream),
    )
    return out


class _Hypercolumn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, size, stream, image, image_weight, bias, *levels):
        ctx.save_for_backward(image, image_weight)
        ctx.shapes = [level.shape for level in levels]
        ctx.stream = stream
        out = levels[0].new_empty((levels[0].shape[0], *size))
        return _hypercolumn(levels, image, image_weight, bias, out, stream)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        image, image_weight = ctx.saved_tensors
        _, _, wants_image, wants_weight, wants_bias, *wants_levels = ctx.needs_input_grad
        wide = grad.float()
        image_grad = weight_grad = bias_grad = None
        if wants_image:
            image_grad = torch.einsum("chw,ci->ihw", wide, image_weight).to(image.dtype)
        if wants_weight:
            weight_grad = torch.einsum("chw,ihw->ci", wide, image.float())
        if wants_bias:
            bias_grad = wide.sum((1, 2))
        level_grads: list[torch.Tensor | None] = [None] * len(ctx.shapes)
        wanted = [i for i, wants in enumerate(wants_levels) if wants]
        if wanted:
            device = grad.device
            grads = [grad.new_empty(ctx.shapes[i]) for i in wanted]
            _native(grad, "grad").hypercolumn_backward(
                _view(grad.contiguous(), "grad", device),
                [_view(g, "level_grads", device) for g in grads],
                _stream(device, ctx.stream),
            )
            for i, g in zip(wanted, grads, strict=True):
                level_grads[i] = g
        return (None, None, image_grad, weight_grad, bias_grad, *level_grads)


@_on_named_stream
def hypercolumn(
    levels: Sequence[torch.Tensor],
    size: tuple[int, int],
    *,
    image: torch.Tensor | None = None,
    image_weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
    stream: int = 0,
) -> torch.Tensor:
    """See `trtseg.ops.hypercolumn`. Differentiable in every tensor, when `out` is None."""
    height, width = check_size(size)
    check_levels(levels)
    for i, level in enumerate(levels):
        _check_tensor(level, f"levels[{i}]")
    check_rank(levels[0], "C, h, w", "levels[0]")
    levels = [level if level.stride(-1) == 1 else level.contiguous() for level in levels]
    if _wants_grad(image, image_weight, bias, *levels):
        _refuse_out(out)
        return _Hypercolumn.apply((height, width), stream, image, image_weight, bias, *levels)
    shape = (levels[0].shape[0], height, width)
    if out is None:
        out = levels[0].new_empty(shape)
    check_shape(out, shape, "out")
    return _hypercolumn(levels, image, image_weight, bias, out, stream)


def _add_guidance(
    base: torch.Tensor,
    guidance: torch.Tensor,
    weight: torch.Tensor,
    slope: float,
    channels_last: bool,
    out: torch.Tensor,
    stream: int,
) -> torch.Tensor:
    device = base.device
    _native(base, "base").add_guidance(
        _view(base, "base", device),
        _view(guidance, "guidance", device),
        _view(weight, "weight", device),
        _view(out, "out", device),
        slope,
        channels_last,
        _stream(device, stream),
    )
    return out


def _guided_like(base: torch.Tensor, channels_last: bool) -> torch.Tensor:
    channels, height, width = base.shape
    return base.new_empty((height, width, channels) if channels_last else base.shape)


class _AddGuidance(torch.autograd.Function):
    @staticmethod
    def forward(ctx, base, guidance, weight, slope, channels_last, stream):
        ctx.save_for_backward(base, guidance, weight)
        ctx.options = slope, channels_last, stream
        out = _guided_like(base, channels_last)
        return _add_guidance(base, guidance, weight, slope, channels_last, out, stream)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        base, guidance, weight = ctx.saved_tensors
        slope, channels_last, stream = ctx.options
        if channels_last:
            grad = grad.permute(2, 0, 1)
        device = base.device
        native = _native(base, "base")
        base_grad = torch.empty_like(base)
        weight_grad = torch.empty_like(weight)
        scratch_size = native.add_guidance_backward_scratch(
            base.shape[0], guidance.shape[0], base.shape[1], base.shape[2]
        )
        native.add_guidance_backward(
            _view(grad.contiguous(), "grad", device),
            _view(base, "base", device),
            _view(guidance, "guidance", device),
            _view(weight, "weight", device),
            slope,
            _view(base_grad, "base_grad", device),
            _view(weight_grad, "weight_grad", device),
            _view(_scratch(device, scratch_size), "scratch", device),
            _stream(device, stream),
        )
        guidance_grad = None
        if ctx.needs_input_grad[1]:
            guidance_grad = torch.einsum("chw,cg->ghw", base_grad.float(), weight).to(base.dtype)
        return base_grad, guidance_grad, weight_grad, None, None, None


@_on_named_stream
def add_guidance(
    base: torch.Tensor,
    guidance: torch.Tensor,
    weight: torch.Tensor,
    *,
    slope: float = 0.2,
    channels_last: bool = False,
    out: torch.Tensor | None = None,
    stream: int = 0,
) -> torch.Tensor:
    """See `trtseg.ops.add_guidance`. Differentiable in every tensor, when `out` is None."""
    check_rank(base, "C, H, W", "base")
    base = _contiguous(base, "base")
    guidance, weight = _contiguous(guidance, "guidance"), _contiguous(weight, "weight")
    if _wants_grad(base, guidance, weight):
        _refuse_out(out)
        return _AddGuidance.apply(base, guidance, weight, slope, channels_last, stream)
    if out is None:
        out = _guided_like(base, channels_last)
    return _add_guidance(base, guidance, weight, slope, channels_last, out, stream)


class _Jaccard(torch.autograd.Function):
    @staticmethod
    def forward(ctx, masks, target, positive, negative, stream):
        device = masks.device
        native = _native(masks, "masks")
        count, height, width = masks.shape
        loss, penalty = _floats((count,), device), _floats((count,), device)
        sums = _floats((count, 2), device)
        scratch = _scratch(device, native.jaccard_scratch(count, height, width))
        native.jaccard(
            _view(masks, "masks", device),
            _view(target, "target", device),
            _view(positive, "positive", device),
            _view(negative, "negative", device),
            _view(loss, "loss", device),
            _view(penalty, "penalty", device),
            _view(sums, "sums", device),
            _view(scratch, "scratch", device),
            _stream(device, stream),
        )
        ctx.save_for_backward(target, positive, negative, sums)
        ctx.like = masks.shape, masks.dtype
        ctx.stream = stream
        return loss, penalty

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, loss_weight, penalty_weight):
        target, positive, negative, sums = ctx.saved_tensors
        shape, dtype = ctx.like
        device = target.device
        grad = torch.empty(shape, dtype=dtype, device=device)
        _native(grad, "grad").jaccard_backward(
            _view(target, "target", device),
            _view(positive, "positive", device),
            _view(negative, "negative", device),
            _view(sums, "sums", device),
            _view(loss_weight.contiguous(), "loss_weight", device),
            _view(penalty_weight.contiguous(), "penalty_weight", device),
            _view(grad, "grad", device),
            _stream(device, ctx.stream),
        )
        return grad, None, None, None, None


@_on_named_stream
def jaccard(
    masks: torch.Tensor,
    target: torch.Tensor,
    positive: torch.Tensor,
    negative: torch.Tensor,
    *,
    stream: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `trtseg.ops.jaccard`. Differentiable in `masks`."""
    check_rank(masks, "M, H, W", "masks")
    masks, target = _contiguous(masks, "masks"), _contiguous(target, "target")
    _check_tensor(positive, "positive")
    _check_tensor(negative, "negative")
    return _Jaccard.apply(masks, target, positive, negative, stream)


@_on_named_stream
def compose_mask(
    probability: torch.Tensor,
    size: tuple[int, int],
    *,
    threshold: float = 0.5,
    previous: torch.Tensor | None = None,
    return_probability: bool = False,
    out: torch.Tensor | None = None,
    stream: int = 0,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """See `trtseg.ops.compose_mask`. Not differentiable."""
    height, width = check_size(size)
    device = probability.device
    if out is None:
        out = torch.empty((height, width), dtype=torch.uint8, device=device)
    check_shape(out, (height, width), "out")
    upsampled = _floats((height, width), device) if return_probability else None
    box = None if previous is None else torch.empty(4, dtype=torch.int32, device=device)
    _native(probability, "probability").compose_mask(
        _view(probability, "probability", device),
        threshold,
        _view(out, "out", device),
        _view(upsampled, "out_probability", device),
        _view(previous, "previous", device),
        _view(box, "box", device),
        _stream(device, stream),
    )
    return out, upsampled, box
