"""Checks the CUDA kernels on a device, then times them against a device-to-device copy.

    python benchmarks/gpu_ops.py [--side 2048] [--repeat 50] [--device cpu] [--json FILE]

Every op runs once on small and awkward inputs on the device and on the CPU, and the two must agree,
or nothing is timed. Then each row gives the time of one replay from CUDA events, the bytes that the
op has to move at least (counted below, from the sizes), the bandwidth that follows, and its share
of the bandwidth of a copy of the same number of bytes, measured right before on the same stream.
Needs a CUDA build of trtseg and of torch, which allocates and copies.

For the memory and race checks of compute-sanitizer run the tests:

    export TRTSEG_REQUIRE_CUDA=1
    compute-sanitizer --tool memcheck  python -m pytest tests/ops -k "cuda and not ptxas"
    compute-sanitizer --tool racecheck python -m pytest tests/ops -k "cuda and not ptxas"
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_timing import median_ms

from trtseg import _cpu

CHANNELS, GUIDANCE, MASKS = 64, 6, 6
TYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass
class Row:
    """One op at one size and type; median over the repetitions."""

    op: str
    type: str
    mib: float
    ms: float
    gb_per_s: float
    copy_gb_per_s: float

    @property
    def share(self) -> float:
        return self.gb_per_s / self.copy_gb_per_s


@dataclass
class Case:
    """A call of a raw module on the tensors of one device, and what it writes."""

    op: str
    run: Callable[[object, int], None]  # (module, stream)
    outputs: list[torch.Tensor]
    bytes: int


def _size(*tensors: torch.Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def module_of(device: str) -> Any:
    """The native module that works there."""
    if device == "cpu":
        return _cpu
    from trtseg import _cuda

    return _cuda


def cases(height: int, width: int, dtype: torch.dtype, device: str) -> list[Case]:
    """All ops on the same random values, whatever the device. Bytes: inputs read once, outputs
    written once."""
    random = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random).to(dtype).to(device)

    def uniform(*shape: int) -> torch.Tensor:
        return (torch.rand(shape, generator=random) * 0.9 + 0.05).to(dtype).to(device)

    def features(maps: torch.Tensor) -> torch.Tensor:
        """As the networks have them: channels-last on a GPU."""
        if device == "cpu":
            return maps
        return maps[None].contiguous(memory_format=torch.channels_last)[0]

    def empty(*shape: int, of: torch.dtype = dtype) -> torch.Tensor:
        return torch.full(shape, 7, dtype=of, device=device)

    def scratch(size: int) -> torch.Tensor:
        return empty(max(size, 16), of=torch.uint8)

    module = module_of(device)
    f32, i32, u8 = torch.float32, torch.int32, torch.uint8
    sizes = [(-(-height // r), -(-width // r)) for r in (1, 2, 4, 8, 16)]
    levels = [features(normal(CHANNELS, *size)) for size in sizes]
    column = features(empty(CHANNELS, height, width))
    guidance, weight = normal(GUIDANCE, height, width), normal(CHANNELS, GUIDANCE).to(f32)
    base = features(normal(CHANNELS, height, width))
    added = features(empty(CHANNELS, height, width))
    masks, mask_grad = uniform(MASKS, height, width), empty(MASKS, height, width)
    target = (torch.rand((height, width), generator=random) < 0.3).to(u8).to(device)
    clicks = [
        torch.stack([torch.randint(0, n, (5,), generator=random) for n in (height, width)], dim=1)
        .to(i32)
        .to(device)
        for _ in range(2)
    ]
    loss, penalty = empty(MASKS, of=f32), empty(MASKS, of=f32)
    sums = empty(MASKS, 2, of=f32)
    ones = torch.ones(MASKS, device=device)
    jaccard_scratch = scratch(module.jaccard_scratch(MASKS, height, width))
    points = (torch.rand((20, 2), generator=random) * min(height, width)).to(device)
    sites = (torch.rand((height, width), generator=random) < 0.001).to(u8).to(device)
    edt = empty(height, width, of=f32)
    edt_scratch = scratch(module.distance_transform_scratch(height, width))
    low = uniform(max(height // 4, 1), max(width // 4, 1))
    mask = empty(height, width, of=u8)
    upsampled = empty(height, width, of=f32)
    both = torch.stack([points, points.flip(0) * 0.5])
    drawn, scores = empty(4, height, width), uniform(MASKS)
    shown = empty(height, width)
    coarse, guide = (torch.rand(one, generator=random).to(device) for one in
                     ((max(height // 4, 1), max(width // 4, 1)), (height, width)))  # fmt: skip
    model, fine = empty(2, *coarse.shape, of=f32), empty(height, width, of=f32)
    pixels = torch.randint(0, 256, (height, width, 3), generator=random).to(u8).to(device)
    prepared = empty(3, max(height // 2, 1), max(width // 2, 1))
    middle, unit = (127.5, 127.5, 127.5), (1 / 127.5, 1 / 127.5, 1 / 127.5)
    return [
        Case(
            "hypercolumn",
            lambda m, s: m.hypercolumn(levels, None, None, None, column, s),
            [column],
            _size(*levels, column),
        ),
        Case(
            "add_guidance",
            lambda m, s: m.add_guidance(base, guidance, weight, added, 0.2, s),
            [added],
            _size(base, guidance, added),
        ),
        Case(
            "jaccard",
            lambda m, s: m.jaccard(masks, target, *clicks, loss, penalty, sums, jaccard_scratch, s),
            [loss, penalty, sums],
            _size(masks, target),
        ),
        Case(
            "jaccard_gradient",  # after jaccard, whose sums it reads
            lambda m, s: m.jaccard_gradient(target, *clicks, sums, ones, ones, mask_grad, s),
            [mask_grad],
            _size(target, mask_grad),
        ),
        Case(
            "distance_transform",
            lambda m, s: m.distance_transform(sites, edt, edt_scratch, float("inf"), s),
            [edt],
            _size(sites, edt),
        ),
        Case(
            "compose_mask from 1/4",
            lambda m, s: m.compose_mask(low, 0.5, mask, upsampled, s),
            [upsampled, mask],
            _size(low, mask, upsampled),
        ),
        Case(
            "guided_upsample from 1/4",
            lambda m, s: m.guided_upsample(low, coarse, guide, 1e-3, model, fine, s),
            [model, fine],
            _size(low, coarse, guide, model, fine),
        ),
        Case(
            "click_maps, 20 + 20 points",
            lambda m, s: m.click_maps(both, drawn, 64.0, 2.0, s),
            [drawn],
            _size(drawn),
        ),
        Case(
            "best_map",
            lambda m, s: m.best_map(masks, scores, shown, s),
            [shown],
            2 * _size(shown),
        ),
        Case(
            "prepare_image to 1/2",
            lambda m, s: m.prepare_image(pixels, middle, unit, False, prepared, s),
            [prepared],
            _size(pixels, prepared),
        ),
    ]


def check(height: int, width: int, dtype: torch.dtype, device: str) -> None:
    """A device against the CPU.

    Raises:
        AssertionError: they differ by more than the rounding of the type.
    """
    relative, absolute = (1e-4, 1e-3) if dtype == torch.float32 else (2e-3, 4e-3)
    on_cpu = cases(height, width, dtype, "cpu")
    on_device = cases(height, width, dtype, device)
    for mine, theirs in zip(on_device, on_cpu, strict=True):
        mine.run(module_of(device), 0)
        theirs.run(_cpu, 0)
        for got, expected in zip(mine.outputs, theirs.outputs, strict=True):
            torch.testing.assert_close(
                got.cpu(),
                expected,
                rtol=relative,
                atol=absolute,
                msg=lambda text, op=mine.op: f"{op} at {height}x{width}, {dtype}: {text}",
            )


def copy_gb_per_s(total: int, repeat: int, device: str) -> float:
    """Of a copy that reads half of `total` bytes and writes the other half."""
    source = torch.randint(0, 256, (max(total // 2, 1),), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    ms = median_ms(lambda _: target.copy_(source), repeat, torch.device(device))
    return 2 * source.numel() / ms / 1e6


def measure(side: int, repeat: int, device: str) -> list[Row]:
    rows, module = [], module_of(device)
    for name, dtype in TYPES.items():
        for case in cases(side, side, dtype, device):
            copy = copy_gb_per_s(case.bytes, repeat, device)
            ms = median_ms(
                lambda stream, case=case: case.run(module, stream), repeat, torch.device(device)
            )
            rows.append(Row(case.op, name, case.bytes / 2**20, ms, case.bytes / ms / 1e6, copy))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=2048, help="of the square maps, in pixels")
    parser.add_argument("--repeat", type=int, default=50)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda",
                        help="cpu to try the program out (default: cuda)")  # fmt: skip
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    device, name = arguments.device, "CPU"
    if device == "cuda":
        if not torch.cuda.is_available() or not module_of(device).devices():
            print("no CUDA device: nothing was checked or timed", file=sys.stderr)
            return 2
        name = torch.cuda.get_device_name()
    for size in ((1, 1), (7, 5), (33, 65), (480, 640)):
        for dtype in TYPES.values():
            check(*size, dtype, device)
    print(f"{name}: all ops agree with the CPU. At {arguments.side}x{arguments.side}:")
    rows = measure(arguments.side, arguments.repeat, device)
    print(f"{'op':28}{'type':>9}{'MiB':>9}{'ms':>9}{'GB/s':>8}{'copy':>8}{'share':>8}")
    for row in rows:
        print(
            f"{row.op:28}{row.type:>9}{row.mib:9.1f}{row.ms:9.3f}{row.gb_per_s:8.0f}"
            f"{row.copy_gb_per_s:8.0f}{row.share:8.0%}"
        )
    if arguments.json:
        report = {"device": name, "side": arguments.side, "rows": [asdict(row) for row in rows]}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
