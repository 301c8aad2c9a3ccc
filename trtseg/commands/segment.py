"""`trtseg segment PHOTO --click X,Y`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trtseg import bundle as bundles
from trtseg.commands.drawing import contact_sheet, overlay
from trtseg.commands.model_options import add_model_options, load_segmenter
from trtseg.commands.output import EXACT_SUFFIXES, check_folder, check_targets, write_images
from trtseg.commands.photo import read_photo
from trtseg.runtime.session.prediction import Prediction

EXAMPLES = """\
examples:
  trtseg segment photo.jpg --click 210,160
  trtseg segment photo.jpg --click 210,160 --background 40,30 --overlay overlay.png --force
  trtseg segment photo.jpg --click 210,160 --candidates all/ --json"""


class _ClickAction(argparse.Action):
    """Keeps --click and --background in the order given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        try:
            x, y = (float(part) for part in str(values).split(","))
        except ValueError:
            parser.error(f"{option_string}: expected X,Y in pixels, got {values!r}")
        clicks = [*namespace.clicks, (x, y, option_string == "--click")]
        namespace.clicks = clicks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments on `parser`."""
    parser.epilog = EXAMPLES
    parser.add_argument("photo", type=Path)
    for option, text in (("--click", "a point on the object"), ("--background", "one beside it")):
        parser.add_argument(
            option, action=_ClickAction, dest="clicks", default=[], metavar="X,Y",
            help=f"{text}, in pixels; may be repeated",
        )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, metavar="PNG",
                        help="the mask, 0 and 255 (default: PHOTO-mask.png here)")
    parser.add_argument("--overlay", type=Path, metavar="PNG", help="the photo with the mask")
    parser.add_argument("--sheet", type=Path, metavar="PNG",
                        help="the photo with the mask, and beside it with every candidate")
    parser.add_argument("--cutout", type=Path, metavar="PNG",
                        help="the object on a transparent ground")
    parser.add_argument("--candidates", type=Path, metavar="DIR",
                        help="a folder for all candidates, one mask each")
    parser.add_argument("--json", action="store_true",
                        help="print box, scores, run lengths and timing")
    parser.add_argument("--no-focus", action="store_true",
                        help="do not look more closely at small objects")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Segment one photo; the written paths, or JSON, go to stdout."""
    if not args.clicks:
        raise ValueError("--click: expected at least one X,Y")
    if not any(positive for _, _, positive in args.clicks):
        raise ValueError("--click: expected at least one point on the object")
    picture = read_photo(args.photo)
    _check_inside(args.clicks, picture.size)
    mask_path = args.output or Path(f"{args.photo.stem}-mask.png")
    single = [p for p in (mask_path, args.overlay, args.sheet, args.cutout) if p is not None]
    check_targets(single, force=args.force)
    exact = [p for p in (mask_path, args.cutout) if p is not None]
    check_targets(exact, force=args.force, suffixes=EXACT_SUFFIXES)
    candidates = _candidates(args, single) if args.candidates is not None else []
    segmenter = load_segmenter(args)
    encoded = segmenter.encode(picture.pixels, picture.image_format)
    session = segmenter.session(encoded, focus=None if args.no_focus else "auto")
    for x, y, positive in args.clicks:
        prediction = session.add_click(x, y, positive)
        print(f"click {x:g},{y:g}: {prediction.timing.total_ms:.0f} ms", file=sys.stderr)
    images = {mask_path: prediction.mask}
    if args.overlay is not None:
        images[args.overlay] = overlay(picture.rgb(), prediction.mask, prediction.clicks)
    if args.sheet is not None:
        images[args.sheet] = contact_sheet(
            picture.rgb(),
            prediction.mask,
            prediction.candidates,
            prediction.scores,
            prediction.selected,
            prediction.clicks,
        )
    if args.cutout is not None:
        images[args.cutout] = prediction.cutout()
    if candidates:
        args.candidates.mkdir(parents=True, exist_ok=True)
        images.update(zip(candidates, prediction.candidates, strict=True))
    write_images(images)
    if args.json:
        print(json.dumps(_report(prediction, single + candidates, encoded.encode_ms)))
    else:
        for path in single + candidates:
            print(path)
    return 0


def _check_inside(clicks: list[tuple[float, float, bool]], size: tuple[int, int]) -> None:
    """Sessions check their clicks, too; here it is done before a model is loaded.

    Raises:
        ValueError: a click is no point of the image.
    """
    height, width = size
    for x, y, positive in clicks:
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):  # NaN is nowhere
            raise ValueError(
                f"{'--click' if positive else '--background'}: expected a point inside the image, "
                f"0,0 to {width - 1},{height - 1}, got {x:g},{y:g}"
            )


def _candidates(args: argparse.Namespace, others: list[Path]) -> list[Path]:
    """The files for all candidates, checked together with the other results.

    Raises:
        BundleError: there is no such model.
        OSError, ValueError: see `check_targets`.
    """
    folder = args.candidates
    count = bundles.read(args.model).manifest.candidates
    paths = [folder / f"{index}.png" for index in range(count)]
    if folder.is_dir():
        check_targets([*others, *paths], force=args.force)
    else:
        there = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
        check_folder(there)
    return paths


def _report(prediction: Prediction, written: list[Path], encode_ms: float) -> dict[str, object]:
    height, width = prediction.mask.shape
    return {
        "size": {"height": height, "width": width},
        "box": prediction.box,
        "pixels": int((prediction.mask > 0).sum()),
        "selected": prediction.selected,
        "scores": [round(float(score), 4) for score in prediction.scores],
        "rle": prediction.rle(),
        "encode_ms": round(encode_ms, 3),
        "last_click_ms": {k: round(v, 3) for k, v in prediction.timing.to_dict().items()},
        "files": [str(path) for path in written],
    }
