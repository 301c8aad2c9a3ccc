"""What the library's convolutions take on the layers of the `full` model, and what could be had.

    python benchmarks/gpu_convolutions.py --json FILE

cuDNN through torch, FP16, channels last, at 640 x 480: the 3x3 layers of f with every dilation, the
first layer of g and those of VGG-19, alone and with a bias and leaky ReLU behind them, each
recorded as a CUDA graph and replayed with the caches emptied before. Beside them a large matrix
product and a large copy, and what changing the memory layout costs. On a CPU (`--device cpu
--small`) the program can be tried out, in float32.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from gpu_timing import median_ms
from torch.nn import functional as F

from trtseg.machine import describe
from trtseg.nn.layers.context import SLOPE

DILATIONS = (1, 2, 4, 8, 16, 32, 64, 128)
# (name, channels in, channels out, pixels of the image per cell)
OTHERS = (
    ("g, first", 13, 64, 1), ("VGG conv1_1", 3, 64, 1), ("VGG conv2_1", 64, 128, 2),
    ("VGG conv2_2", 128, 128, 2), ("VGG conv3_1", 128, 256, 4), ("VGG conv3_2", 256, 256, 4),
    ("VGG conv4_1", 256, 512, 8), ("VGG conv4_2", 512, 512, 8), ("VGG conv5_1", 512, 512, 16),
)  # fmt: skip


def ceilings(device: torch.device, dtype: torch.dtype, small: bool) -> dict[str, float]:
    """A matrix product of random values, a copy, and a change of layout."""
    side, size = (256, 2**20) if small else (8192, 2**30)
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    x = torch.randn(1, 64, *((48, 64) if small else (480, 640)), device=device, dtype=dtype)
    last = x.contiguous(memory_format=torch.channels_last)
    matmul_ms = median_ms(lambda _: left @ right, 10, device)
    copy_ms = median_ms(lambda _: target.copy_(source), 10, device)
    return {
        "matmul_tflop_s": 2 * side**3 / matmul_ms / 1e9,
        "copy_gb_s": 2 * size / copy_ms / 1e6,
        "to_channels_last_ms": median_ms(
            lambda _: x.contiguous(memory_format=torch.channels_last), 10, device
        ),
        "to_channels_first_ms": median_ms(lambda _: last.contiguous(), 10, device),
    }


def layer(
    name: str, channels: tuple[int, int], size: tuple[int, int], dilation: int,
    device: torch.device, dtype: torch.dtype, repeats: int,
) -> dict[str, Any]:  # fmt: skip
    """Times of one 3x3 layer."""
    layout = torch.channels_last
    x = torch.randn(1, channels[0], *size, device=device, dtype=dtype)
    weight = torch.randn(channels[1], channels[0], 3, 3, device=device, dtype=dtype) * 0.05
    bias = torch.randn(channels[1], device=device, dtype=dtype)
    x, weight = x.contiguous(memory_format=layout), weight.contiguous(memory_format=layout)

    def convolve(bias: torch.Tensor | None = None) -> torch.Tensor:
        return F.conv2d(x, weight, bias, padding=dilation, dilation=dilation)

    plain_ms = median_ms(lambda _: convolve(), repeats, device)
    flop = 2 * 9 * channels[0] * channels[1] * size[0] * size[1]
    return {
        "layer": name,
        "channels": list(channels),
        "size": list(size),
        "dilation": dilation,
        "convolution_ms": plain_ms,
        "activated_ms": median_ms(
            lambda _: F.leaky_relu(convolve(bias), SLOPE, inplace=True), repeats, device
        ),
        "tflop_s": flop / plain_ms / 1e9,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--small", action="store_true", help="a tenth of each side: a trial")
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()
    device = torch.device(args.device)
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    height, width, repeats = (48, 64, 1) if args.small else (480, 640, args.repeats)
    jobs = [(f"f, dilation {d}", (64, 64), (height, width), d) for d in DILATIONS]
    jobs += [(n, (i, o), (height // s, width // s), 1) for n, i, o, s in OTHERS]
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, benchmark=True):
        result = {"machine": describe(), **ceilings(device, dtype, args.small), "layers": []}
        for name, channels, size, dilation in jobs:
            row = layer(name, channels, size, dilation, device, dtype, repeats)
            result["layers"].append(row)
            print(f"{name:18}{row['convolution_ms']:9.4f}{row['activated_ms']:9.4f} ms"
                  f"{row['tflop_s']:9.1f} TFLOP/s", flush=True)  # fmt: skip
            args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
