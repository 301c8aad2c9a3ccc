"""YouTube-VOS 2019: each object in the first frame in which it is annotated.

`SPLIT/JPEGImages/VIDEO/FRAME.jpg`, `SPLIT/Annotations/VIDEO/FRAME.png` (a palette's indices are
the objects) and `SPLIT/meta.json`, which tells the frames of every object (Xu et al. 2018).
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from trtseg.errors import DatasetError
from trtseg.evaluate.datasets.dataset import ChosenObjects, LabelledImage, Layout, has
from trtseg.evaluate.datasets.pairs import LabelPair, find_pairs


def find_first_frames(root: Path, subset: str | None) -> list[LabelledImage]:
    """The frames in which an object is annotated first, with these objects alone, by video.

    Args:
        root: the folder of the splits.
        subset: "train" or "valid".

    Raises:
        DatasetError: meta.json is missing or damaged, or a file that it names is missing.
    """
    folder = root / str(subset)
    meta = folder / "meta.json"
    first: dict[str, list[int]] = defaultdict(list)
    try:
        videos = json.loads(meta.read_text(encoding="utf-8"))["videos"]
        for video in sorted(videos):
            for label, entry in videos[video]["objects"].items():
                first[f"{video}/{min(entry['frames'])}"].append(int(label))
    except OSError:
        raise DatasetError(f"{meta}: no such file") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"{meta}: expected YouTube-VOS' videos, objects and frames ({error})"
        ) from None
    frames = find_pairs(folder / "JPEGImages", folder / "Annotations", LabelPair, sorted(first))
    return [ChosenObjects(frame, first[frame.name]) for frame in frames]


def _is_youtube_vos(root: Path) -> bool:
    return any(has(root / split, "JPEGImages", "Annotations", "meta.json")
               for split in ("train", "valid"))  # fmt: skip


LAYOUTS = (Layout("youtube-vos", find_first_frames, _is_youtube_vos, subset="valid"),)
