"""`trtseg export-sam BUNDLE FOLDER`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from trtseg import bundle as bundles
from trtseg.atomic import write_atomically
from trtseg.commands.output import check_folder, check_targets

ENCODER, DECODER, CONFIGURATION = "encoder.onnx", "decoder.onnx", "x-anylabeling.yaml"
# The sizes are Segment Anything's, as the tool's own configurations give them.
YAML = """\
type: segment_anything
name: trtseg-{name}
display_name: trtseg {name}
encoder_model_path: {encoder}
decoder_model_path: {decoder}
input_size: 1024
max_width: 1024
max_height: 682
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments on `parser`."""
    parser.epilog = (
        f"Writes {ENCODER}, {DECODER} and {CONFIGURATION}, which X-AnyLabeling loads as a custom "
        "model."
    )
    parser.add_argument("bundle", help="a name or a bundle's path")
    parser.add_argument("folder", type=Path, help="where to write; made if it is missing")
    parser.add_argument("--force", action="store_true", help="replace existing files")


def run(args: argparse.Namespace) -> int:
    """Trace, check, write; the written paths go to stdout."""
    bundle = bundles.read(args.bundle)
    paths = [args.folder / name for name in (ENCODER, DECODER, CONFIGURATION)]
    if args.folder.is_dir():
        check_targets(paths, force=args.force, suffixes=None)
    else:
        check_folder(args.folder.parent)
    from trtseg.export.sam import sam_graphs

    print("tracing the networks ...", file=sys.stderr)
    encoder, decoder = sam_graphs(bundle)
    yaml = YAML.format(name=bundle.name, encoder=ENCODER, decoder=DECODER).encode()
    args.folder.mkdir(exist_ok=True)
    contents = (encoder.SerializeToString(), decoder.SerializeToString(), yaml)
    for path, data in zip(paths, contents, strict=True):
        write_atomically(path, data, 0o666)
        print(path)
    return 0
