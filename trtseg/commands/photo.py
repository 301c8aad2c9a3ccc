"""The photo that a command works on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from trtseg.runtime.image import Picture, load_image


def read_photo(path: Path) -> Picture:
    """`load_image`, while its decoders, which write to stderr by themselves, are kept quiet.

    Raises:
        OSError, ValueError: see `load_image`.
    """
    with _quiet_stderr():
        return load_image(path)


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Send file descriptor 2 nowhere: C libraries know no other stderr."""
    try:
        kept = os.dup(2)
    except OSError:  # closed: as quiet as can be
        yield
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
