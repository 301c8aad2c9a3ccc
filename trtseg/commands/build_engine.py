"""`trtseg build-engine`: a bundle's TensorRT engines, for this machine or ahead of time."""

from __future__ import annotations

import argparse
import logging
import re
import sys

from trtseg import bundle as bundles
from trtseg.commands.build_progress import build_progress
from trtseg.commands.options.arguments import integer
from trtseg.errors import BackendUnavailable
from trtseg.runtime.tensorrt.build_options import RTX_COMPUTE_CAPABILITIES, BuildOptions
from trtseg.runtime.tensorrt.bundle_plans import SizeRange, obtain, requests
from trtseg.runtime.tensorrt.device_memory import Gpu, describe_gpu, load_cupy
from trtseg.runtime.tensorrt.library import load_tensorrt
from trtseg.runtime.tensorrt.plan_cache import EngineCache

EXAMPLES = """\
examples:
  trtseg build-engine lite                      for this machine's GPU
  trtseg build-engine lite --profile 352x448 --profile 32x32:352x448:448x448
  trtseg build-engine lite --target rtx --compute-capability 8.6,8.9,12.0 --output engines/
                                                ahead of time: no GPU is needed"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.epilog = EXAMPLES
    parser.add_argument("bundle", help="a shipped model or the path of a bundle")
    parser.add_argument(
        "--profile",
        metavar="SIZE",
        action="append",
        type=parse_profile,
        default=[],
        help="working size HEIGHTxWIDTH, or MIN:OPT:MAX; may be repeated (default: 4:3, and a "
        "dynamic profile for all other images)",
    )
    parser.add_argument(
        "--target",
        choices=("auto", "rtx", "tensorrt"),
        default="auto",
        help="TensorRT for RTX, TensorRT, or the one that is installed (default)",
    )
    parser.add_argument(
        "--compute-capability",
        metavar="LIST",
        type=lambda text: tuple(text.split(",")),
        default=(),
        help="with --target rtx, the cards to build for, such as 8.6,8.9,12.0: no GPU is needed",
    )
    parser.add_argument("--precision", choices=("fp16", "fp32"), help="default: fp16 if there")
    parser.add_argument("--workspace-mib", type=int, default=BuildOptions().workspace_mib)
    parser.add_argument("--optimization-level", type=int, metavar="0..5")
    parser.add_argument(
        "--hardware-compatibility",
        choices=("none", "ampere_plus", "same_compute_capability"),
        default="none",
        help="TensorRT only: engines for other GPUs than this one",
    )
    parser.add_argument(
        "--refittable",
        metavar="NAMES",
        default="",
        help="ONNX initialisers that a program of yours will replace, separated by commas, or "
        "all; adaptation builds its own engines",
    )
    parser.add_argument("--device", type=integer(0), default=0, help="number of the GPU")
    parser.add_argument("--output", metavar="FOLDER", help="default: the user's engine cache")
    parser.add_argument("--force", action="store_true", help="build also what is there")
    parser.add_argument("--explain", action="store_true", help="only say what would be built")
    parser.add_argument("--verbose", action="store_true", help="show TensorRT's messages")


def run(args: argparse.Namespace) -> int:
    """Build, and print one line per engine."""
    bundle = bundles.read(args.bundle)
    if args.verbose:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    names = tuple(name for name in args.refittable.split(",") if name)
    options = BuildOptions(
        workspace_mib=args.workspace_mib,
        optimization_level=args.optimization_level,
        hardware_compatibility=args.hardware_compatibility,
        compute_capabilities=args.compute_capability,
        refittable="all" if names == ("all",) else names,
    )
    target = None if args.target == "auto" else args.target
    if args.compute_capability:
        if target == "tensorrt":
            raise ValueError("--compute-capability: only with --target rtx")
        target = "rtx"
    missing: BackendUnavailable | None = None
    flavour, version, gpu = "tensorrt_rtx" if target == "rtx" else "tensorrt", "any", None
    try:
        tensorrt = load_tensorrt(target)
        flavour, version = tensorrt.flavour, tensorrt.version
        gpu = _gpu(args, flavour)
    except BackendUnavailable as error:
        if not args.explain:
            raise
        missing = error  # profiles and graphs can be told, and are checked, all the same
    found = requests(
        bundle,
        flavour=flavour,
        version=version,
        gpu=gpu,
        precision=args.precision,
        sizes=args.profile,
        options=options,
        target=target,
    )
    if missing is not None:
        for request in found:
            print(f"{request.key.graph}: {request.key.precision}, {request.key.profiles}")
        print(f"whether these are built already cannot be told here: {missing}", file=sys.stderr)
        return 0
    cache = EngineCache(args.output)
    for request in found:
        if args.explain:
            print(cache.explain(request.key))
            continue
        if args.force:
            cache.remove(request.key)
        with build_progress(request.key.graph) as progress:
            result = obtain(request, cache, progress=progress)
        print(
            f"{request.key.graph}\t{'built' if result.built else 'ready'}\t"
            f"{len(result.plan) / 2**20:.2f} MiB\t{cache.path(request.key)}"
        )
        if result.problem is not None:
            print(f"trtseg: error: {result.problem}", file=sys.stderr)
            return 1
    return 0


def parse_profile(text: str) -> SizeRange:
    """ "480x640" or "64x64:480x640:1024x1024" as (minimum, optimum, maximum)."""
    sizes = []
    for part in text.split(":"):
        match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", part)
        if match is None:
            raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH or MIN:OPT:MAX, got {text!r}")
        sizes.append((int(match[1]), int(match[2])))
    if len(sizes) == 1:
        return sizes[0], sizes[0], sizes[0]
    if len(sizes) != 3:
        raise argparse.ArgumentTypeError(f"expected one size or three, got {text!r}")
    return sizes[0], sizes[1], sizes[2]


def _gpu(args: argparse.Namespace, flavour: str) -> Gpu | None:
    """The GPU to build for; None ahead of time, which only TensorRT for RTX can."""
    if args.compute_capability:
        return None
    try:
        return describe_gpu(load_cupy(), args.device)
    except BackendUnavailable as error:
        if flavour == "tensorrt_rtx":
            return None
        raise BackendUnavailable(
            f"TensorRT builds on the GPU that will run the engine: {error}. Without a GPU, use "
            f"--target rtx --compute-capability {','.join(RTX_COMPUTE_CAPABILITIES[2:5])}"
        ) from None
