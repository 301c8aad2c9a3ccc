"""The state folder: one folder a photo, with its file, a small picture of it and its record."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from trtseg.atomic import read_file, write_atomically
from trtseg.file_lock import locked
from trtseg.parse import short
from trtseg.serve import records
from trtseg.serve.records import DamagedRecord, PhotoRecord
from trtseg.serve.refusals import NotFound, NotStored

PHOTO, THUMBNAIL, RECORD = "photo", "thumbnail.jpg", "record.json"
# of a record or a thumbnail: a server writes smaller ones
LARGEST_RECORD_BYTES = 64 * 2**20
INCOMING = ".incoming-"  # begins the name of an upload that is being looked at
_ID = re.compile(r"[0-9a-f]{32}")
_INCOMING = re.compile(re.escape(INCOMING) + "[0-9a-f]{16}")
_NAMES = "|".join(map(re.escape, (PHOTO, THUMBNAIL, RECORD)))
# what a photo's folder has before it has a record
_UNFINISHED = re.compile(
    rf"{re.escape(PHOTO)}|{re.escape(THUMBNAIL)}|\.({_NAMES})\.[0-9a-f]{{16}}\.tmp"
)
_log = logging.getLogger(__name__)


def default_folder() -> Path:
    """Where a user's work is kept; `TRTSEG_STATE` overrides it."""
    if "TRTSEG_STATE" in os.environ:
        return Path(os.environ["TRTSEG_STATE"])
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "trtseg/work"
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/trtseg/work"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "trtseg/work"


class Folder:
    """Photos and their records on the disk; each write is whole or did not happen.

    A photo's id is checked before it becomes a path, so that no request reaches another file.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            OSError: the folder cannot be made.
        """
        self.path = path
        path.mkdir(parents=True, exist_ok=True, mode=0o700)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other servers off this folder for the length of a `with` block.

        Raises:
            BlockingIOError: another one works on it.
        """
        with locked(self.path / ".lock", stop_waiting=lambda: True) as alone:
            if not alone:
                raise BlockingIOError(
                    f"{self.path}: another trtseg serves this folder; end it, or give --state"
                )
            self._sweep()
            yield

    def ids(self) -> list[str]:
        """Of all photos, the one that was changed last first."""
        found = []
        for entry in os.scandir(self.path):
            if _ID.fullmatch(entry.name):
                with contextlib.suppress(FileNotFoundError):
                    found.append(((self.path / entry.name / RECORD).stat().st_mtime_ns, entry.name))
        return [name for _, name in sorted(found, reverse=True)]

    def read(self, key: str) -> PhotoRecord:
        """A photo's record.

        Raises:
            NotFound: there is no such photo.
            DamagedRecord: its record cannot be read.
        """
        path = self._place(key) / RECORD
        try:
            return records.read(read_file(path, LARGEST_RECORD_BYTES), f"{key}/{RECORD}")
        except FileNotFoundError:
            raise NotFound("there is no such photo (any more)") from None
        except (TypeError, ValueError) as error:
            raise DamagedRecord(str(error)) from None

    def set_aside_damaged(self, key: str) -> None:
        """Give a record that cannot be read another name beside it; others stay as they are.

        Raises:
            NotStored: the disk refused; the record is as it was.
        """
        path = self._place(key) / RECORD
        try:
            self.read(key)
        except NotFound:
            return
        except DamagedRecord as error:
            aside = path.with_name(f"{RECORD}.damaged-{secrets.token_hex(4)}")
            try:
                path.rename(aside)
            except OSError as refused:
                raise _not_stored(refused) from None
            _log.warning("%s; it is kept as %s, and the photo begins anew", short(error), aside)

    def file(self, key: str) -> Path:
        """The photo as it was uploaded.

        Raises:
            NotFound: there is no such photo.
        """
        return self._place(key) / PHOTO

    def thumbnail(self, key: str) -> bytes:
        """A small JPEG.

        Raises:
            NotFound: there is no such photo.
        """
        try:
            return read_file(self._place(key) / THUMBNAIL, LARGEST_RECORD_BYTES)
        except FileNotFoundError:
            raise NotFound("there is no such photo (any more)") from None

    def create(self, record: PhotoRecord, data: bytes, thumbnail: bytes) -> None:
        """Keep a photo; its record comes last, and without it the rest does not count.

        Raises:
            NotStored: the disk refused; nothing is left of it.
        """
        place = self._place(record.id)
        try:
            place.mkdir(exist_ok=True, mode=0o700)
            write_atomically(place / PHOTO, data)
            write_atomically(place / THUMBNAIL, thumbnail)
            self.write(record)
        except (OSError, NotStored) as error:
            with contextlib.suppress(OSError):
                (place / RECORD).unlink(missing_ok=True)
            _drop_unfinished(place)
            raise _not_stored(error) from None

    def write(self, record: PhotoRecord) -> None:
        """Replace a photo's record.

        Raises:
            NotStored: the disk refused; the record is as it was.
        """
        text = json.dumps(record.to_json(), ensure_ascii=False, separators=(",", ":"))
        try:
            write_atomically(self._place(record.id) / RECORD, text.encode())
        except OSError as error:
            raise _not_stored(error) from None

    def remove(self, key: str) -> bool:
        """Forget a photo and all that was said about it; False where there is none."""
        place = self._place(key)
        try:
            (place / RECORD).unlink()
        except FileNotFoundError:
            return False
        shutil.rmtree(place, ignore_errors=True)
        return True

    def _sweep(self) -> None:
        """Drop what a crash left behind: uploads, and photos that never got a record."""
        for entry in os.scandir(self.path):
            if _ID.fullmatch(entry.name):
                _drop_unfinished(self.path / entry.name)
            elif _INCOMING.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    (self.path / entry.name).unlink()

    def _place(self, key: str) -> Path:
        if not _ID.fullmatch(key):
            raise NotFound("there is no such photo")
        return self.path / key


def _drop_unfinished(place: Path) -> None:
    """Delete a photo's folder without a record, unless there is in it what no upload writes."""
    with contextlib.suppress(OSError):
        with os.scandir(place) as entries:
            ours = all(
                _UNFINISHED.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
                for entry in entries
            )
        if ours:
            shutil.rmtree(place, ignore_errors=True)


def _not_stored(error: Exception) -> NotStored:
    told = getattr(error, "strerror", None) or str(error)
    return NotStored(f"the server could not store this, so it was not done: {told}")
