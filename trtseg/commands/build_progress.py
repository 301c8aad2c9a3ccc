"""Building TensorRT engines takes minutes: what a command shows meanwhile."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trtseg.runtime.engine import Progress


@contextmanager
def build_progress(name: str) -> Iterator[Progress]:
    """A callback for builds, one after the other: a bar for each on a terminal, else a line.

    Nothing is shown where nothing is built, since the callback is then never called.

    Args:
        name: of what is built.
    """
    number, before = 0, math.inf
    bar: Any = None

    def show(fraction: float, phase: str) -> None:
        nonlocal number, before, bar
        if fraction < before:  # it never falls during a build: this is the next one
            number += 1
            if bar is not None:
                bar.close()
            bar = _begin(f"building {name}" + (f" ({number})" if number > 1 else ""))
        before = fraction
        if bar is not None:
            bar.set_postfix_str(phase, refresh=False)
            bar.update(100 * fraction - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()


def _begin(title: str) -> Any:
    """A bar on a terminal; elsewhere a line, and None."""
    if not sys.stderr.isatty():
        print(f"{title} for TensorRT, once on this machine; this takes minutes", file=sys.stderr)
        return None
    from tqdm import tqdm

    return tqdm(total=100, desc=title, bar_format="{desc}: {n:3.0f}% {bar} {elapsed} {postfix}")
