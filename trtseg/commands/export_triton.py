"""`trtseg export-triton MODEL REPOSITORY`: a model as a repository of the Triton server."""

from __future__ import annotations

import argparse
from pathlib import Path

from trtseg import bundle as bundles
from trtseg.commands.options.arguments import integer
from trtseg.runtime.tensorrt.plan_cache import EngineCache

EXAMPLES = """\
examples:
  trtseg export-triton lite models/
  trtseg export-triton lite models/ --pipeline --kind cpu
  trtseg build-engine lite --target tensorrt --output engines/
  trtseg export-triton lite models/ --platform tensorrt --engines engines/"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments on `parser`."""
    from trtseg.export.triton import KINDS, PLATFORMS

    parser.epilog = EXAMPLES
    parser.add_argument("model", help="a shipped model or the path of a bundle")
    parser.add_argument("repository", type=Path, help="folder; other models in it stay")
    parser.add_argument("--platform", choices=tuple(PLATFORMS), default="onnxruntime",
                        help="what the server runs the networks with (default: onnxruntime)")
    parser.add_argument("--pipeline", action="store_true",
                        help="write one more model, which holds the whole chain (needs trtseg and "
                        "Triton's Python backend on the server)")
    parser.add_argument("--engines", type=Path, metavar="FOLDER",
                        help="with --platform tensorrt: what `trtseg build-engine --output` made")
    parser.add_argument("--precision", choices=("fp16", "fp32"),
                        help="default: fp16 on a GPU, if there")
    parser.add_argument("--kind", choices=tuple(KINDS), default="gpu",
                        help="where the instances run (default: gpu)")
    parser.add_argument("--instances", type=integer(1, 64), default=1, help="of each model")
    parser.add_argument("--version", type=integer(1), default=1, help="of the models (default 1)",
                        dest="model_version")
    parser.add_argument("--force", action="store_true", help="replace models of the same names")


def run(args: argparse.Namespace) -> int:
    """Write, and print one line per model."""
    from trtseg.export.triton import pipeline_model, triton_models, write_repository

    if (args.platform == "tensorrt") != (args.engines is not None):
        raise ValueError("--engines: expected with --platform tensorrt, and only with it")
    if args.engines is not None and not args.engines.is_dir():
        raise ValueError(f"--engines: expected a folder, got {str(args.engines)!r}")
    bundle = bundles.read(args.model)
    models = triton_models(
        bundle,
        platform=args.platform,
        precision=args.precision,
        kind=args.kind,
        instances=args.instances,
        engines=None if args.engines is None else EngineCache(args.engines),
    )
    if args.pipeline:
        models.append(pipeline_model(bundle, kind=args.kind, instances=args.instances))
    try:
        folders = write_repository(
            models, args.repository, version=args.model_version, overwrite=args.force
        )
    except FileExistsError as error:
        raise FileExistsError(f"{error}; pass --force to replace it") from None
    for model, folder in zip(models, folders, strict=True):
        print(f"{folder}\t{model.filename}\t{len(model.network) / 2**20:.2f} MiB")
    return 0
