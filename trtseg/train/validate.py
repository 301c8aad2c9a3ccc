"""Validation while training: the standard click protocol on a fixed choice of objects."""

from __future__ import annotations

import itertools

import numpy as np

from trtseg.errors import DatasetError
from trtseg.evaluate.clicks import StandardClicker
from trtseg.evaluate.datasets import Sample, open_dataset
from trtseg.evaluate.metrics import noc
from trtseg.evaluate.protocol import record_object
from trtseg.nn import engines
from trtseg.nn.network import LatentDiversity
from trtseg.train.config import ValidationConfig

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


def validate(
    network: LatentDiversity, config: ValidationConfig, *, device: str = "cpu"
) -> dict[str, float]:
    """Mean metrics of a network over the chosen objects, through the runtime's own sessions.

    Args:
        network: what is measured; without its `select` the first mask is taken.
        config: which objects, how many clicks.
        device: that shall run it, in float32.

    Returns:
        "noc@85", "noc@90": clicks until that IoU, `config.clicks` where it is never reached;
        "iou@1": of the selected mask after one click; "best_iou@1": of the best candidate.
    """
    segmenter = engines.segmenter(network, device=device, half=False)
    ious, best = [], []
    samples = choose_objects(config)
    for _, members in itertools.groupby(samples, key=lambda sample: sample.source.path):
        objects = list(members)
        encoded = segmenter.encode(objects[0].image)
        for sample in objects:
            run = record_object(
                segmenter.session(encoded), sample, StandardClicker(sample.mask), config.clicks,
                stop_at=TARGETS[-1],
            )  # fmt: skip
            ious.append(run.ious)
            best.append(run.best_ious[0] if run.best_ious else run.ious[0])
    return {
        **{f"noc@{target * 100:.0f}": noc(np.array(ious), target) for target in TARGETS},
        "iou@1": float(np.mean(ious, axis=0)[0]),
        "best_iou@1": float(np.mean(best)),
    }
