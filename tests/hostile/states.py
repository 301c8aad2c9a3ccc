"""States of a sequence that somebody made to harm, or that were damaged: 20 of them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from adapt.conftest import make_learner
from adapt.test_sequence import DAMAGES, damage_state

from hostile.bundles import Make
from trtseg import Segmenter
from trtseg.adapt import Sequence
from trtseg.nn.checkpoint import STATE, TENSORS

COUNT = 20


def sound(segmenter: Segmenter, path: Path) -> None:
    """The state after one image."""
    torch.set_num_threads(1)
    sequence = Sequence(make_learner(segmenter, {}), "sequence", state=path)
    with sequence.image(np.full((24, 32, 3), 90, np.uint8)) as session:
        session.add_click(14, 12)


def replaced(name: str, write: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        (path / name).unlink()
        write(path / name)

    return change


def large(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(2**40)


CHANGES: dict[str, Callable[[Path], None]] = {
    f"{name} is {kind}": replaced(name, write)
    for name, (kind, write) in itertools.product(
        (STATE, TENSORS),
        (
            ("a device", lambda path: path.symlink_to("/dev/zero")),
            ("a pipe", os.mkfifo),
            ("a terabyte", large),
            ("lists in lists", lambda path: path.write_bytes(b"[" * 10**6)),
        ),
    )
}


def cases(segmenter: Segmenter) -> Iterator[tuple[str, Make]]:
    """(what it is, a function that writes it to a path)"""
    changes = dict(CHANGES)
    for index, (damage, message) in enumerate(DAMAGES):
        changes[f"damage {index}: {message}"] = partial(damage_state, damage=damage)

    def make(change: Callable[[Path], None], path: Path) -> None:
        sound(segmenter, path)
        change(path)

    # All of the files', and every third of what is in them.
    chosen = [*CHANGES, *[name for name in changes if name not in CHANGES]]
    for name in chosen[:COUNT]:
        yield name, partial(make, changes[name])
