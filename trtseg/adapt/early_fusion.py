"""Adaptation of the early-fusion model: DeepLabV3+ whose input holds the clicks (CA section 3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trtseg.adapt.adapter import replayed
from trtseg.adapt.config import MODES, AdaptConfig, Learning
from trtseg.adapt.learn import Example, Forward, learn
from trtseg.adapt.rehearsal import Rehearsal
from trtseg.adapt.weights import AdaptedWeights, Report
from trtseg.nn.deeplab import MEAN, SCALE, DeepLab, click_disks
from trtseg.nn.precision import autocast
from trtseg.parse import one_of
from trtseg.runtime.image import as_picture, prepare, working_size
from trtseg.types import Click, Region, grid_points

MULTIPLE_PX = 32
STRIDE = 4  # of the logits
THRESHOLD = 0.5
HEAD = ("pyramid.", "low_level.", "decoder.", "head.")


@dataclass(frozen=True, eq=False)
class EarlyPrediction:
    """What a click gives.

    Attributes:
        mask: uint8 [H, W], 0 and 255, of the image's size.
        probability: float32 [h / 4, w / 4].
        report: what was learnt before it.
    """

    mask: np.ndarray
    probability: np.ndarray
    report: Report


class EarlyFusionModel:
    """The network, its initial weights and their importance.

    Args:
        network: in evaluation mode.
        config: how it learns, the paper's by default; `layers` None adapts every weight, any
            number the pyramid and the decoder alone, with what the encoder gives computed once
            per click.
        importance: omega by parameter name; empty for none.
    """

    def __init__(
        self,
        network: DeepLab,
        config: AdaptConfig | None = None,
        importance: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.network, self.config = network.eval(), config or AdaptConfig()
        self.network.requires_grad_(False)
        self.device = network.head.weight.device
        self.whole = self.config.layers is None
        self.initial = AdaptedWeights(
            {
                name: value.detach().clone()
                for name, value in network.named_parameters()
                if self.whole or name.startswith(HEAD)
            }
        )
        self.importance = {
            name: importance[name].to(self.device) if importance else value.new_zeros(())
            for name, value in self.initial.values.items()
        }

    def stage(self, image: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
        """The normalised working image float32 [1, 3, h, w], and the image's size."""
        picture = as_picture(image)
        size = working_size(
            *picture.size,
            long_side_px=self.network.config.working_long_side_px,
            multiple_px=MULTIPLE_PX,
        )
        staged = np.empty((1, 3, *size), np.float32)
        prepare(picture, (0, 0, *picture.size), MEAN, SCALE, staged)
        return staged, picture.size

    def features(self, staged: np.ndarray, clicks: np.ndarray) -> tuple[Tensor, ...]:
        """What the adapted layers read: the input itself, or what the encoder makes of it."""
        size = staged.shape[2], staged.shape[3]
        disks = click_disks(clicks, size, self.network.config.disk_radius_px)
        x = torch.from_numpy(np.concatenate([staged, disks[None]], 1)).to(self.device)
        x = x.contiguous(memory_format=torch.channels_last)
        if self.whole:
            return (x,)
        with torch.no_grad(), self._autocast():
            return tuple(self.network.encoder(x))

    def logits(self, features: tuple[Tensor, ...], weights: Mapping[str, Tensor]) -> Tensor:
        """[h / 4, w / 4]."""
        module = self.network if self.whole else _Decoder(self.network)
        values = dict(weights)
        if not self.whole:
            values = {f"network.{name}": value for name, value in values.items()}
        with self._autocast():
            return torch.func.functional_call(module, values, features)[0, 0].float()

    def _autocast(self) -> torch.autocast:
        return autocast(self.device, self.config.bf16)


    def output(self, staged: np.ndarray, clicks: np.ndarray) -> Forward:
        """The mask's probabilities as a function of the weights, for importance."""
        features = self.features(staged, clicks)
        return lambda weights: torch.sigmoid(self.logits(features, weights))


class _Decoder(torch.nn.Module):
    def __init__(self, network: DeepLab) -> None:
        super().__init__()
        self.network = network

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        return self.network.decode(low, high)


def _rows(clicks: tuple[Click, ...], region: Region, size: tuple[int, int]) -> np.ndarray:
    """float32 [N, 3], rows (y, x, label) in pixels of a working image, in the clicks' order."""
    rows = [
        [*grid_points([(click.x, click.y)], region, size)[0], float(click.positive)]
        for click in clicks
    ]
    return np.array(rows, np.float32).reshape(-1, 3)


