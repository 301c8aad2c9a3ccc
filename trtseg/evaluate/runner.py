"""Running an evaluation: one image at a time, in this process or in several."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from trtseg.evaluate.clicks import draws, make_clicker
from trtseg.evaluate.configuration import EvaluationConfig
from trtseg.evaluate.datasets import Dataset, Sample
from trtseg.evaluate.methods import Method, load_method
from trtseg.evaluate.parallel import CLUSTERS, run_parallel
from trtseg.evaluate.protocol import given_mask, record_object, spoiled_mask
from trtseg.evaluate.records import ObjectRecord, RunDirectory, read_record
from trtseg.machine import describe


@dataclass(frozen=True)
class Task:
    """The objects of one image that have no result yet."""

    data: str
    indices: tuple[int, ...]


Load = Callable[[EvaluationConfig, "int | None"], Method]


def evaluate(
    config: EvaluationConfig,
    run: RunDirectory,
    *,
    load: Load = load_method,
    method: Method | None = None,
    workers: int = 1,
    cluster: str | None = None,
    threads: int | None = None,
    progress: bool = True,
) -> None:
    """Fill `run` with the results that are still missing.

    Whatever interrupts it, every object that was finished is kept, and the next call continues.
    Results do not depend on workers or interruptions: the simulated user's draws depend on the
    seed and the object's name alone, and an adaptation over a sequence, whose objects depend on
    one another, always begins its data set anew.

    Args:
        config: what to do.
        run: begun with the header of this configuration.
        load: gives the method of a configuration on a number of threads; workers call it too, so
            that it must be a function of a module.
        method: already loaded, for the work that is done in this process.
        workers: processes on this machine.
        cluster: work there instead, see `parallel.placed`.
        threads: of the CPU, for each worker's model.
        progress: show a bar on stderr.

    Raises:
        DatasetError: a file of the data or of a finished result is missing or bad.
        BackendUnavailable: a package that `cluster` needs is missing.
        TrtsegError: a worker was ended from outside.
        ValueError: no worker, an unknown kind of cluster, or several workers for an adaptation
            over a sequence.
    """
    check_workers(config, workers, cluster)
    for path in run.files():
        read_record(path)  # a damaged result is told before the work, not after it
    datasets = config.open_data()
    tasks = list(plan(config, run, datasets))
    total = sum(len(task.indices) for task in tasks)
    with tqdm(total=total, unit="object", disable=not progress, dynamic_ncols=True) as bar:
        if workers == 1 and cluster is None:
            results = _run_here(config, datasets, tasks, load, method, threads)
        else:
            work = ((config, load, threads, task) for task in tasks)
            results = run_parallel(_work, work, workers, cluster)
        with closing(results):
            for records in results:
                for record in records:
                    run.write(record)
                bar.update(len(records))


def check_workers(config: EvaluationConfig, workers: int, cluster: str | None) -> None:
    """Raise ValueError where the work cannot be spread as asked; see `evaluate`."""
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    if cluster is not None and cluster.partition(":")[0] not in CLUSTERS:
        raise ValueError(f"cluster: expected one of {', '.join(CLUSTERS)}, got {cluster!r}")
    if config.sequential and (workers > 1 or cluster is not None):
        raise ValueError(
            "workers, cluster: expected 1 and none, for the adaptation goes from image to image"
        )


def plan(
    config: EvaluationConfig, run: RunDirectory, datasets: dict[str, Dataset]
) -> Iterator[Task]:
    """The work that is left, image by image, in the order of the data."""
    for name, dataset in datasets.items():
        wanted = config.indices(len(dataset))
        done = run.done(name)
        if config.sequential and not done.issuperset(wanted):
            run.forget(name)
            done = set()
        images: dict[str, list[int]] = defaultdict(list)
        for index in wanted:
            if index not in done:
                images[dataset[index].source.name].append(index)
        for indices in images.values():
            yield Task(name, tuple(indices))


def run_image(
    config: EvaluationConfig, method: Method, dataset: Dataset, task: Task
) -> list[ObjectRecord]:
    """The records of one image's objects; it is encoded once.

    Raises:
        DatasetError: the image or a mask is bad.
    """
    samples = [dataset[index] for index in task.indices]
    image = samples[0].source.read_image()
    start = time.perf_counter()
    encoded = method.encode(image)
    encode_ms = (time.perf_counter() - start) * 1000
    records = []
    for index, sample in zip(task.indices, samples, strict=True):
        begin = time.perf_counter()
        initial = _initial_mask(config, method, encoded, sample)
        clicker = make_clicker(config.protocol, sample.mask, seed=config.seed, name=sample.name)
        with method.session(encoded) as session:
            result = record_object(
                session,
                sample,
                clicker,
                config.clicks,
                stop_at=max(config.targets) if config.stop_at_target else None,
                keep_masks=True,
                initial=initial,
            )
        record = ObjectRecord.from_run(task.data, index, sample.name, result)
        record.encode_ms = round(encode_ms, 3)
        elapsed = (time.perf_counter() - begin) * 1000
        record.other_ms = round(elapsed - sum(result.click_ms), 3)
        records.append(record)
    return records


def _initial_mask(
    config: EvaluationConfig, method: Method, encoded: Any, sample: Sample
) -> np.ndarray | None:
    """What the work on an object begins with."""
    if config.protocol == "given-mask":
        return given_mask(sample)
    if config.protocol != "spoiled-mask":
        return None
    with method.session(encoded) as session:
        clicker = make_clicker(config.protocol, sample.mask)
        return spoiled_mask(session, clicker, draws(config.seed, sample.name))


def make_header(
    config: EvaluationConfig, method: Method, datasets: dict[str, Dataset]
) -> dict[str, Any]:
    """The header of a run directory: what was asked, of which method, on which data and machine."""
    data = {}
    for spec, (name, dataset) in zip(config.data, datasets.items(), strict=True):
        wanted = config.indices(len(dataset))
        names = "\n".join(dataset[index].name for index in wanted)
        data[name] = {
            "layout": dataset.layout,
            "objects": len(wanted),
            "available": len(dataset),
            "names_sha256": hashlib.sha256(names.encode()).hexdigest(),
        }
        if spec.subset is not None:  # of the same names there may be other masks
            data[name]["subset"] = spec.subset
    return {
        "config": config.to_dict(),
        "method": method.describe(),
        "data": data,
        "machine": describe(),
    }


def _run_here(
    config: EvaluationConfig,
    datasets: dict[str, Dataset],
    tasks: list[Task],
    load: Load,
    method: Method | None,
    threads: int | None,
) -> Generator[list[ObjectRecord], None, None]:
    begun = None
    for task in tasks:
        # a sequence ends with its data set
        if method is None or (config.sequential and begun not in (None, task.data)):
            method = load(config, threads)
        begun = task.data
        yield run_image(config, method, datasets[task.data], task)


_worker = threading.local()  # what a worker keeps from image to image


def _work(
    config: EvaluationConfig, load: Load, threads: int | None, task: Task
) -> list[ObjectRecord]:
    asked = config, load, threads
    if getattr(_worker, "asked", None) != asked:
        cv2.setNumThreads(threads or 1)
        _worker.method, _worker.datasets = load(config, threads or 1), config.open_data()
        _worker.asked = asked
    return run_image(config, _worker.method, _worker.datasets[task.data], task)
