"""`python -m trtseg.train.contact_sheet CONFIG.json OUT.png`: what training will be shown.

Every tile is one prompt of one crop: the object is green, void is grey, positive clicks are
white dots with a green rim, negative ones with a red rim, a box or loop is yellow, and the edge of
a mask to repair is blue. Below the initial clicks, a second row
shows how corrections continue them, made on masks that are the object shifted and blurred (there
is no network here to make mistakes).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from trtseg.errors import TrtsegError
from trtseg.train.clicks import correction_click
from trtseg.train.config import TrainConfig, read_config
from trtseg.train.data import VOID, Crops
from trtseg.train.images import LabelledImages

EXIT_BAD_INPUT = 2
YELLOW, BLUE = (255, 220, 0), (60, 120, 255)
GREEN, RED, WHITE, GREY = (0, 190, 0), (220, 0, 0), (255, 255, 255), (128, 128, 128)
CORRECTIONS = 3


def contact_sheet(config: TrainConfig, *, crops: int = 12, columns: int = 4) -> np.ndarray:
    """The sheet as uint8 RGB [H, W, 3].

    Args:
        config: its data, crops, clicks and seed are used; sample i is training's sample i.
        crops: how many; each gives `config.crop.objects` tiles.
        columns: tiles in a row.
    """
    samples = Crops(
        LabelledImages(config.data), config.crop, config.clicks, config.network.base_stride,
        config.seed,
    )
    first, corrected = [], []
    for index in range(crops):
        image, targets, prompts = samples[index]
        picture = image.transpose(1, 2, 0)
        for number, (target, prompt) in enumerate(zip(targets, prompts, strict=True)):
            size, rows = (picture.shape[1], picture.shape[0]), prompt.clicks
            full = cv2.resize(target, size, interpolation=cv2.INTER_NEAREST)
            begun = _tile(picture, full, full == 1, rows)
            for given, colour in ((prompt.region, YELLOW), (prompt.mask, BLUE)):
                if given is not None:
                    _outline(begun, given, 0.0 if colour is YELLOW else 0.5, colour)
            first.append(begun)
            mask, more = _corrections(full, rows, np.random.default_rng([index, number]))
            corrected.append(_tile(picture, full, mask, more))
    lines = []
    for start in range(0, len(first), columns):
        for tiles in (first, corrected):
            line = tiles[start : start + columns]
            line += [np.full_like(tiles[0], 255)] * (columns - len(line))
            lines.append(np.hstack(line))
    return np.vstack(lines)


def _outline(
    tile: np.ndarray, values: np.ndarray, level: float, colour: tuple[int, int, int]
) -> None:
    """Draw where a map on the grid crosses `level`."""
    wide = cv2.resize(values, (tile.shape[1], tile.shape[0]))
    contours, _ = cv2.findContours(
        (wide > level).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(tile, contours, -1, colour, 1)


def _corrections(
    target: np.ndarray, rows: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A wrong mask, and the clicks continued on it; each click repairs its surroundings."""
    side = target.shape[0]
    shift = rng.uniform(-side / 8, side / 8, (2, 1))
    moved = cv2.warpAffine(
        (target == 1).astype(np.float32), np.hstack([np.eye(2), shift]), target.shape[::-1]
    )
    mask = cv2.GaussianBlur(moved, (0, 0), side / 24) >= 0.5
    wrong = mask.copy()
    for _ in range(CORRECTIONS):
        click = correction_click(mask, target, rng)
        if click is None:
            break
        y, x, label = click
        rows = np.vstack([rows, np.asarray([(y, x, label)], np.float32)])
        around = np.zeros(target.shape, np.uint8)
        cv2.circle(around, (x, y), side // 6, 1, -1)
        mask = np.where(around == 1, target == 1, mask)
    return wrong, rows


def _tile(
    picture: np.ndarray, target: np.ndarray, mask: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    tile = picture.copy()
    tile[mask] = tile[mask] // 2 + np.array(GREEN, np.uint8) // 2
    tile[target == VOID] = tile[target == VOID] // 2 + np.array(GREY, np.uint8) // 2
    outline = cv2.Canny((target == 1).astype(np.uint8) * 255, 50, 150) > 0
    tile[outline] = WHITE
    radius = max(2, picture.shape[0] // 64)
    for y, x, label in rows:
        centre = (round(float(x)), round(float(y)))
        cv2.circle(tile, centre, radius + 2, GREEN if label == 1 else RED, -1, cv2.LINE_AA)
        cv2.circle(tile, centre, radius - 1, WHITE, -1, cv2.LINE_AA)
    # a frame, so that neighbours do not run into each other
    tile[[0, -1]] = tile[:, [0, -1]] = WHITE
    return tile


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 2 on bad input."""
    parser = argparse.ArgumentParser(prog="python -m trtseg.train.contact_sheet",
                                     description=__doc__)
    parser.add_argument("config", type=Path, help="the run's configuration, JSON")
    parser.add_argument("output", type=Path, help="PNG to write")
    parser.add_argument("--crops", type=int, default=12)
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    args = parser.parse_args(arguments)
    try:
        if args.output.exists() and not args.force:
            raise FileExistsError(f"{args.output}: exists already; pass --force to replace it")
        if args.crops < 1 or args.columns < 1:
            raise ValueError("--crops, --columns: expected at least 1")
        sheet = contact_sheet(read_config(args.config), crops=args.crops, columns=args.columns)
        coded = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1]
        args.output.write_bytes(coded.tobytes())
    except (TrtsegError, ValueError, OSError) as error:
        print(f"contact_sheet: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    print(args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
