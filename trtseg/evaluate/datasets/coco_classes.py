"""COCO by class: continuous adaptation's seen and unseen objects, and sequences of one class.

The papers drew their objects at random and did not publish them: these are drawn anew, with the
same seed each time.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from trtseg.errors import DatasetError
from trtseg.evaluate.datasets.coco import open_coco
from trtseg.evaluate.datasets.dataset import ChosenObjects, LabelledImage, Layout

SEED = 0
# the 20 classes of PASCAL VOC, as COCO calls them: "seen" by a model that was trained on VOC
SEEN = frozenset((
    "airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "couch", "cow",
    "dining table", "dog", "horse", "motorcycle", "person", "potted plant", "sheep", "train", "tv",
))  # fmt: skip
# (whether of the seen classes, how many objects of each class)
SPLITS = {"seen": (True, 10), "unseen": (False, 10), "unseen-6k": (False, 100)}


def find_classes(root: Path, subset: str | None) -> list[LabelledImage]:
    """The images that hold the chosen objects, each with these alone.

    Args:
        root: as of layout "coco".
        subset: one of `SPLITS`, or a class, of which every object is taken; then "@" and COCO's
            own subset where there are several: "unseen-6k@train2017", "donut@val2017". Of a
            class that has fewer objects than a split takes, all are taken.

    Raises:
        DatasetError: as of layout "coco", or no such class.
    """
    choice, _, own = (subset or "").partition("@")
    images = open_coco(root, own or None)
    by_class: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for place, image in enumerate(images):
        for label, record in image.annotations()[0].items():
            by_class[image.category(record)].append((record["id"], place, label))
    if choice in SPLITS:
        seen, count = SPLITS[choice]
        wanted = {name: count for name in sorted(by_class) if (name in SEEN) == seen}
    elif choice in by_class:
        wanted = {choice: len(by_class[choice])}
    else:
        raise DatasetError(
            f"{root}: expected one of {', '.join(SPLITS)} or a class that has objects, "
            f"got {choice!r}"
        )
    chosen: dict[int, list[int]] = defaultdict(list)
    for name, count in wanted.items():
        # a class's own draw: it does not depend on which other classes there are
        rng = np.random.default_rng([SEED, *name.encode()])
        objects = sorted(by_class[name])
        for index in rng.permutation(len(objects))[:count]:
            _, place, label = objects[index]
            chosen[place].append(label)
    return [ChosenObjects(images[place], chosen[place]) for place in sorted(chosen)]


LAYOUTS = (Layout("coco-classes", find_classes, subset="unseen"),)