class EarlyFusionSession:
    """Clicks on one object: as much of a session as an evaluation asks for.

    Attributes:
        clicks: so far.
        weights: that belong to the last click.
        prediction: the last click's; None before the first.
    """

    def __init__(
        self, model: EarlyFusionModel, image: np.ndarray, weights: AdaptedWeights, adapts: bool
    ) -> None:
        self._model, self._adapts = model, adapts
        self._staged, self._size = model.stage(image)
        self._region = (0, 0, *self._size)
        self._base = weights
        self.clicks: tuple[Click, ...] = ()
        self.weights = weights.restarted()
        self.prediction: EarlyPrediction | None = None

    def add_click(self, x: float, y: float, positive: bool = True) -> EarlyPrediction:
        """Learn from the clicks where this session adapts, then predict.

        An exception, an interruption included, leaves the session as it was.
        """
        clicks = (*self.clicks, Click(x, y, positive))
        rows = _rows(clicks, self._region, self._working_size)
        weights = self.weights
        if self._adapts and self.prediction is not None:
            learning = self._model.config.image
            shown = shown_rows(rows, learning, [self._model.config.seed, len(rows)])
            example = self.example(shown, rows, self.prediction.probability)
            weights = learn(
                weights, [example], self._base.values, self._model.importance, learning
            )
        features = self._model.features(self._staged, rows)
        with torch.no_grad():
            probability = torch.sigmoid(self._model.logits(features, weights.values))
        prediction = self._compose(probability, weights.report)
        self.clicks, self.weights, self.prediction = clicks, weights, prediction
        return prediction

    def output(self) -> Forward:
        """As `EarlyFusionModel.output`, with the clicks so far."""
        rows = _rows(self.clicks, self._region, self._working_size)
        return self._model.output(self._staged, rows)

    @property
    def _working_size(self) -> tuple[int, int]:
        return self._staged.shape[2], self._staged.shape[3]

    def example(self, shown: np.ndarray, rows: np.ndarray, mask: np.ndarray) -> Example:
        """What `learn` learns from: the network sees `shown` and is judged by all `rows`."""
        model = self._model  # an example that is kept does not keep the session
        features = model.features(self._staged, shown)
        corrections = rows.copy()
        corrections[:, :2] = (corrections[:, :2] + 0.5) / STRIDE - 0.5
        return Example(
            lambda weights: model.logits(features, weights)[None],
            torch.from_numpy(corrections).to(model.device),
            torch.tensor(mask, device=model.device),
        )

    def final_examples(self, learning: Learning, seed: list[int]) -> list[Example]:
        """The finished object as examples for sequence adaptation."""
        if self.prediction is None:
            raise ValueError("final_examples: no click was made")
        rows = _rows(self.clicks, self._region, self._working_size)
        mask = (self.prediction.probability >= THRESHOLD).astype(np.float32)
        if learning.guidance == "replay":
            return [self.example(rows[: i + 1], rows, mask) for i in replayed(len(rows), seed)]
        return [self.example(shown_rows(rows, learning, seed), rows, mask)]

    def _compose(self, probability: Tensor, report: Report) -> EarlyPrediction:
        enlarged = F.interpolate(
            probability[None, None], size=self._working_size, mode="bilinear", align_corners=False
        )[0, 0]
        values = enlarged.cpu().numpy()
        height, width = self._size
        full = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
        mask = np.where(full >= THRESHOLD, np.uint8(255), np.uint8(0))
        return EarlyPrediction(mask, probability.cpu().numpy(), report)


def shown_rows(rows: np.ndarray, learning: Learning, seed: list[int]) -> np.ndarray:
    """The clicks that the network is shown; see `Learning.guidance`."""
    if learning.guidance == "earlier":
        return rows[:-1]
    if learning.guidance == "all":
        return rows
    rng = np.random.default_rng(seed)
    kept: list[int] = []
    for label, least in ((1.0, 1), (0.0, 0)):
        members = np.flatnonzero(rows[:, 2] == label)
        count = min(len(members), max(least, int(rng.integers(0, len(members) + 1))))
        kept += rng.permutation(members)[:count].tolist()
    return rows[sorted(kept)]


class EarlyFusionSequence:
    """The counterpart of `trtseg.adapt.Sequence`."""

    def __init__(self, model: EarlyFusionModel, adapt: str | None = "both") -> None:
        if adapt is not None:
            one_of("adapt", adapt, MODES)
        self.model, self.adapt, self.images = model, adapt, 0
        self.weights = model.initial
        self._rehearsal = Rehearsal(model.config.sequence.rehearsed)

    @contextmanager
    def image(self, image: np.ndarray) -> Iterator[EarlyFusionSession]:
        """A session on the next image; leaving the block normally is what teaches."""
        adapts = self.adapt in ("image", "both")
        session = EarlyFusionSession(self.model, image, self.weights, adapts)
        yield session
        if self.adapt not in ("sequence", "both"):
            return
        if any(click.positive for click in session.clicks):
            learning, seed = self.model.config.sequence, [self.model.config.seed, self.images]
            examples = session.final_examples(learning, seed)
            weights = learn(
                self.weights,
                self._rehearsal.beside(examples, learning.steps, seed),
                self.model.initial.values,
                self.model.importance,
                learning,
            )
            self.weights, self.images = weights, self.images + 1
            if not weights.report.rejected:
                self._rehearsal.keep(examples)
