"""Validation while training: the standard click protocol on a fixed choice of objects."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from torch import Tensor

from trtseg.errors import DatasetError
from trtseg.evaluate.clicks import StandardClicker
from trtseg.evaluate.datasets import Sample, open_dataset
from trtseg.evaluate.metrics import noc
from trtseg.evaluate.protocol import record_object
from trtseg.nn.network import LatentDiversity
from trtseg.nn.predictor import Encoding, Predictor
from trtseg.train.config import ValidationConfig
from trtseg.types import Click

THRESHOLD = 0.5
TARGETS = (0.85, 0.90)


def choose_objects(config: ValidationConfig) -> list[Sample]:
    """The objects to validate on: the same ones every time, those of one image adjacent.

    Every data set gives its share; within a data set, every image gives one object before any
    gives a second one. The order within is random, from a fixed seed.

    Raises:
        DatasetError: a data set holds no image, or no object that is large enough.
    """
    chosen: list[Sample] = []
    for index, path in enumerate(config.paths):
        share = config.objects * (index + 1) // len(config.paths) - len(chosen)
        rng = np.random.default_rng(index)
        images = open_dataset(path).images
        ranked: list[tuple[int, int, int]] = []  # turn, place among the images, label
        for place in rng.permutation(len(images)):
            areas = images[place].object_areas()
            labels = [v for v in sorted(areas) if areas[v] >= config.min_area_fraction]
            for turn, label in enumerate(rng.permutation(labels)):
                ranked.append((turn, int(place), int(label)))
        if not ranked:
            raise DatasetError(f"{path}: no object of at least {config.min_area_fraction:.1%} "
                               "of its image to validate on")
        # sorting is stable: within a turn, the images keep their random order
        ranked = sorted(ranked, key=lambda entry: entry[0])[:share]
        chosen += [
            Sample(f"{images[place].name}#{label}", images[place], label)
            for _, place, label in sorted(ranked, key=lambda entry: entry[1:])
        ]
    return chosen


@dataclass(frozen=True)
class _Prediction:
    mask: np.ndarray  # bool [H, W]
    candidates: np.ndarray | None  # float32 [M, H, W]; only after the first click


class _Session:
    """What the protocol asks of a method, and the time that the network takes."""

    def __init__(self, predictor: Predictor, encoding: Encoding) -> None:
        self._predictor, self._encoding = predictor, encoding
        self._clicks: list[Click] = []
        self._previous: Tensor | None = None
        self.seconds = 0.0

    def add_click(self, x: float, y: float, positive: bool = True) -> _Prediction:
        begin = perf_counter()
        self._clicks.append(Click(x, y, positive))
        maps, selected = self._predictor.click(self._encoding, self._clicks, self._previous)
        self._previous = maps[selected]
        size = self._encoding.image_size
        mask = self._predictor.probability(maps[selected : selected + 1], size)[0] >= THRESHOLD
        self.seconds += perf_counter() - begin
        first = len(self._clicks) == 1
        return _Prediction(mask, self._predictor.probability(maps, size) if first else None)


def validate(
    network: LatentDiversity, config: ValidationConfig, *, by_rank: bool
) -> dict[str, float]:
    """Mean metrics of a network over the chosen objects.

    Args:
        network: on the device that shall run it; put into evaluation mode.
        config: which objects, how many clicks.
        by_rank: take the first mask instead of the one that g selects.

    Returns:
        "noc@85", "noc@90": clicks until that IoU, `config.clicks` where it is never reached;
        "iou@1": of the selected mask after one click; "best_iou@1": of the best candidate;
        "seconds_per_image": of the network: encoding, and all clicks of one object.
    """
    predictor = Predictor(network, by_rank=by_rank)
    ious, best, seconds = [], [], 0.0
    samples = choose_objects(config)
    for _, members in itertools.groupby(samples, key=lambda sample: sample.source.path):
        objects = list(members)
        begin = perf_counter()
        encoding = predictor.encode(objects[0].image)
        # every object is counted as if its image had been encoded for it alone
        seconds += (perf_counter() - begin) * len(objects)
        for sample in objects:
            session = _Session(predictor, encoding)
            run = record_object(session, sample, StandardClicker(sample.mask), config.clicks,
                                stop_at=TARGETS[-1])
            ious.append(run.ious)
            best.append(run.best_ious[0] if run.best_ious else run.ious[0])
            seconds += session.seconds
    return {
        **{f"noc@{target * 100:.0f}": noc(np.array(ious), target) for target in TARGETS},
        "iou@1": float(np.mean(ious, axis=0)[0]),
        "best_iou@1": float(np.mean(best)),
        "seconds_per_image": seconds / len(ious),
    }
