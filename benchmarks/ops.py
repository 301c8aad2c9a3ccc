"""Times the native operations against what one would use instead, in one run on the same inputs.

    python benchmarks/ops.py [--size vga] [--repeat 15] [--json FILE]

Competitors are OpenCV and eager torch on the CPU. The two sides of a row alternate, call by call,
so that a change in the machine's load meets both; the table shows the fastest call of each, and
the JSON file the medians too. As long as there are operations, each with its competitors.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from trtseg import _cpu, ops
from trtseg.machine import describe
from trtseg.nn.jaccard import jaccard

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import plain_ops

SIZES = {"vga": (480, 640), "4k": (2160, 3840)}
VGG_CHANNELS = (64, 128, 256, 512, 512)
RESULTS = Path(__file__).resolve().parent / "results"


@dataclass
class Row:
    """One comparison; times in milliseconds."""

    op: str
    case: str
    size: str
    other: str
    native_ms: float
    native_median_ms: float
    other_ms: float | None
    other_median_ms: float | None
    target: str

    @property
    def ratio(self) -> float | None:
        return None if self.other_ms is None else self.other_ms / self.native_ms


def elapsed_ms(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1e3


def compare(
    op: str,
    case: str,
    size: str,
    native: Callable[[], object],
    other: Callable[[], object] | None,
    other_name: str,
    repeat: int,
    target: str = "",
) -> Row:
    native()
    mine, theirs = [], []
    # A competitor that takes seconds is not repeated as often as it takes to be patient.
    patience = repeat if other is None or elapsed_ms(other) < 1000 else 3
    for _ in range(repeat):
        mine.append(elapsed_ms(native))
        if other is not None and len(theirs) < patience:
            theirs.append(elapsed_ms(other))
    row = Row(
        op,
        case,
        size,
        other_name,
        min(mine),
        statistics.median(mine),
        min(theirs) if theirs else None,
        statistics.median(theirs) if theirs else None,
        target,
    )
    print_row(row)
    return row


def print_header() -> None:
    print(f"{'op':<19}{'case':<22}{'size':<6}{'native ms':>11}{'other ms':>11}{'ratio':>8}  other")


def print_row(row: Row) -> None:
    other = "" if row.other_ms is None else f"{row.other_ms:.3f}"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    print(
        f"{row.op:<19}{row.case:<22}{row.size:<6}{row.native_ms:>11.3f}{other:>11}{ratio:>8}  "
        f"{row.other}  {row.target}",
        flush=True,
    )


def blob(size: tuple[int, int]) -> np.ndarray:
    """An object with a wavy border, about a sixth of the image."""
    y, x = np.mgrid[: size[0], : size[1]]
    radius = ((y - size[0] * 0.5) / (size[0] * 0.3)) ** 2
    radius += ((x - size[1] * 0.45) / (size[1] * 0.2)) ** 2
    return radius < 1 + 0.2 * np.sin(x / 17) * np.cos(y / 13)


def distance_transforms(name: str, repeat: int) -> list[Row]:
    size, rng, rows = SIZES[name], np.random.default_rng(0), []
    inside = blob(size)
    edge = (inside ^ np.roll(inside, 1, 0)) | (inside ^ np.roll(inside, 1, 1))
    clicks = np.zeros(size, bool)
    clicks[rng.integers(0, size[0], 10), rng.integers(0, size[1], 10)] = True
    masks = {
        "to an object": inside,
        "inside an object": ~inside,
        "to its border": edge,
        "to ten pixels": clicks,
        "to 1 % noise": rng.random(size) < 0.01,
    }
    out, other_out = np.empty(size, np.float32), np.empty(size, np.float32)
    for case, mask in masks.items():
        inverted = (~mask).astype(np.uint8)
        rows.append(
            compare(
                "distance_transform",
                case,
                name,
                lambda mask=mask: ops.distance_transform(mask, out=out),
                lambda inverted=inverted: cv2.distanceTransform(
                    inverted, cv2.DIST_L2, cv2.DIST_MASK_PRECISE, dst=other_out
                ),
                "cv2 precise",
                repeat,
                "target: ratio >= 1",
            )
        )
    return rows


def forget_peak() -> None:
    """Begin a new peak of memory (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_mib() -> int:
    """The process's peak of memory since `forget_peak`."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) >> 10


def hypercolumns(name: str, repeat: int, memory: dict[str, int]) -> list[Row]:
    """Ours on projected levels; torch's five upsamplings, concatenation and 1x1 convolution of the
    1,472 channels only at VGA: at 4K its input alone takes 49 GB."""
    size = SIZES[name]
    generator = torch.Generator().manual_seed(0)
    grids = [(-(-size[0] // s), -(-size[1] // s)) for s in (1, 2, 4, 8, 16)]
    projected = [torch.randn((64, *grid), generator=generator).numpy() for grid in grids]
    out = np.empty((64, *size), np.float32)

    def native() -> object:
        return ops.hypercolumn(projected, size, out=out)

    forget_peak()
    native()
    memory[f"hypercolumn {name} native"] = peak_mib()
    if name != "vga":
        return [compare("hypercolumn", "64 channels, 5 levels", name, native, None, "", repeat)]
    levels = [
        torch.randn((1, channels, *grid), generator=generator)
        for channels, grid in zip(VGG_CHANNELS, grids, strict=True)
    ]
    weight = torch.randn((64, sum(VGG_CHANNELS), 1, 1), generator=generator)

    def concatenated() -> object:
        with torch.inference_mode():
            wide = [
                torch.nn.functional.interpolate(level, size, mode="bilinear", align_corners=False)
                for level in levels
            ]
            return torch.nn.functional.conv2d(torch.cat(wide, 1), weight)

    tensors = [torch.from_numpy(level) for level in projected]

    def plain() -> object:
        return plain_ops.hypercolumn(tensors, size)

    rows = [
        compare("hypercolumn", "projected levels", name, native, plain, "torch, projected", repeat),
        compare(
            "hypercolumn",
            "64 channels, 5 levels",
            name,
            native,
            concatenated,
            "torch, 1472 channels",
            repeat,
            "target: ratio >= 20",
        ),
    ]
    memory[f"hypercolumn {name} torch"] = peak_mib()
    return rows


def guidances(name: str, repeat: int) -> list[Row]:
    size = SIZES[name]
    channels = 64 if name == "vga" else 16  # torch needs three times the memory
    base, guidance = torch.randn((channels, *size)), torch.rand((5, *size))
    weight = torch.randn((channels, 5))
    out = torch.empty_like(base)
    case = f"{channels} channels"
    with torch.inference_mode():
        return [
            compare(
                "add_guidance",
                case,
                name,
                lambda: ops.add_guidance(base, guidance, weight, out=out),
                lambda: plain_ops.add_guidance(base, guidance, weight),
                "torch",
                repeat,
            ),
        ]


def jaccards(name: str, repeat: int) -> list[Row]:
    size = SIZES[name]
    masks = torch.rand((6, *size)).requires_grad_()
    target = torch.from_numpy(blob(size).astype(np.uint8))
    target[:3] = plain_ops.IGNORE
    clicks = torch.randint(100, (5, 2), dtype=torch.int32)
    weights = torch.rand((2, 6))

    def run(function: Callable[..., tuple[Tensor, Tensor]]) -> None:
        masks.grad = None
        losses = function(masks, target, clicks[:3], clicks[3:])
        torch.autograd.backward(losses, list(weights))

    return [
        compare(
            "jaccard",
            "M=6, with gradient",
            name,
            lambda: run(jaccard),
            lambda: run(plain_ops.jaccard),
            "torch eager",
            repeat,
            "target: ratio >= 3",
        )
    ]


def compositions(name: str, repeat: int) -> list[Row]:
    size, rows = SIZES[name], []
    for source in ((120, 160), (480, 640)):
        noise = np.random.default_rng(0).random(source, np.float32)
        probability = cv2.GaussianBlur(noise, (9, 9), 3)
        out = np.empty(size, np.uint8)

        def other(probability: np.ndarray = probability) -> object:
            resized = cv2.resize(probability, size[::-1], interpolation=cv2.INTER_LINEAR)
            return np.multiply(resized >= 0.5, np.uint8(255), dtype=np.uint8)

        def other_cv2(probability: np.ndarray = probability) -> object:
            resized = cv2.resize(probability, size[::-1], interpolation=cv2.INTER_LINEAR)
            return cv2.compare(resized, 0.5, cv2.CMP_GE)

        def native(probability: np.ndarray = probability, out: np.ndarray = out) -> object:
            return ops.compose_mask(probability, size, out=out)

        case = f"from {source[1]}x{source[0]}"
        target = "target: ratio >= 1" if source == (480, 640) and name == "4k" else ""
        for function, label in ((other, "cv2.resize, >="), (other_cv2, "cv2.resize, compare")):
            rows.append(
                compare("compose_mask", case, name, native, function, label, repeat, target)
            )
    return rows


def guided_upsamplings(name: str, repeat: int) -> list[Row]:
    """A map of a quarter of the size, along an image; OpenCV's steps are those of He and Sun."""
    size, random = SIZES[name], np.random.default_rng(0)
    low = (size[0] // 4, size[1] // 4)
    guide = cv2.GaussianBlur(random.random(size, np.float32), (9, 9), 3)
    coarse = cv2.resize(guide, low[::-1], interpolation=cv2.INTER_AREA)
    values = cv2.GaussianBlur(random.random(low, np.float32), (9, 9), 3)
    model, out = np.empty((2, *low), np.float32), np.empty(size, np.float32)

    def mean(plane: np.ndarray) -> np.ndarray:
        return cv2.blur(plane, (3, 3), borderType=cv2.BORDER_REPLICATE)

    def larger(plane: np.ndarray) -> np.ndarray:
        return cv2.resize(plane, size[::-1], interpolation=cv2.INTER_LINEAR)

    def other() -> object:
        means = mean(coarse)
        slope = mean(values * coarse) - mean(values) * means
        slope /= mean(coarse * coarse) - means * means + 1e-3
        found = larger(values) + larger(slope) * (guide - larger(means))
        return np.clip(found, 0, 1, out=found)

    def native() -> object:
        return ops.guided_upsample(values, coarse, guide, epsilon=1e-3, model=model, out=out)

    case = f"from {low[1]}x{low[0]}"
    return [compare("guided_upsample", case, name, native, other, "cv2, numpy", repeat)]


def click_maps(name: str, repeat: int) -> list[Row]:
    """A click's guidance on grids of stride 4 and 2, and at the image's size."""
    rows = []
    for stride in (4, 2, 1):
        size = (SIZES[name][0] // stride, SIZES[name][1] // stride)
        points = (np.random.default_rng(0).random((2, 10, 2)) * size).astype(np.float32)
        out = np.empty((4, *size), np.float32)
        tensors = torch.from_numpy(points)

        def native(points: np.ndarray = points, out: np.ndarray = out) -> object:
            return ops.click_maps(points, out, limit_px=64, sigma_px=2)

        def plain(tensors: Tensor = tensors, size: tuple[int, int] = size) -> object:
            return plain_ops.click_maps(tensors, size, limit_px=64, sigma_px=2)

        case = f"10 + 10 clicks, 1/{stride}"
        rows.append(compare("click_maps", case, name, native, plain, "torch", repeat))
    return rows


def best_maps(name: str, repeat: int) -> list[Row]:
    size = (SIZES[name][0] // 4, SIZES[name][1] // 4)
    maps = np.random.default_rng(0).random((6, *size), np.float32)
    scores, out = np.arange(6, dtype=np.float32), np.empty(size, np.float32)

    def other() -> object:
        out[:] = maps[scores.argmax()]
        return out

    def native() -> object:
        return ops.best_map(maps, scores, out)

    return [compare("best_map", "6 maps, 1/4", name, native, other, "numpy", repeat)]


def prepared_images(name: str, repeat: int) -> list[Row]:
    """To 576 x 432."""
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZES[name], 3), np.uint8)
    size = (432, 576)
    mean, scale = (127.5, 127.5, 127.5), (1 / 127.5, 1 / 127.5, 1 / 127.5)
    out = np.empty((3, *size), np.float32)

    def other() -> object:
        reduced = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA)
        return cv2.dnn.blobFromImage(reduced, 1 / 127.5, mean=mean)

    def native() -> object:
        return ops.prepare_image(pixels, out, mean=mean, scale=scale)

    name_of_other = "cv2 INTER_AREA, blob"
    return [compare("prepare_image", "to 576x432", name, native, other, name_of_other, repeat)]


def machine() -> dict[str, object]:
    """What it ran on."""
    threads = {"native": _cpu.num_threads(), "torch": torch.get_num_threads()}
    return {**describe(), "threads": threads}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--size", choices=SIZES, action="append", help="default: all")
    parser.add_argument("--repeat", type=int, default=15, help="calls of each side")
    parser.add_argument("--json", type=Path, default=RESULTS / "ops.json", help="file to write")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    description = machine()
    rows: list[Row] = []
    memory: dict[str, int] = {}
    print_header()
    for name in arguments.size or SIZES:
        rows += hypercolumns(name, arguments.repeat, memory)
        rows += distance_transforms(name, arguments.repeat)
        rows += guidances(name, arguments.repeat)
        rows += jaccards(name, arguments.repeat)
        rows += compositions(name, arguments.repeat)
        rows += guided_upsamplings(name, arguments.repeat)
        rows += click_maps(name, arguments.repeat)
        rows += best_maps(name, arguments.repeat)
        rows += prepared_images(name, arguments.repeat)
    for case, peak in memory.items():
        print(f"peak memory of the process in {case}: {peak} MiB")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(
        json.dumps(
            {
                "machine": description,
                "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
                "peak_memory_mib": memory,
            },
            indent=2,
        )
        + "\n",
        encoding="utf-8",
    )
    print(f"written: {arguments.json}")


if __name__ == "__main__":
    main()
