"""What the package promises, tried for real: each command prints its figure.

    python benchmarks/promises.py kills 1000      # SIGKILL at a random moment of saving a state
    python benchmarks/promises.py writers 200     # two processes save onto one state at once

The figures stand in docs/promises.md.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from tqdm import tqdm

from trtseg.errors import CheckpointError
from trtseg.nn.checkpoint import read_checkpoint, save_checkpoint

TENSORS = 120  # and so many numbers in each: what the shipped model learns in a sequence
NUMBERS = 22_300


def save(path: Path, images: int, parent: str | None) -> str:
    """One state of a sequence, over the one of id `parent`; returns its id."""
    fresh = secrets.token_hex(16)

    def accept(there: dict | None) -> None:
        if there is not None and there["id"] != parent:
            raise CheckpointError("another one")

    tensors = {f"w{index}": torch.full((NUMBERS,), float(images)) for index in range(TENSORS)}
    save_checkpoint(path, tensors, {"images": images, "id": fresh}, accept=accept)
    return fresh


def load(path: Path) -> tuple[int, str | None]:
    """(images, id) of the state that is there; 0 and None without one."""
    if not path.exists():
        return 0, None
    tensors, state = read_checkpoint(path)
    if any(bool((tensor != state["images"]).any()) for tensor in tensors.values()):
        raise CheckpointError("a mixture of two states")
    return state["images"], state["id"]


def kills(rounds: int, folder: Path) -> collections.Counter[str]:
    """Kill a process that saves one state after another, and look at what it left."""
    path, generator, tally = folder / "state", random.Random(0), collections.Counter()
    before = 0
    for _ in tqdm(range(rounds)):
        readable, writable = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                images, parent = load(path)
                while True:
                    parent = save(path, images + 1, parent)
                    images += 1
                    os.write(writable, images.to_bytes(4, "little"))
            finally:
                os._exit(1)
        os.close(writable)
        time.sleep(generator.uniform(0.005, 0.25))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        acknowledged = before
        while data := os.read(readable, 4):
            acknowledged = int.from_bytes(data, "little")
        os.close(readable)
        try:
            found, _ = load(path)
        except CheckpointError as error:
            tally[f"damaged: {error}"] += 1
            continue
        tally["an acknowledged image was lost" if found < acknowledged else "whole"] += 1
        tally["images"] = before = found
    images, parent = load(path)
    save(path, images + 1, parent)
    left = sorted(each.name for each in path.iterdir())
    tally["files left over"] = len(set(left) - {"state.json", "tensors.safetensors"})
    return tally


def writers(rounds: int, folder: Path) -> collections.Counter[str]:
    """Two processes that read one state save the next at the same moment."""
    path, tally = folder / "state", collections.Counter()
    save(path, 0, None)
    for _ in tqdm(range(rounds)):
        readable, writable = os.pipe()
        children = []
        for _ in range(2):
            child = os.fork()
            if child == 0:
                try:
                    os.close(writable)
                    images, parent = load(path)
                    os.read(readable, 1)
                    save(path, images + 1, parent)
                    os._exit(0)
                except CheckpointError:
                    os._exit(5)
                finally:
                    os._exit(1)
            children.append(child)
        os.close(readable)
        time.sleep(0.1)
        os.close(writable)
        codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
        tally["one saved, one refused" if codes == [0, 5] else f"exit codes {codes}"] += 1
    tally["images"] = load(path)[0]
    return tally


def main() -> int:
    """Run one trial; exit status 1 where the promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("trial", choices=("kills", "writers"))
    parser.add_argument("rounds", type=int)
    parser.add_argument("--folder", type=Path, help="on the file system to try (default: /tmp)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    trial, good = {"kills": (kills, "whole"), "writers": (writers, "one saved, one refused")}[
        args.trial
    ]
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        tally = trial(args.rounds, Path(folder))
    print(f"{args.trial}: {dict(tally)}")
    return 0 if tally[good] == args.rounds and not tally["files left over"] else 1


if __name__ == "__main__":
    sys.exit(main())
