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

    The file is made for the lock, and gone afterwards (on Windows, unless another waits for it).

    Args:
        path: the lock file; its folder exists.
        stop_waiting: polled while another holds the lock; True gives up.

    Yields:
        True when the lock is held, False when `stop_waiting` ended the wait.

    Raises:
        OSError: the file cannot be created, or the file system knows no locks.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
    while True:
        descriptor = os.open(path, flags, 0o600)
        try:
            held = _try_lock(descriptor)
            while not held and not (stop_waiting is not None and stop_waiting()):
                time.sleep(_POLL_S)
                held = _try_lock(descriptor)
            if held and not _is_at(path, descriptor):
                continue  # its last holder removed it: the lock is on another file by now
            try:
                yield held
            finally:
                if held and sys.platform != "win32":
                    _remove(path)
            break
        finally:
            os.close(descriptor)
    if held and sys.platform == "win32":  # removes no file that is open
        _remove(path)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
