"""`trtseg train-corrections CONFIG.json`: the initial model of continuous adaptation."""

from __future__ import annotations

import argparse

from trtseg.commands.train import add_arguments, train

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace) -> int:
    """Train; where the checkpoint lies goes to stdout as JSON."""
    from trtseg.train.corrections import CorrectionsTask, read_corrections_config

    config = read_corrections_config(args.config)
    return train(args, lambda: CorrectionsTask(config))
