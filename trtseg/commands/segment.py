"""`trtseg segment PHOTO... --click X,Y`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from trtseg import bundle as bundles
from trtseg.commands.drawing import contact_sheet, overlay
from trtseg.commands.options.arguments import integer
from trtseg.commands.options.model import add_model_options, load_segmenter
from trtseg.commands.output import EXACT_SUFFIXES, check_folder, check_targets, write_images
from trtseg.commands.photo import read_photo
from trtseg.errors import TrtsegError
from trtseg.runtime.image import Picture
from trtseg.runtime.segmenter import Segmenter
from trtseg.runtime.session import Session
from trtseg.runtime.session.prediction import Prediction

EXAMPLES = """\
examples:
  trtseg segment photo.jpg --click 210,160
  trtseg segment photo.jpg --click 210,160 --background 40,30 --overlay overlay.png --force
  trtseg segment photo.jpg --click 210,160 --candidates candidates/ --json
  trtseg segment photo.jpg --box 120,60,380,320 --cutout object.png --soft
  trtseg segment photo.jpg --mask photo-mask.png --background 40,30 --select 2
  trtseg segment photos/ --click 210,160 -o masks/"""
PHOTOS = (".bmp", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# option: (numbers it takes, their names, help)
PROMPTS = {
    "--click": ("X,Y", "a point on the object, in pixels; may be repeated"),
    "--background": ("X,Y", "one beside it, in pixels; may be repeated"),
    "--box": ("X0,Y0,X1,Y1", "a box around the object, in pixels"),
    "--stroke": ("X,Y,X,Y,...", "a line drawn over the object, in pixels"),
}
PICTURES = ("overlay", "sheet")  # these are looked at: any format will do

Prompt = tuple[str, tuple[float, ...]]  # option, numbers


class _PromptAction(argparse.Action):
    """Keeps all prompts in the order given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        names = PROMPTS[str(option_string)][0]
        try:
            numbers = tuple(float(part) for part in str(values).split(","))
            many = option_string == "--stroke" and len(numbers) >= 4 and len(numbers) % 2 == 0
            if not many and len(numbers) != len(names.split(",")):
                raise ValueError
        except ValueError:
            parser.error(f"{option_string}: expected {names} in pixels, got {values!r}")
        namespace.prompts = [*namespace.prompts, (option_string, numbers)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments on `parser`."""
    parser.epilog = EXAMPLES
    parser.add_argument("photos", type=Path, nargs="+", metavar="photo",
                        help="one, or several or folders of them, which all get the same prompts")
    for option, (names, text) in PROMPTS.items():
        parser.add_argument(option, action=_PromptAction, dest="prompts", default=[],
                            metavar=names, help=text)
    parser.add_argument("--mask", type=Path, metavar="FILE",
                        help="continue from this mask, of the photo's size; white is object")
    parser.add_argument("--select", type=integer(0), metavar="N",
                        help="take candidate N, after the last prompt")
    parser.add_argument("-o", "--output", type=Path, metavar="PNG",
                        help="the mask, 0 and 255 (default: PHOTO-mask.png here); with several "
                        "photos, this and the next four are folders")
    parser.add_argument("--overlay", type=Path, metavar="PNG", help="the photo with the mask")
    parser.add_argument("--sheet", type=Path, metavar="PNG",
                        help="the photo with the mask, and beside it with every candidate")
    parser.add_argument("--cutout", type=Path, metavar="PNG",
                        help="the object on a transparent ground")
    parser.add_argument("--soft", action="store_true",
                        help="with a soft edge (best with pip install 'trtseg[matting]')")
    parser.add_argument("--candidates", type=Path, metavar="DIR",
                        help="a folder for all candidates, one mask each")
    parser.add_argument("--session", type=Path, metavar="JSON",
                        help="the session, which `Segmenter.open` goes on with; of one photo")
    parser.add_argument("--json", action="store_true",
                        help="print box, scores, run lengths and timing, a line for each photo")
    parser.add_argument("--no-focus", action="store_true",
                        help="do not look more closely at small objects")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Segment the photos; the written paths, or JSON, go to stdout.

    Of several photos, one that fails is told and the others go on; the exit status is then 1.
    """
    _check_prompts(args)
    several = _several(args)
    photos = _photos(args.photos)
    manifest = bundles.read(args.model).manifest
    if args.select is not None and args.select >= manifest.candidates:
        raise ValueError(f"--select: expected 0 to {manifest.candidates - 1}, got {args.select}")
    if args.mask is not None and not manifest.guidance.previous_mask:
        raise ValueError(f"--mask: the model {args.model} continues from no mask")
    targets = {photo: _targets(args, photo, several, manifest.candidates) for photo in photos}
    _check_targets([each for own in targets.values() for each in own.items()], several, args.force)
    if args.session is not None:
        if several:
            raise ValueError("--session: expected with one photo")
        check_targets([args.session], force=args.force, suffixes=(".json",))
    given = None
    if args.mask is not None:
        given = read_photo(args.mask).rgb().max(axis=2) > 127
    if not several:
        photo, picture = photos[0], _read(args, photos[0])
        segmenter = load_segmenter(args)
        _segment(args, segmenter, photo, picture, given, targets[photo])
        return 0
    segmenter = load_segmenter(args)
    failed = 0
    for photo in tqdm(photos, unit="photo", disable=not sys.stderr.isatty()):
        try:
            _segment(args, segmenter, photo, _read(args, photo), given, targets[photo])
        except (TrtsegError, OSError, ValueError) as error:
            failed += 1
            tqdm.write(f"trtseg: {photo}: {error}", file=sys.stderr)
    return 1 if failed else 0


def _segment(
    args: argparse.Namespace,
    segmenter: Segmenter,
    photo: Path,
    picture: Picture,
    given: np.ndarray | None,
    targets: dict[str, Path],
) -> None:
    """Segment one photo and write what was asked for."""
    encoded = segmenter.encode(picture.pixels, picture.image_format)
    session = segmenter.session(encoded, focus=None if args.no_focus else "auto")
    prediction = _answer(session, args, given)
    images: dict[Path, np.ndarray] = {}
    for kind, path in targets.items():
        if kind == "mask":
            images[path] = prediction.mask
        elif kind == "overlay":
            images[path] = overlay(picture.rgb(), prediction.mask, prediction.clicks)
        elif kind == "sheet":
            images[path] = contact_sheet(
                picture.rgb(), prediction.mask, prediction.candidates, prediction.scores,
                prediction.selected, prediction.clicks,
            )  # fmt: skip
        elif kind == "cutout":
            images[path] = prediction.cutout(soft=args.soft)
        else:
            # after a mask that was set, it is the only candidate
            index = int(kind)
            if index < len(prediction.candidates):
                images[path] = prediction.candidates[index]
        path.parent.mkdir(parents=True, exist_ok=True)
    write_images(images, picture.icc)
    written = list(images)
    if args.session is not None:
        session.save(args.session)
        written.append(args.session)
    if args.json:
        print(json.dumps(_report(photo, prediction, written, encoded.encode_ms)))
    else:
        for path in written:
            print(path)


def _answer(
    session: Session, args: argparse.Namespace, given: np.ndarray | None
) -> Prediction:
    """What the session shows after the mask given and all prompts."""
    prediction = session.prediction
    if given is not None:
        prediction = session.set_mask(given)
    for option, numbers in args.prompts:
        if option == "--box":
            prediction = session.add_box(*numbers)
        elif option == "--stroke":
            prediction = session.add_stroke(_points(numbers))
        else:
            x, y = numbers
            prediction = session.add_click(x, y, option == "--click")
        if not _several(args):
            print(f"{option.removeprefix('--')} {','.join(f'{n:g}' for n in numbers)}: "
                  f"{prediction.timing.total_ms:.0f} ms", file=sys.stderr)  # fmt: skip
    if args.select is not None:
        prediction = session.select(args.select)
    return prediction


def _check_prompts(args: argparse.Namespace) -> None:
    """Raises: ValueError: the prompts say nothing about where the object is."""
    options = [option for option, _ in args.prompts]
    if args.mask is None:
        if not options:
            raise ValueError("--click: expected at least one X,Y")
        if not {"--click", "--box", "--stroke"} & set(options):
            raise ValueError("--click: expected at least one point on the object")
    elif args.select is not None and not options:
        raise ValueError("--select: expected with a click or a box")
    for option, numbers in args.prompts:
        if option == "--box" and not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
            got = ",".join(f"{number:g}" for number in numbers)
            raise ValueError(f"--box: expected X0 < X1 and Y0 < Y1, got {got}")
    if args.soft and args.cutout is None:
        raise ValueError("--soft: expected with --cutout")


def _points(numbers: Sequence[float]) -> list[tuple[float, float]]:
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _several(args: argparse.Namespace) -> bool:
    """Whether results go into folders, named after their photos."""
    return len(args.photos) > 1 or args.photos[0].is_dir()


def _photos(paths: list[Path]) -> list[Path]:
    """The photos named, and those in the folders named.

    Raises:
        ValueError: a folder holds none.
    """
    found = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in PHOTOS)
            if not inside:
                raise ValueError(f"{path}: no photo in this folder")
            found += inside
        else:
            found.append(path)
    return found


