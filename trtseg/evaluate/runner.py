"""Running an evaluation: one image at a time, in this process or in several."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import cv2
from tqdm import tqdm

from trtseg.errors import TrtsegError
from trtseg.evaluate.clicks import make_clicker
from trtseg.evaluate.configuration import EvaluationConfig
from trtseg.evaluate.datasets import Dataset
from trtseg.evaluate.methods import Method, load_method
from trtseg.evaluate.protocol import record_object
from trtseg.evaluate.records import ObjectRecord, RunDirectory, read_record
from trtseg.machine import describe


@dataclass(frozen=True)
class Task:
    """The objects of one image that have no result yet."""

    data: str
    indices: tuple[int, ...]


def evaluate(
    config: EvaluationConfig,
    run: RunDirectory,
    *,
    method: Method | None = None,
    workers: int = 1,
    threads: int | None = None,
    shard: tuple[int, int] = (0, 1),
    progress: bool = True,
) -> None:
    """Fill `run` with the results that are still missing.

    Whatever interrupts it, every object that was finished is kept, and the next call continues.
    Results do not depend on workers, shards or interruptions: the simulated user's draws depend
    on the seed and the object's name alone, and an adaptation over a sequence, whose objects
    depend on one another, always begins its data set anew.

    Args:
        config: what to do.
        run: begun with the header of this configuration.
        method: already loaded; by default it is loaded here. Only with one worker.
        workers: processes.
        threads: of the CPU, for each worker's model.
        shard: (i, n): every n-th image, from the i-th on.
        progress: show a bar on stderr.

    Raises:
        DatasetError: a file of the data or of a finished result is missing or bad.
        ValueError: no worker, or more than one worker or shard for an adaptation over a sequence.
    """
    check_split(config, workers, shard)
    for path in run.files():
        read_record(path)  # a damaged result is told before the work, not after it
    datasets = config.open_data()
    tasks = list(plan(config, run, datasets, shard))
    total = sum(len(task.indices) for task in tasks)
    with tqdm(total=total, unit="object", disable=not progress, dynamic_ncols=True) as bar:

        def store(records: list[ObjectRecord]) -> None:
            for record in records:
                run.write(record)
            bar.update(len(records))

        if not tasks:
            return
        if workers == 1:
            _run_here(config, datasets, tasks, method, threads, store)
        else:
            _run_processes(config, tasks, workers, threads, store)


def check_split(config: EvaluationConfig, workers: int, shard: tuple[int, int]) -> None:
    """Raise ValueError where the work cannot be split as asked; see `evaluate`."""
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    if config.sequential and (workers > 1 or shard[1] > 1):
        raise ValueError("workers, shard: expected 1, for the adaptation goes from image to image")


def plan(
    config: EvaluationConfig,
    run: RunDirectory,
    datasets: dict[str, Dataset],
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Task]:
    """The work that is left, image by image, in the order of the data."""
    position = 0
    for name, dataset in datasets.items():
        wanted = config.indices(len(dataset))
        done = run.done(name)
        if config.sequential and not done.issuperset(wanted):
            run.forget(name)
            done = set()
        images: dict[str, list[int]] = defaultdict(list)
        for index in wanted:
            images[dataset[index].source.name].append(index)
        for indices in images.values():
            mine = position % shard[1] == shard[0]
            position += 1
            left = tuple(index for index in indices if index not in done)
            if mine and left:
                yield Task(name, left)


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
        clicker = make_clicker(config.protocol, sample.mask, seed=config.seed, name=sample.name)
        with method.session(encoded) as session:
            result = record_object(
                session,
                sample,
                clicker,
                config.clicks,
                stop_at=max(config.targets) if config.stop_at_target else None,
                keep_masks=True,
            )
        record = ObjectRecord.from_run(task.data, index, sample.name, result)
        # a sequence encodes as the session begins, which is then a part of the rest
        record.encode_ms = None if config.sequential else round(encode_ms, 3)
        elapsed = (time.perf_counter() - begin) * 1000
        record.other_ms = round(elapsed - sum(result.click_ms), 3)
        records.append(record)
    return records


def make_header(
    config: EvaluationConfig, method: Method, datasets: dict[str, Dataset]
) -> dict[str, Any]:
    """The header of a run directory: what was asked, of which method, on which data and machine."""
    data = {}
    for name, dataset in datasets.items():
        wanted = config.indices(len(dataset))
        names = "\n".join(dataset[index].name for index in wanted)
        data[name] = {
            "layout": dataset.layout,
            "objects": len(wanted),
            "available": len(dataset),
            "names_sha256": hashlib.sha256(names.encode()).hexdigest(),
        }
    return {
        "config": config.to_dict(),
        "method": method.describe(),
        "data": data,
        "machine": describe(),
    }


def _load(config: EvaluationConfig, threads: int | None) -> Method:
    return load_method(
        config.model,
        threads=threads,
        adapt=config.adapt,
        focus=config.focus,
        refine=config.refine,
    )


def _run_here(
    config: EvaluationConfig,
    datasets: dict[str, Dataset],
    tasks: list[Task],
    method: Method | None,
    threads: int | None,
    store: Callable[[list[ObjectRecord]], None],
) -> None:
    method = method or _load(config, threads)
    begun = tasks[0].data
    for task in tasks:
        if config.sequential and task.data != begun:
            method, begun = _load(config, threads), task.data  # a sequence ends with its data set
        store(run_image(config, method, datasets[task.data], task))


_worker: tuple[EvaluationConfig, Method, dict[str, Dataset]] | None = None


def _end_with_parent() -> None:
    # a parent that was killed tells nobody, and its workers would wait for tasks for ever
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _start_worker(config: EvaluationConfig, threads: int | None) -> None:
    global _worker
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(threads or 1)
    _worker = config, _load(config, threads or 1), config.open_data()


def _work(task: Task) -> list[ObjectRecord]:
    assert _worker is not None
    config, method, datasets = _worker
    return run_image(config, method, datasets[task.data], task)


def _run_processes(
    config: EvaluationConfig,
    tasks: list[Task],
    workers: int,
    threads: int | None,
    store: Callable[[list[ObjectRecord]], None],
) -> None:
    # spawned: a forked child would inherit the locks of ONNX Runtime's and OpenCV's threads
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(config, threads),
    )
    try:
        # a short queue: after an interruption only what runs is waited for
        waiting: set[Future] = set()
        remaining = iter(tasks)
        while True:
            while len(waiting) < 2 * workers and (task := next(remaining, None)) is not None:
                waiting.add(pool.submit(_work, task))
            if not waiting:
                return
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                store(future.result())
    except BrokenProcessPool:
        raise TrtsegError(
            "a worker process was ended, perhaps for want of memory: what is finished is kept; "
            "--resume goes on, with fewer --workers"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
