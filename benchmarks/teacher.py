"""Objects for training from photographs without labels: masks of SAM 2 (see segment_anything.py).

    python benchmarks/teacher.py package/dist runs/teacher PHOTOS [PHOTOS ...]

writes a folder that `trtseg train` reads: `images/` (links), `masks/` and `masks_parts/`. SAM 2 is
asked at ten points of a photograph, then at ten more where nothing was found. Of its masks those
are kept that it believes in, that stay when its threshold moves, and that the frame does not cut
off: what fills the rim is ground, sky or wall. Masks are wholes, from the largest on; what lies in
one is a part. Photographs that are there already are left out: an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path

import cv2
import numpy as np
from segment_anything import MASK_PX, SAM2
from tqdm import tqdm

from trtseg.errors import TrtsegError

POINTS = 10  # of one pass; divides the cells
COLUMNS, ROWS = 5, 4
MIN_SCORE, MIN_STABILITY = 0.75, 0.82
AREA = 0.0015, 0.75  # of the image
MAX_IOU = 0.8  # of two masks that are not the same
MAX_RIM = 0.2  # of the frame
MAX_CUT = 0.33, 0.42  # of a mask's outline that lies on the frame; larger masks may have more
LARGE = 0.12  # of the image
MIN_AREA_PX = 90
MAX_OVERLAP = 0.1  # of a mask with those in its layer


def regions(network: SAM2, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Logits [K, 256, 256] of different masks, the surest first."""
    encoded = network.encode(image)
    free = np.ones((MASK_PX, MASK_PX), bool)
    cells = rng.permutation(COLUMNS * ROWS)[:POINTS]
    spread = np.stack([cells % COLUMNS, cells // COLUMNS], 1) + rng.uniform(0.05, 0.95, (POINTS, 2))
    points = spread / (COLUMNS, ROWS)
    found: list[tuple[float, np.ndarray]] = []
    for _ in range(2):
        masks, scores = network.masks(encoded, points[:, None], np.ones((POINTS, 1)))
        for logits, score in zip(masks.reshape(-1, *free.shape), scores.ravel(), strict=True):
            inside = logits > 0
            stability = (logits > 1).sum() / max(1, int((logits > -1).sum()))
            sure = score > MIN_SCORE and stability > MIN_STABILITY
            if sure and AREA[0] < inside.mean() < AREA[1]:
                found.append((float(score * stability), logits))
                free &= ~inside
        points = _far_apart(free, rng)
    found.sort(key=lambda one: -one[0])
    kept: list[np.ndarray] = []
    for _, logits in found:
        if all(_iou(logits > 0, other > 0) < MAX_IOU for other in kept):
            kept.append(logits)
    return np.array(kept).reshape(-1, MASK_PX, MASK_PX)


def _far_apart(free: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """POINTS places (x, y) in [0, 1], where `free` is, each far from those before."""
    inner = cv2.erode(np.pad(free, 1).astype(np.uint8), np.ones((5, 5), np.uint8))[1:-1, 1:-1] > 0
    places = np.argwhere(inner if inner.sum() > 200 else np.ones_like(free))[:, ::-1]
    places = places[rng.permutation(len(places))[:400]].astype(float)
    chosen = [0]
    distance = np.full(len(places), np.inf)
    while len(chosen) < POINTS:
        near = ((places - places[chosen[-1]]) ** 2).sum(1)
        distance = np.minimum(distance, near * np.exp(rng.normal(0, 0.7, len(places))))
        chosen.append(int(distance.argmax()))
    return (places[chosen] + 0.5) / MASK_PX


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max(1, int((one | other).sum())))


def whole(mask: np.ndarray) -> np.ndarray | None:
    """The mask without crumbs; None where it is in pieces, small or cut off by the frame."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    if count < 2 or areas.max() < 0.85 * mask.sum():
        return None
    mask = np.isin(labels, 1 + np.flatnonzero(areas >= max(12, 0.03 * areas.max())))
    outlines, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    rim = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    cut = rim.sum() / sum(len(outline) for outline in outlines)
    allowed = MAX_CUT[int(mask.mean() >= LARGE)]
    return mask if mask.sum() >= MIN_AREA_PX and rim.mean() <= MAX_RIM and cut <= allowed else None


def layers(masks: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Label maps uint8 [2, H, W] of wholes and of parts; what overlaps in both is left out."""
    maps = np.zeros((2, *size), np.uint8)
    for mask in sorted(masks, key=lambda one: -np.count_nonzero(one)):
        for layer in maps:
            if np.count_nonzero(layer[mask]) < MAX_OVERLAP * mask.sum():
                layer[mask & (layer == 0)] = layer.max() + 1
                break
    return maps


def _write(path: Path, values: np.ndarray) -> None:
    if not cv2.imwrite(str(path), values):
        raise OSError(f"{path}: cannot be written")


def label(network: SAM2, photo: Path, output: Path) -> int:
    """Write what is found in a photograph; how many masks. Nothing is written where there is none.

    Raises:
        OSError: it cannot be read or written.
    """
    pixels = cv2.imread(str(photo), cv2.IMREAD_COLOR)
    if pixels is None:
        raise OSError(f"{photo}: expected an image")
    image = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    height, width = image.shape[:2]
    # by the name: neither order nor interruptions change a photograph's masks
    rng = np.random.default_rng(zlib.crc32(photo.stem.encode()))
    found = [
        whole(cv2.resize(logits, (width, height)) > 0) for logits in regions(network, image, rng)
    ]
    maps = layers([mask for mask in found if mask is not None], (height, width))
    for folder, values in zip(("masks_parts", "masks"), maps[::-1], strict=True):
        if values.any():
            _write(output / folder / f"{photo.stem}.png", values)
    if maps.any():  # the image comes last: a pair is whole or not there
        (output / "images" / photo.name).symlink_to(photo.resolve())
    return int(maps.max((1, 2)).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("graphs", type=Path, help="folder with the graphs of SAM 2")
    parser.add_argument("output", type=Path)
    parser.add_argument("photos", type=Path, nargs="+", help="image files")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    try:
        for folder in ("images", "masks", "masks_parts"):
            (args.output / folder).mkdir(parents=True, exist_ok=True)
        network = SAM2(args.graphs, args.threads)
        stems = [photo.stem for photo in args.photos]
        if len(set(stems)) < len(stems):
            twice = next(stem for stem in stems if stems.count(stem) > 1)
            raise ValueError(f"expected photographs of different names, got {twice!r} twice")
        there = {path.stem for path in (args.output / "images").iterdir()}
        count = 0
        for photo in tqdm(args.photos):
            if photo.stem not in there:
                count += label(network, photo, args.output)
    except (TrtsegError, OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    print(f"{args.output}: {count} masks")


if __name__ == "__main__":
    main()
