"""A file system on which a process dies at the k-th change."""

from __future__ import annotations

import os


class Killed(BaseException):
    """The process is gone."""


class Disk:
    """The system's file operations; from the k-th change on, nothing is changed any more."""

    CHANGES = ("open", "write", "fsync", "replace", "unlink", "mkdir", "makedirs", "rmdir")

    def __init__(self, last: int | None = None, half: bool = False) -> None:
        self.last, self.half, self.calls = last, half, []

    def __getattr__(self, name: str):
        real = getattr(os, name)
        if name not in self.CHANGES:
            return real

        def call(*arguments, **options):
            if name == "open" and not arguments[1] & os.O_CREAT:
                return real(*arguments, **options)
            self.calls.append((name, *map(str, arguments[:2])))
            if self.last is not None and len(self.calls) > self.last:
                if self.half and name == "write" and len(self.calls) == self.last + 1:
                    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                raise Killed
            return real(*arguments, **options)

        return call
