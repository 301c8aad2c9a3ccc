"""Work spread over processes by joblib: on this machine (loky), or on a Dask or a Ray cluster.

Tests cover this machine and a Dask cluster; a Ray cluster is joined as Ray documents it, untested.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from trtseg.errors import BackendUnavailable, TrtsegError

T = TypeVar("T")
CLUSTERS = ("dask", "ray")


@contextmanager
def placed(cluster: str | None) -> Iterator[None]:
    """Let joblib work on a cluster within the block.

    Args:
        cluster: `dask[:ADDRESS]` or `ray[:ADDRESS]`; without an address the one that its
            environment variables name or, for want of one, a new one on this machine. None is
            processes on this machine.

    Raises:
        BackendUnavailable: joblib or the cluster's package is not installed.
    """
    try:
        from joblib import parallel_config

        kind, _, address = (cluster or "loky").partition(":")
        if kind == "dask":
            from distributed import Client

            with Client(address or None), parallel_config("dask"):
                yield
        elif kind == "ray":
            import ray
            from ray.util.joblib import register_ray

            with ray.init(address or None):
                register_ray()
                with parallel_config("ray"):
                    yield
        else:
            with parallel_config("loky", initializer=_end_with_parent):
                yield
    except ModuleNotFoundError as error:
        package = _PACKAGES.get(error.name or "")
        if package is None:
            raise
        raise BackendUnavailable(
            f"parallel work needs {error.name}, which is not installed: pip install '{package}'"
        ) from None


_PACKAGES = {"joblib": "trtseg[evaluate]", "distributed": "dask[distributed]", "ray": "ray"}


def _end_with_parent() -> None:
    """Let a worker end soon after a parent that was killed and could tell nobody."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_parallel(
    function: Callable[..., T], work: Iterable[tuple[Any, ...]], workers: int, cluster: str | None
) -> Generator[T, None, None]:
    """What a module's function gives for each tuple of arguments, as soon as it is there.

    Few calls are sent ahead, so that after an interruption only what runs is waited for.

    Args:
        function: of a module that the workers can import.
        work: arguments.
        workers: processes on this machine; on a cluster all of its workers work.
        cluster: see `placed`.

    Raises:
        TrtsegError: a worker was ended from outside.
    """
    with placed(cluster):
        from joblib import Parallel, delayed

        parallel = Parallel(
            n_jobs=workers if cluster is None else -1,
            return_as="generator_unordered",
            batch_size=1,
        )
        results = parallel(delayed(function)(*arguments) for arguments in work)
        try:
            for result in results:  # noqa: UP028 an early end must not reach joblib here
                yield result
        except BrokenProcessPool:
            raise TrtsegError(
                "a worker process was ended, perhaps for want of memory: what is finished is "
                "kept; --resume goes on, with fewer --workers"
            ) from None
        finally:
            with warnings.catch_warnings():  # that an interruption cancels work is no news
                warnings.simplefilter("ignore", UserWarning)
                results.close()
