"""What the parsers of all commands share: errors of one line, negative numbers, ranges."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

MOST_THREADS = 1024  # far beyond any use; more of them can take a machine down
_NEGATIVE = re.compile(r"-(\.?\d|inf|nan)", re.IGNORECASE)


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that tells an error in one line, and whose options take "-5,3"."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """See `argparse.ArgumentParser`."""
        words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(_with_negatives_joined(words), namespace)

    def error(self, message: str) -> NoReturn:
        """Tell what is wrong and where to look, without the whole usage; exit status 2."""
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def _with_negatives_joined(words: list[str]) -> list[str]:
    """`--click -5,3` as `--click=-5,3`: argparse would take -5,3 for an option."""
    joined: list[str] = []
    for index, word in enumerate(words):
        if word == "--":
            return joined + words[index:]
        follows = bool(joined) and joined[-1].startswith("--") and "=" not in joined[-1]
        if follows and _NEGATIVE.match(word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def integer(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argument's `type`: an integer from `least` to `most`, which may be open."""
    wanted = f"of at least {least}" if most is None else f"from {least} to {most}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"expected an integer {wanted}, got {text!r}")
        return value

    return parse


def minutes(text: str) -> float:
    """An argument's `type`: a finite time of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected minutes of at least 0, got {text!r}")
    return value


threads = integer(1, MOST_THREADS)
