"""Files, and folders of files, that readers see whole or not at all, whenever a writer dies.

A folder of files has a *head*: the one file that says which others belong to it, by name and
SHA-256 (a bundle's `manifest.json`, a checkpoint's `state.json`). Saving writes the others beside
those that are there, under names that carry their hash; replaces the head, which is the moment the
save happens; and moves the others to their own names. A reader that follows the head finds each
under one of the two names. Nothing outside of the folder is touched, so it may be a link, a mount
point, or lie where nothing else can be written.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from trtseg.file_lock import locked

Listed = Callable[[bytes], Mapping[str, str]]  # a head's text to SHA-256 by file name

LOCK = ".lock"
LARGEST_HEAD_BYTES = 16 * 2**20
_LOCK_S = 60.0  # longer than any save: who holds the lock then is not saving
_TRIES = 20  # at reading a folder that is replaced again and again
_LEFT_OVER = re.compile(r"\.(.+)\.([0-9a-f]{16})\.(new|tmp)")
# What file systems answer that cannot flush a folder, or need not.
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES)


def read_file(path: str | os.PathLike[str], limit_bytes: int) -> bytes:
    """The content of a plain file; never waits for another process.

    Raises:
        OSError: it cannot be read, is no plain file (a pipe, a device), or is larger.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a plain file", os.fspath(path))
        if status.st_size > limit_bytes:
            raise OSError(errno.EFBIG, f"larger than {limit_bytes:,} bytes", os.fspath(path))
        return file.read(status.st_size)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file so that readers see the old bytes or the new, never a part.

    What was written is on the disk when this returns.

    Args:
        path: of the file; its folder exists.
        data: the new content.
        mode: of the new file, before the process's umask.

    Raises:
        OSError: nothing was changed and no temporary file is left.
    """
    temporary = beside(path, "tmp")
    try:
        _write(temporary, data, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def write_folder(
    folder: Path,
    head: str,
    contents: Mapping[str, bytes],
    listed: Listed,
    accept: Callable[[bytes | None], None] = lambda head: None,
) -> None:
    """Write a folder of files so that readers see the old ones or the new ones, never a mixture.

    One writer at a time: others wait. What interrupted writers left is removed; files that neither
    the old head nor the new one lists stay.

    Args:
        folder: made when missing.
        head: the name of the file that lists the others.
        contents: by plain file name, `head` among them.
        listed: which files a head lists; empty for one that is damaged.
        accept: called before anything is written with the head that is there, None without one;
            what it raises refuses the save.

    Raises:
        OSError: the old files are still there.
    """
    made = not folder.exists()
    os.makedirs(folder, exist_ok=True)
    deadline = time.monotonic() + _LOCK_S
    try:
        with locked(folder / LOCK, stop_waiting=lambda: time.monotonic() > deadline) as held:
            if not held:
                raise OSError(errno.EAGAIN, "another process holds the lock", str(folder / LOCK))
            before = _settle(folder, head, listed)
            accept(before)
            _save(folder, head, contents, listed, before)
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        raise


def _save(
    folder: Path, head: str, contents: Mapping[str, bytes], listed: Listed, before: bytes | None
) -> None:
    text = contents[head]
    staged: dict[str, Path] = {}
    try:
        for name, digest in listed(text).items():
            staged[name] = folder / _staged(name, digest)
            _write(staged[name], contents[name], 0o666)
        _sync_folder(folder)
        write_atomically(folder / head, text, 0o666)
    except BaseException:
        with contextlib.suppress(OSError):
            if _head(folder / head) != text:
                for path in staged.values():
                    path.unlink(missing_ok=True)
        raise
    # Saved. What is left to do, the next writer would do as well.
    with contextlib.suppress(OSError):
        for name, path in staged.items():
            os.replace(path, folder / name)
        for name in set(listed(before or b"")) - set(staged) - {head}:
            os.unlink(folder / name)
        _sync_folder(folder)


def read_folder(
    folder: Path, head: str, listed: Listed, limit_bytes: int
) -> tuple[bytes, dict[str, bytes]]:
    """A folder's head, and those of the files it lists that are there and unaltered.

    Args:
        folder: as `write_folder` made it, or one that merely holds files of these names.
        head: the name of the file that lists the others.
        listed: which files a head lists; what it raises passes through.
        limit_bytes: of all listed files together.

    Raises:
        OSError: a file cannot be read, or there is more of them.
    """
    text = read_file(folder / head, LARGEST_HEAD_BYTES)
    for _ in range(_TRIES):
        found: dict[str, bytes] = {}
        room = limit_bytes
        digests = listed(text)
        for name, digest in digests.items():
            data = _part(folder, name, digest, room)
            if data is not None:
                found[name] = data
                room -= len(data)
        again = read_file(folder / head, LARGEST_HEAD_BYTES)
        if len(found) == len(digests) or again == text:
            break
        text = again  # replaced meanwhile
    return text, found


def is_empty(folder: Path) -> bool:
    """Whether nothing is there, or a folder in which there is nothing but what writers left."""
    if not os.path.lexists(folder):
        return True
    return folder.is_dir() and all(
        name == LOCK or _LEFT_OVER.fullmatch(name) for name in os.listdir(folder)
    )


def check_room(folder: Path, size_bytes: int) -> None:
    """Find out whether so much can be written in a folder, by writing it; nothing is left.

    Args:
        folder: where to; if it is missing, the folder it would be made in.
        size_bytes: how much.

    Raises:
        OSError: it cannot be written; the reason is the system's.
    """
    place = folder.absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "no folder to write to", str(place))
    temporary = beside(place / "room", "tmp")
    try:
        _write(temporary, bytes(size_bytes), 0o600, sync=False)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def beside(path: Path, kind: str, token: str | None = None) -> Path:
    """A hidden name for what will be renamed to `path`: none that is taken, of any length there."""
    token = token or os.urandom(8).hex()
    return path.with_name(f".{os.fsdecode(os.fsencode(path.name)[:100])}.{token}.{kind}")


def _part(folder: Path, name: str, digest: str, limit_bytes: int) -> bytes | None:
    # A writer moves a file from its staged name to its own: looked for there, it is here by now.
    for place in (name, _staged(name, digest), name):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            data = read_file(folder / place, limit_bytes)
            if hashlib.sha256(data).hexdigest() == digest:
                return data
    return None


def _settle(folder: Path, head: str, listed: Listed) -> bytes | None:
    """Finish or undo what an interrupted writer began; the head that is there. Under the lock."""
    text = _head(folder / head)
    digests = listed(text) if text is not None else {}
    for name in os.listdir(folder):
        if _LEFT_OVER.fullmatch(name) is None:
            continue
        owner = next((n for n, digest in digests.items() if _staged(n, digest) == name), None)
        # A whole one belongs to the head; one that was being written again may be in parts.
        left = folder / name
        if owner is not None and left.is_file() and file_sha256(left) == digests[owner]:
            os.replace(left, folder / owner)
        else:
            os.unlink(left)
    return text


def _head(path: Path) -> bytes | None:
    try:
        return read_file(path, LARGEST_HEAD_BYTES)
    except FileNotFoundError:
        return None


def _staged(name: str, digest: str) -> str:
    token = hashlib.sha256(os.fsencode(name) + digest.encode()).hexdigest()
    return beside(Path(name), "new", token[:16]).name


def _write(path: Path, data: bytes, mode: int, *, sync: bool = True) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Make names that were created or replaced in a folder last, where the system can."""
    if os.name == "nt":  # opens no folders, and needs no help
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
