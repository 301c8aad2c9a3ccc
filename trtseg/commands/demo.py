"""`trtseg demo`: the shipped model on a shipped photo."""

from __future__ import annotations

import argparse
import json
import sys
from importlib import resources
from pathlib import Path

from trtseg.commands.drawing import contact_sheet
from trtseg.commands.options.model import add_model_options, load_segmenter
from trtseg.commands.output import EXACT_SUFFIXES, check_targets, write_images
from trtseg.commands.photo import read_photo

PICTURE = Path("trtseg-demo.png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments on `parser`."""
    parser.epilog = "The photos and their licence: trtseg/data/NOTICE.md in the package."
    parser.add_argument("--photo", choices=("coffee", "chelsea"), default="coffee")
    parser.add_argument("-o", "--output", type=Path, metavar="PNG",
                        help=f"the picture to write (default: {PICTURE}, replaced if it is there)")
    parser.add_argument("--mask", type=Path, metavar="PNG", help="write the mask, too")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Segment the demo photo with its clicks; the written paths go to stdout."""
    picture_path = args.output or PICTURE
    # without a name of the caller's it is the command's own picture, of an earlier run
    check_targets([picture_path], force=args.force or args.output is None)
    targets = [path for path in (picture_path, args.mask) if path is not None]
    check_targets(targets[1:], force=args.force, suffixes=EXACT_SUFFIXES)
    check_targets(targets, force=True)
    data = resources.files("trtseg") / "data"
    scene = json.loads((data / "demo.json").read_text())[args.photo]
    with resources.as_file(data / scene["photo"]) as path:
        picture = read_photo(path)
    segmenter = load_segmenter(args)
    encoded = segmenter.encode(picture.pixels, picture.image_format)
    print(f"encoded {picture.size[1]} x {picture.size[0]} pixels in {encoded.encode_ms:.0f} ms",
          file=sys.stderr)  # fmt: skip
    session = segmenter.session(encoded)
    for click in scene["clicks"]:
        prediction = session.add_click(click["x"], click["y"], click["positive"])
        print(f"click {click['x']},{click['y']}: {prediction.timing.total_ms:.0f} ms",
              file=sys.stderr)  # fmt: skip
    sheet = contact_sheet(
        picture.rgb(),
        prediction.mask,
        prediction.candidates,
        prediction.scores,
        prediction.selected,
        prediction.clicks,
    )
    results = (sheet, prediction.mask)
    write_images(dict(zip(targets, results, strict=False)))
    for path in targets:
        print(path)
    return 0
