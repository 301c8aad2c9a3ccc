"""`trtseg train-corrections CONFIG.json`: the initial model of continuous adaptation."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from trtseg.commands.arguments import integer, minutes, threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments on `parser`."""
    parser.add_argument("config", type=Path, help="the run's configuration, JSON")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--resume", action="store_true",
                        help="continue from the folder's checkpoint, exactly")
    parser.add_argument("--max-minutes", type=minutes, metavar="N",
                        help="save and stop after this long; --resume goes on")
    parser.add_argument("--save-every", type=integer(1), default=500, metavar="STEPS")
    parser.add_argument("--threads", type=threads, help="CPU threads of torch")
    parser.add_argument("--device", help="for example cpu or cuda:0 (default: a GPU if there is)")


def run(args: argparse.Namespace) -> int:
    """Train; where the checkpoint lies goes to stdout as JSON."""
    import torch
    from tqdm import tqdm

    from trtseg.train.corrections import CorrectionsTrainer, read_corrections_config

    if args.threads:
        torch.set_num_threads(args.threads)
    if not args.resume and (args.output / "last").exists():
        raise FileExistsError(
            f"{args.output}: holds a run already; pass --resume, or another --output"
        )
    config = read_corrections_config(args.config)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    _check_device(device)
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=args.output):
        pass  # a place that cannot be written is told now, not after hours
    trainer = CorrectionsTrainer(config, args.output, device)
    if args.resume:
        trainer.resume()
    with tqdm(total=trainer.steps, initial=trainer.step, mininterval=5, file=sys.stderr) as bar:

        def progress(step: int, loss: float) -> None:
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

        done = trainer.run(
            max_minutes=args.max_minutes, save_every=args.save_every, progress=progress
        )
    checkpoint = args.output / ("model" if done else "last")
    print(json.dumps({"done": done, "step": trainer.step, "checkpoint": str(checkpoint)}))
    return 0


def _check_device(name: str) -> None:
    import torch

    try:
        kind = torch.device(name).type
    except RuntimeError:
        raise ValueError(f"--device: expected for example cpu or cuda:0, got {name!r}") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device: torch sees no CUDA device here, got {name!r}")
