"""One training loop: stages of optimiser steps over batches, with exact resume."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import torch
from torch import Tensor, nn
from tqdm import tqdm

from trtseg.errors import CheckpointError, TrtsegError
from trtseg.nn.checkpoint import assign, read_checkpoint, save_checkpoint
from trtseg.train.log import MetricLog
from trtseg.train.moments import ADAM, SGD, load_moments, moment_tensors
from trtseg.train.parallel import Parallel
from trtseg.train.samples.crops import Batch
from trtseg.train.samples.randomness import StepRandomness

MOMENTUM = 0.9
MOMENTS = {"adamw": ADAM, "sgd": SGD}
# steps in a row without a finite gradient that end a run
PATIENCE = 10


@dataclass(frozen=True)
class Stage:
    """A part of a run with an optimiser of its own.

    Attributes:
        name: of the stage, in logs and checkpoints; no two are alike.
        steps: of the optimiser.
        learning_rate: before `rate`.
        factor: a parameter's learning rate relative to that, by its name; 0 freezes it.
        rate: share of the learning rate at a step, given (step, steps).
        optimiser: "adamw" or "sgd" (with momentum 0.9).
        weight_decay: of the optimiser.
        clip_norm: gradients are scaled down to this norm; None leaves them.
        ema: decay of the averaged weights; 0 keeps the last ones.
        repeats: steps on each batch, which the objective may change in between.
    """

    name: str
    steps: int
    learning_rate: float
    factor: Callable[[str], float]
    rate: Callable[[int, int], float]
    optimiser: str = "adamw"
    weight_decay: float = 0.0
    clip_norm: float | None = None
    ema: float = 0.0
    repeats: int = 1


class Task(Protocol):
    """What is trained, on what, and how well it does."""

    network: nn.Module
    seed: int

    def stages(self, world: int) -> Sequence[Stage]:
        """The stages of a run on `world` processes, in order."""

    def objective(self, stage: Stage) -> nn.Module:
        """A module that is called with (Batch, StepRandomness) and returns scalars by name, among
        them the "loss" to differentiate."""

    def batches(
        self, first: int, count: int, parallel: Parallel, workers: int
    ) -> Iterable[Batch]:
        """The batches number `first` to `first + count - 1` of the run, of this process."""

    def validate(self, stage: Stage, state: Mapping[str, Tensor]) -> dict[str, float] | None:
        """Measures of the averaged weights; None where nothing is to be measured. The smallest
        sum of those whose names begin with "noc" is kept as the best."""

    def record(self) -> dict[str, Any]:
        """JSON values for checkpoints: "network" and "train"."""


class Trainer:
    """State of one run, which `run` advances and `save` keeps.

    Args:
        task: what is trained.
        folder: checkpoints (`last`, `best`, one a finished stage, and in the end `model`),
            `log.csv` and `curves.png` go here.
        parallel: the processes that share the work.
        workers: processes that prepare samples; they do not change the result.
        validate_every: steps between two validations; each stage's end has one, too.

    Raises:
        DatasetError, CheckpointError, OSError: data or initial weights cannot be read.
    """

    def __init__(
        self,
        task: Task,
        folder: str | Path,
        parallel: Parallel,
        workers: int = 1,
        validate_every: int = 1000,
    ) -> None:
        self.task, self.folder = task, Path(folder)
        self.parallel, self.workers, self.validate_every = parallel, workers, validate_every
        self.network = task.network
        self.network.to(parallel.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.stages = list(task.stages(parallel.world))
        self.best_noc = float("inf")
        self.seconds = 0.0
        self.samples = 0
        self._overflows = 0
        self.log = MetricLog(self.folder)
        self._begin(0)

    @property
    def stage(self) -> Stage:
        """The stage at hand."""
        return self.stages[self.number]

    def _begin(self, number: int) -> None:
        self.number, self.step = number, 0
        stage = self.stage
        groups: dict[float, list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in self.network.named_parameters():
            factor = stage.factor(name)
            parameter.requires_grad_(factor > 0)
            if factor > 0:
                groups.setdefault(factor, []).append((name, parameter))
        members = [member for group in groups.values() for member in group]
        self.trained = [name for name, _ in members]
        self.parameters = [parameter for _, parameter in members]
        of_groups = [
            {"params": [parameter for _, parameter in group], "factor": factor}
            for factor, group in groups.items()
        ]
        rate, decay = stage.learning_rate, stage.weight_decay
        self.optimiser: torch.optim.Optimizer
        if stage.optimiser == "sgd":
            self.optimiser = torch.optim.SGD(
                of_groups, lr=rate, momentum=MOMENTUM, weight_decay=decay
            )
        else:
            self.optimiser = torch.optim.AdamW(of_groups, lr=rate, weight_decay=decay)
        self.average = {
            name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()
        }
        self.objective = self.parallel.wrap(self.task.objective(stage))

    def _set_learning_rate(self) -> None:
        rate = self.stage.learning_rate * self.stage.rate(self.step, self.stage.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["factor"]

    def _advance(self, batch: Batch) -> dict[str, float]:
        self._set_learning_rate()
        randomness = StepRandomness(
            self.task.seed, self.number, self.step, self.parallel.rank * len(batch.clicks)
        )
        torch.manual_seed(randomness.torch_seed)
        self.optimiser.zero_grad(set_to_none=True)
        values = self.objective(batch, randomness)
        values["loss"].backward()
        clip = float("inf") if self.stage.clip_norm is None else self.stage.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, clip)
        # a step that overflowed would spoil the weights and the moments for good
        if torch.isfinite(norm):
            self.optimiser.step()
            self._overflows = 0
        else:
            self._overflows += 1
            if self._overflows >= PATIENCE:
                raise TrtsegError(
                    f"{self.stage.name} {self.step}: {PATIENCE} gradients in a row are not "
                    "finite: the training diverged; the last checkpoint is kept"
                )
        self.step += 1
        self.samples += len(batch.clicks) * self.parallel.world
        self._average()
        return {**{name: float(value.detach()) for name, value in values.items()},
                "gradient_norm": float(norm)}

    @torch.no_grad()
    def _average(self) -> None:
        # early weights are poor: let the average forget them quickly
        decay = min(self.stage.ema, (1 + self.step) / (10 + self.step))
        kept = [self.average[name] for name in self.trained]
        torch._foreach_lerp_(kept, list[Tensor](self.parameters), 1 - decay)
        for name, buffer in self.network.named_buffers():
            if name in self.average:  # statistics of normalisation layers
                self.average[name].copy_(buffer)

    # ---- the run ---------------------------------------------------------------------------

    def run(
        self,
        max_minutes: float | None = None,
        save_every: int = 500,
        stopped: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Train until all stages are done; True when they are.

        Args:
            max_minutes: save and return False after this long.
            save_every: steps between two checkpoints.
            stopped: asked after every batch; once true, save and return False.

        Raises:
            TrtsegError: the training diverged.
        """
        end = None if max_minutes is None else time.monotonic() + 60 * max_minutes

        def over() -> bool:
            late = end is not None and time.monotonic() >= end
            return self.parallel.any(late or stopped())

        while self._run_stage(save_every, over):
            self.save(self.stage.name)
            if self.number + 1 == len(self.stages):
                self.release()
                return True
            self.network.load_state_dict(self.average)
            # what a stage measures need not compare with the one before
            self.best_noc = float("inf")
            self._begin(self.number + 1)
        return False

    def _run_stage(self, save_every: int, over: Callable[[], bool]) -> bool:
        """True when the stage's steps are done."""
        stage = self.stage
        batches_before = sum(-(-s.steps // s.repeats) for s in self.stages[: self.number])
        done_batches = self.step // stage.repeats
        # forked workers inherit this; OpenCV's thread pool does not survive a fork
        cv2.setNumThreads(1)
        batches = self.task.batches(
            batches_before + done_batches,
            -(-stage.steps // stage.repeats) - done_batches,
            self.parallel,
            self.workers,
        )
        bar = tqdm(total=stage.steps, initial=self.step, desc=stage.name,
                   disable=self.parallel.rank > 0, mininterval=5, file=sys.stderr)
        saved = self.step
        with bar:
            for batch in batches:
                batch = batch.to(self.parallel.device)
                for _ in range(min(stage.repeats, stage.steps - self.step)):
                    started = time.monotonic()
                    values = self._advance(batch)
                    self.seconds += time.monotonic() - started
                    bar.update()
                    self.log.add(stage.name, self.step, values)
                    if self.step % 20 == 0:
                        bar.set_postfix(self.log.recent())
                    if self.step % self.validate_every == 0 or self.step == stage.steps:
                        self._validate()
                done = self.step == stage.steps
                stop = over() and not done
                if self.step - saved >= save_every or done or stop:
                    self.save("last")
                    saved = self.step
                if stop:
                    return False
        return True

    def _validate(self) -> None:
        if self.parallel.rank > 0:
            return
        values = self.task.validate(self.stage, self.average)
        if values is None:
            return
        self.log.add_validation(self.stage.name, self.step, values)
        tqdm.write(f"{self.stage.name} {self.step}: " + ", ".join(
            f"{name} {value:.3f}" for name, value in values.items()), file=sys.stderr)
        noc = sum(value for name, value in values.items() if name.startswith("noc"))
        if noc < self.best_noc:
            self.best_noc = noc
            self.save("best")

    # ---- keeping the state -----------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        return {
            **self.task.record(),
            "stage": self.stage.name,
            "step": self.step,
            "best_noc": None if self.best_noc == float("inf") else self.best_noc,
            "seconds": self.seconds,
            "samples": self.samples,
        }

    def save(self, name: str) -> None:
        """Write checkpoint `name` into the run's folder; process 0 only.

        Raises:
            TrtsegError: a weight is not finite; the checkpoint before is kept.
        """
        if self.parallel.rank > 0:
            return
        tensors = {f"model.{key}": value for key, value in self.network.state_dict().items()}
        tensors |= {f"ema.{key}": value for key, value in self.average.items()}
        self._check_finite(tensors)
        tensors |= moment_tensors(self.optimiser, self.trained)
        save_checkpoint(self.folder / name, tensors, self._state())
        self.log.write()

    def release(self) -> None:
        """Write the checkpoint `model`: the averaged weights alone, in half precision.

        Raises:
            TrtsegError: a weight does not fit half precision.
        """
        if self.parallel.rank > 0:
            return
        tensors = {
            f"model.{name}": value.half() if value.is_floating_point() else value
            for name, value in self.average.items()
        }
        self._check_finite(tensors)
        save_checkpoint(self.folder / "model", tensors, self._state())

    def _check_finite(self, tensors: Mapping[str, Tensor]) -> None:
        for name, value in tensors.items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                kind = str(value.dtype).removeprefix("torch.")
                raise TrtsegError(
                    f"{self.stage.name} {self.step}: {name} is not finite in {kind}: the training "
                    "diverged"
                )

    def resume(self) -> None:
        """Continue from the folder's `last` checkpoint, exactly where it was.

        Raises:
            CheckpointError: it is missing, damaged, or of another network, stage or length.
        """
        path = self.folder / "last"
        tensors, state = read_checkpoint(path)
        place = path / "state.json"
        try:
            name, step, seconds = state["stage"], int(state["step"]), float(state["seconds"])
            samples = int(state["samples"])
            best_noc = float("inf") if state["best_noc"] is None else float(state["best_noc"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{place}: {error!r} in a run's state") from None
        numbers = {stage.name: number for number, stage in enumerate(self.stages)}
        if name not in numbers:
            raise CheckpointError(f"{place}: no stage {name!r} in this configuration")
        steps = self.stages[numbers[name]].steps
        if not 0 <= step <= steps:
            raise CheckpointError(
                f"{place}: step: expected 0 to {steps}, where this configuration ends, got {step}"
            )

        def part(prefix: str) -> dict[str, Tensor]:
            return {key.removeprefix(prefix): value for key, value in tensors.items()
                    if key.startswith(prefix)}

        assign(self.network, part("ema."), path)  # proves that names and shapes fit
        assign(self.network, part("model."), path)
        self._begin(numbers[name])
        self.step, self.seconds, self.samples, self.best_noc = step, seconds, samples, best_noc
        for key, value in part("ema.").items():
            self.average[key].copy_(value)
        parameters = dict(zip(self.trained, self.parameters, strict=True))
        kinds = MOMENTS[self.stage.optimiser]
        missing = load_moments(self.optimiser, parameters, kinds, tensors, path)
        if missing and step > 0:
            raise CheckpointError(
                f"{path}: expected the {kinds[-1]} of {missing[0]} that {self.stage.optimiser} "
                "keeps, got none"
            )
        self.log.read([stage.name for stage in self.stages[: self.number]], name, step)