def _read(args: argparse.Namespace, photo: Path) -> Picture:
    """The photo, if the prompts fit it."""
    picture = read_photo(photo)
    _check_inside(args.prompts, picture.size)
    return picture


def _check_inside(prompts: list[Prompt], size: tuple[int, int]) -> None:
    """Sessions check their clicks, too; here it is done before a model is loaded.

    Raises:
        ValueError: a click is no point of the image.
    """
    height, width = size
    for option, numbers in prompts:
        if option == "--box":
            x0, y0, x1, y1 = numbers
            inside = x0 < width and y0 < height and x1 > 0 and y1 > 0
            wanted = "a box that meets"
        else:
            inside = all(
                -0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5  # NaN is nowhere
                for x, y in _points(numbers)
            )
            wanted = "points inside" if option == "--stroke" else "a point inside"
        if not inside:
            raise ValueError(
                f"{option}: expected {wanted} the image, 0,0 to {width - 1},{height - 1}, "
                f"got {','.join(f'{number:g}' for number in numbers)}"
            )


def _targets(
    args: argparse.Namespace, photo: Path, several: bool, candidates: int
) -> dict[str, Path]:
    """The files to write for a photo, by kind; candidates by their index."""
    chosen = {"mask": args.output, "overlay": args.overlay, "sheet": args.sheet,
              "cutout": args.cutout}  # fmt: skip
    found = {}
    for kind, path in chosen.items():
        if several and (path is not None or kind == "mask"):
            found[kind] = (path or Path()) / f"{photo.stem}-{kind}.png"
        elif path is not None:
            found[kind] = path
        elif kind == "mask":
            found[kind] = Path(f"{photo.stem}-mask.png")
    if args.candidates is not None:
        prefix = f"{photo.stem}-" if several else ""
        found |= {str(i): args.candidates / f"{prefix}{i}.png" for i in range(candidates)}
    return found


def _check_targets(targets: list[tuple[str, Path]], several: bool, force: bool) -> None:
    """Refuse before any work is done; folders that are missing are made later.

    Raises:
        OSError, ValueError: see `check_targets`.
    """
    if several and len({path for _, path in targets}) < len(targets):
        raise ValueError("photos: expected names that differ by more than the ending")
    made = [path for kind, path in targets if several or kind.isdigit()]
    there = [
        (kind, path)
        for kind, path in targets
        if path.parent.is_dir() or not (several or kind.isdigit())
    ]
    exact = [path for kind, path in there if kind not in PICTURES]
    check_targets(exact, force=force, suffixes=EXACT_SUFFIXES)
    check_targets([path for _, path in there], force=force)
    for folder in {path.parent for path in made}:
        if not folder.is_dir():
            check_folder(next(p for p in (folder, *folder.parents) if os.path.lexists(p)))


def _report(
    photo: Path, prediction: Prediction, written: list[Path], encode_ms: float
) -> dict[str, object]:
    height, width = prediction.mask.shape
    return {
        "photo": str(photo),
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
