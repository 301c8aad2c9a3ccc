"""One process, or several under torchrun."""

from __future__ import annotations

import os
import signal
import sys

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


class Parallel:
    """The processes of a run. `torchrun` announces them in the environment.

    Args:
        device: of this process; by default its own GPU where there is one, else the CPU.
    """

    def __init__(self, device: str | None = None) -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.world = int(os.environ.get("WORLD_SIZE", 1))
        local = int(os.environ.get("LOCAL_RANK", 0))
        if device is None:
            device = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        if self.world > 1:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
            distributed.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module itself, or one whose gradients are averaged over the processes."""
        if self.world == 1:
            return module
        return DistributedDataParallel(module)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process: all of them must stop at the same step."""
        if self.world == 1:
            return flag
        flags = torch.tensor(float(flag), device=self.device)
        distributed.all_reduce(flags, op=distributed.ReduceOp.MAX)
        return bool(flags.item())

    def close(self) -> None:
        """Leave the process group."""
        if self.world > 1:
            distributed.destroy_process_group()

    def exit(self, code: int) -> int:
        """The exit status of a single process; one of several ends with it here.

        DistributedDataParallel keeps its process group for good (torch 2.13), and with it gloo's
        threads. A process that still has them when its static objects are destroyed now and then
        aborts, and torchrun would report a run that is whole as failed.
        """
        if self.world > 1:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        return code


def ignore_interruption(_: int) -> None:
    """For processes that prepare samples: Ctrl-C is the training loop's affair."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
