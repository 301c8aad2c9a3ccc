"""The training loop: f with its encoder, then g on the frozen f."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from trtseg import bundle as bundles
from trtseg.errors import CheckpointError
from trtseg.nn.bundle_weights import bundle_weights
from trtseg.nn.checkpoint import assign, read_checkpoint, save_checkpoint
from trtseg.nn.checkpoint import weights as checkpoint_weights
from trtseg.nn.mobilenet import MobileNetV2
from trtseg.nn.network import LatentDiversity
from trtseg.train.config import BUNDLE_PREFIX, StageConfig, TrainConfig
from trtseg.train.data import Batch, Crops, StepSampler, collate
from trtseg.train.images import LabelledImages
from trtseg.train.log import MetricLog
from trtseg.train.moments import ADAM, load_moments, moment_tensors
from trtseg.train.objective import STAGES, Objective, StepRandomness
from trtseg.train.parallel import Parallel, ignore_interruption
from trtseg.train.validate import validate


def initialise(network: LatentDiversity, source: str, encoder_only: bool) -> None:
    """Load ImageNet weights (a file, or torchvision's URL), or a network of ours.

    A network of ours may have more candidates than `network`: their order is a ranking (LD
    eq. 7), so that the first of them are taken, and g begins anew.

    Args:
        network: receives the weights.
        source: see `TrainConfig.initial_weights`.
        encoder_only: of a network of ours, take the encoder alone.

    Raises:
        BundleError, CheckpointError: the source is missing, damaged or of another network.
        ValueError: the network has no encoder that could take them.
    """
    if source.startswith(BUNDLE_PREFIX) or Path(source).is_dir():
        if source.startswith(BUNDLE_PREFIX):
            _, state = bundle_weights(bundles.read(source.removeprefix(BUNDLE_PREFIX)))
        else:
            _, state = checkpoint_weights(source)
        if not encoder_only:
            state = _first_candidates(network, state)
        else:
            state = network.state_dict() | {
                name: tensor for name, tensor in state.items() if name.startswith("encoder.")
            }
        assign(network, state, source)
        return
    if network.encoder is None:
        raise ValueError("initial_weights: encoder 'none' has no backbone to take them")
    backbone = network.encoder.backbone
    if isinstance(backbone, MobileNetV2):
        backbone.load_imagenet(source)
    elif source.endswith(".npz"):
        backbone.load_caffe(source)
        # Caffe's network was trained on 0..255: its features reach the thousands
        backbone.scale_features(1 / 255)
    elif "://" in source:
        backbone.load_torchvision_url(source)
    else:
        backbone.load_torchvision_file(source)


def _first_candidates(network: LatentDiversity, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` as it is, or cut to the candidates of `network`, with that network's own g."""
    head = "segment.head."
    wanted = network.config.candidates
    if not 0 < wanted < len(state.get(f"{head}bias", ())):
        return state
    own = {key: value for key, value in network.state_dict().items() if key.startswith("select.")}
    kept = {key: value for key, value in state.items() if not key.startswith("select.")}
    return own | {
        key: value[:wanted] if key.startswith(head) else value for key, value in kept.items()
    }


class Trainer:
    """State of one run, which `run` advances and `save` keeps.

    Args:
        config: everything the run depends on.
        folder: checkpoints (`last`, `best`), `log.csv` and `curves.png` go here.
        parallel: the processes that share the work.
        workers: processes that prepare samples; they do not change the result.

    Raises:
        DatasetError, CheckpointError, OSError: data or initial weights cannot be read.
    """

    def __init__(
        self, config: TrainConfig, folder: str | Path, parallel: Parallel, workers: int = 1
    ) -> None:
        self.config = config
        self.folder = Path(folder)
        self.parallel = parallel
        self.workers = workers
        self.images = LabelledImages(config.data)
        torch.manual_seed(config.seed)
        self.network = LatentDiversity(config.network)
        if config.initial_weights is not None:
            initialise(
                self.network, config.initial_weights, config.initial_encoder_only
            )
        self.network.to(parallel.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.best_noc = float("inf")
        self.seconds = 0.0
        self.log = MetricLog(self.folder)
        self._begin_stage("segment")

    # ---- what is trained -------------------------------------------------------------------

    def _stage_config(self) -> StageConfig:
        return self.config.segment if self.stage == "segment" else self.config.select

    def stage_steps(self, stage: str) -> int:
        """Optimiser steps of a stage."""
        settings = self.config.segment if stage == "segment" else self.config.select
        return settings.count(len(self.images), self.config.batch * self.parallel.world)

    def _begin_stage(self, stage: str) -> None:
        self.stage, self.step = stage, 0
        settings = self._stage_config()
        groups: dict[float, list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in self.network.named_parameters():
            of_select = name.startswith("select.")
            factor = settings.encoder_factor if name.startswith("encoder.backbone.") else 1.0
            parameter.requires_grad_(factor > 0 and of_select == (stage == "select"))
            if parameter.requires_grad:
                groups.setdefault(factor, []).append((name, parameter))
        self.trained = [name for members in groups.values() for name, _ in members]
        self.parameters = [parameter for members in groups.values() for _, parameter in members]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": [parameter for _, parameter in members], "factor": factor}
                for factor, members in groups.items()
            ],
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        self.average = {name: tensor.detach().clone()
                        for name, tensor in self.network.state_dict().items()}
        self.objective = self.parallel.wrap(Objective(self.network, self.config, stage))

    def _set_learning_rate(self) -> None:
        settings, steps = self._stage_config(), self.stage_steps(self.stage)
        rate = min(1.0, (self.step + 1) / max(settings.warmup, 1))
        cooling = settings.cooldown * steps
        if cooling > 0:
            rate = min(rate, (steps - self.step) / cooling)
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * group["factor"] * rate

    def _advance(self, batch: Batch) -> dict[str, float]:
        self._set_learning_rate()
        device = self.parallel.device
        randomness = StepRandomness(self.config.seed, self.stage, self.step,
                                    self.parallel.rank * len(batch.clicks))
        batch = Batch(batch.images.to(device), batch.targets.to(device), batch.clicks)
        self.optimiser.zero_grad(set_to_none=True)
        values = self.objective(batch, randomness)
        values["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        # a step that overflowed would spoil the weights and the moments for good
        if torch.isfinite(norm):
            self.optimiser.step()
        self.step += 1
        # early weights are poor: let the average forget them quickly
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, parameter in zip(self.trained, self.parameters, strict=True):
                self.average[name].lerp_(parameter, 1 - decay)
        return {**{name: float(value.detach()) for name, value in values.items()},
                "gradient_norm": float(norm)}

    # ---- the run ---------------------------------------------------------------------------

    def run(
        self,
        max_minutes: float | None = None,
        save_every: int = 500,
        stopped: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Train until both stages are done; True when they are.

        Args:
            max_minutes: save and return False after this long.
            save_every: steps between two checkpoints.
            stopped: asked after every step; once true, save and return False.
        """
        end = None if max_minutes is None else time.monotonic() + 60 * max_minutes

        def over() -> bool:
            late = end is not None and time.monotonic() >= end
            return self.parallel.any(late or stopped())

        while self._run_stage(save_every, over):
            if self.stage == "select" or self.network.select is None:
                return True
            self.save("segment")
            self.network.load_state_dict(self.average)
            # f by rank and f with g are different methods: their records do not compare
            self.best_noc = float("inf")
            self._begin_stage("select")
        return False

    def _run_stage(self, save_every: int, over: Callable[[], bool]) -> bool:
        """True when the stage's steps are done."""
        steps = self.stage_steps(self.stage)
        offset = 0 if self.stage == "segment" else self.stage_steps("segment")
        # forked workers inherit this; OpenCV's thread pool does not survive a fork
        cv2.setNumThreads(1)
        crops = Crops(self.images, self.config.crop, self.config.clicks, self.config.seed)
        sampler = StepSampler(self.step + offset, steps + offset, self.config.batch,
                              self.parallel.rank, self.parallel.world)
        loader = DataLoader(crops, batch_sampler=sampler, collate_fn=collate,
                            num_workers=self.workers, worker_init_fn=ignore_interruption)
        bar = tqdm(total=steps, initial=self.step, desc=self.stage,
                   disable=self.parallel.rank > 0, mininterval=5)
        with bar:
            for batch in loader:
                started = time.monotonic()
                values = self._advance(batch)
                self.seconds += time.monotonic() - started
                bar.update()
                self.log.add(self.stage, self.step, values)
                if self.step % 20 == 0:
                    bar.set_postfix(self.log.recent())
                done = self.step == steps
                stop = over() and not done
                if self.step % self.config.validation.every == 0 or done:
                    self._validate()
                if self.step % save_every == 0 or done or stop:
                    self.save("last")
                if stop:
                    return False
        return True

    def _validate(self) -> None:
        if not self.config.validation.paths or self.parallel.rank > 0:
            return
        network = LatentDiversity(self.config.network)
        network.load_state_dict(self.average)
        network.to(self.parallel.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        by_rank = self.stage == "segment"
        values = validate(network, self.config.validation, self.config.bf16, by_rank)
        self.log.add_validation(self.stage, self.step, values)
        tqdm.write(f"{self.stage} {self.step}: " + ", ".join(
            f"{name} {value:.3f}" for name, value in values.items()), file=sys.stderr)
        noc = values["noc@85"] + values["noc@90"]
        if noc < self.best_noc:
            self.best_noc = noc
            self.save("best")

    # ---- keeping the state -----------------------------------------------------------------

    def save(self, name: str) -> None:
        """Write checkpoint `name` into the run's folder; process 0 only."""
        if self.parallel.rank > 0:
            return
        tensors = {f"model.{key}": value for key, value in self.network.state_dict().items()}
        tensors |= {f"ema.{key}": value for key, value in self.average.items()}
        tensors |= moment_tensors(self.optimiser, self.trained)
        save_checkpoint(self.folder / name, tensors, {
            "network": self.config.network.to_dict(),
            "train": self.config.to_dict(),
            "stage": self.stage,
            "step": self.step,
            "best_noc": None if self.best_noc == float("inf") else self.best_noc,
            "seconds": self.seconds,
            "samples": self.step * self.config.batch * self.parallel.world
            * self.config.crop.objects,
        })
        self.log.write()

    def resume(self) -> None:
        """Continue from the folder's `last` checkpoint, exactly where it was.

        Raises:
            CheckpointError: it is missing, damaged, or of another network or stage.
        """
        path = self.folder / "last"
        tensors, state = read_checkpoint(path)
        try:
            stage, step, seconds = state["stage"], int(state["step"]), float(state["seconds"])
            best_noc = float("inf") if state["best_noc"] is None else float(state["best_noc"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path / 'state.json'}: {error!r} in a run's state") from None
        if stage not in STAGES:
            raise CheckpointError(f"{path / 'state.json'}: no stage {stage!r}")

        def part(prefix: str) -> dict[str, Tensor]:
            return {key.removeprefix(prefix): value for key, value in tensors.items()
                    if key.startswith(prefix)}

        assign(self.network, part("ema."), path)  # proves that names and shapes fit
        assign(self.network, part("model."), path)
        self._begin_stage(stage)
        self.step, self.seconds, self.best_noc = step, seconds, best_noc
        for name, value in part("ema.").items():
            self.average[name].copy_(value)
        parameters = dict(zip(self.trained, self.parameters, strict=True))
        load_moments(self.optimiser, parameters, ADAM, tensors, path)
        self.log.read(stage, step)
