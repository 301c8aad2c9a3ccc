"""3x3 convolutions that train as fast on a CPU as they run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# below this many channels the products are too narrow to pay
_WIDE = 32


class Convolution(nn.Conv2d):
    """A 3x3 layer that keeps the size of its input; values, names and initialisation of `Conv2d`.

    Where it learns from one image on a CPU in float32, as adaptation does, the gradient of its
    weights is nine matrix products, one for each tap: oneDNN's own for channels-last maps takes
    longer on AVX2, most for dilated layers (`benchmarks/adaptation.py` times both). In a batch of
    crops oneDNN's own is the faster one.
    """

    def __init__(self, channels_in: int, channels_out: int, dilation: int = 1) -> None:
        super().__init__(channels_in, channels_out, 3, padding=dilation, dilation=dilation)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        learns = torch.is_grad_enabled() and self.weight.requires_grad and len(input) == 1
        wide = min(self.in_channels, self.out_channels) >= _WIDE
        plain = input.dtype == self.weight.dtype == torch.float32
        if learns and wide and plain and input.is_cpu and not torch.is_autocast_enabled("cpu"):
            return _Convolve.apply(input, self.weight, self.bias, self.dilation[0])
        return super().forward(input)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        return F.conv2d(x, weight, bias, padding=dilation, dilation=dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        sizes, steps = [len(weight)], [ctx.dilation] * 2
        of_x = of_weight = of_bias = None
        # asked for the bias as well, oneDNN would compute the weights' gradient beside it
        if ctx.needs_input_grad[0]:
            of_x = torch.ops.aten.convolution_backward(
                gradient, x, weight, sizes, [1, 1], steps, steps, False, [0, 0], 1,
                [True, False, False],
            )[0]  # fmt: skip
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(x, gradient, ctx.dilation)
            if not weight.is_contiguous(memory_format=torch.channels_last):
                of_weight = of_weight.contiguous()
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_x, of_weight, of_bias, None


def _weight_gradient(x: Tensor, gradient: Tensor, dilation: int) -> Tensor:
    """d sum(gradient * conv(x, W)) / dW, [C_out, C_in, 3, 3], channels last."""
    _, channels_in, height, width = x.shape
    channels_out = gradient.shape[1]
    after = gradient.permute(0, 2, 3, 1).reshape(-1, channels_out).T
    before = F.pad(x.permute(0, 2, 3, 1), (0, 0, dilation, dilation, dilation, dilation))
    weight = gradient.new_empty(channels_out, 3, 3, channels_in)
    for i in range(3):
        for j in range(3):
            rows = slice(i * dilation, i * dilation + height)
            columns = slice(j * dilation, j * dilation + width)
            tap = before[:, rows, columns].reshape(-1, channels_in)
            torch.mm(after, tap, out=weight[:, i, j])
    return weight.permute(0, 3, 1, 2)
