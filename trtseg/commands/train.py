"""`trtseg train CONFIG.json`: train a model."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trtseg.commands.options.arguments import integer, minutes, threads

EXIT_INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments on `parser`."""
    parser.add_argument("config", type=Path, help="the run's configuration, JSON")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR",
                        help="folder for checkpoints, log and curves")
    parser.add_argument("--resume", action="store_true",
                        help="continue from the folder's last checkpoint, exactly")
    parser.add_argument("--max-minutes", type=minutes, metavar="N",
                        help="save and stop after this long; --resume goes on")
    parser.add_argument("--save-every", type=integer(1), default=500, metavar="STEPS")
    parser.add_argument("--workers", type=integer(0), default=1,
                        help="processes that prepare samples (default 1)")
    parser.add_argument("--threads", type=threads, help="CPU threads of torch")
    parser.add_argument("--device", help="for example cpu or cuda:0 (default: a GPU if there is)")


def run(args: argparse.Namespace) -> int:
    """Train the networks of latent diversity."""
    from trtseg.train.config import read_config
    from trtseg.train.latent_diversity import LatentDiversityTask

    config = read_config(args.config)
    return train(args, lambda: LatentDiversityTask(config), config.validation.every)


def train(
    args: argparse.Namespace, make: Callable[[], Any], validate_every: int | None = None
) -> int:
    """Train a task; 0 when the stages are done or the time is up.

    Args:
        args: of `add_arguments`.
        make: gives the `trtseg.train.trainer.Task`, once the processes have found each other.
        validate_every: see `Trainer`; None for its default.
    """
    import torch

    from trtseg.train.parallel import Parallel
    from trtseg.train.trainer import Trainer

    if args.threads:
        torch.set_num_threads(args.threads)
    if not args.resume and (args.output / "last").exists():
        raise FileExistsError(
            f"{args.output}: holds a run already; pass --resume to continue it, or another --output"
        )
    _check_device(args.device or "cpu")
    every = {} if validate_every is None else {"validate_every": validate_every}
    parallel = Parallel(args.device)
    try:
        trainer = Trainer(make(), args.output, parallel, args.workers, **every)
        if args.resume:
            trainer.resume()
        with _Interruption() as interruption:
            done = trainer.run(args.max_minutes, args.save_every, interruption.is_set)
    finally:
        parallel.close()
    if parallel.rank == 0:
        print(json.dumps({"done": done, "stage": trainer.stage.name, "step": trainer.step,
                          "checkpoint": str(args.output / "last")}))
    return parallel.exit(EXIT_INTERRUPTED if interruption.is_set() and not done else 0)


def _check_device(name: str) -> None:
    import torch

    try:
        kind = torch.device(name).type
    except RuntimeError:
        raise ValueError(f"--device: expected for example cpu or cuda:0, got {name!r}") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device: torch sees no CUDA device here, got {name!r}")


class _Interruption:
    """Ctrl-C and SIGTERM ask the loop to save and stop; a second one stops at once."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def _note(self, number: int, _: Any) -> None:
        print("interrupted: saving after this step", file=sys.stderr)
        self._set = True
        signal.signal(number, self._before[number])

    def __enter__(self) -> _Interruption:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
