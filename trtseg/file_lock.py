"""A lock between processes and threads that the operating system drops when its holder dies."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_POLL_S = 0.05


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if isinstance(error, (BlockingIOError, PermissionError)):
            return False
        raise
    return True


@contextlib.contextmanager
def locked(path: Path, *, stop_waiting: Callable[[], bool] | None = None) -> Iterator[bool]:
    """Hold the lock of `path` for the length of a `with` block.

    The file is created when missing and stays behind, empty: removing it would let a second
    process lock a file of the same name that the first no longer sees.

    Args:
        path: the lock file; its folder exists.
        stop_waiting: polled while another holds the lock; True gives up.

    Yields:
        True when the lock is held, False when `stop_waiting` ended the wait.

    Raises:
        OSError: the file cannot be created, or the file system knows no locks.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        held = _try_lock(descriptor)
        while not held:
            if stop_waiting is not None and stop_waiting():
                break
            time.sleep(_POLL_S)
            held = _try_lock(descriptor)
        yield held
    finally:
        os.close(descriptor)
