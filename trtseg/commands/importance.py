"""`trtseg importance MODEL DATASET`: which weights matter, for adaptation to hold on to."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtseg.commands.options.arguments import integer

if TYPE_CHECKING:
    from torch import Tensor

    from trtseg.adapt.learn import Forward
    from trtseg.evaluate import Dataset
    from trtseg.runtime.session.observation import Observation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments on `parser`."""
    parser.add_argument("model", help="name or path of the bundle, or a checkpoint of "
                        "`trtseg train-corrections`")
    parser.add_argument("dataset", help="images and masks like those the model was trained on")
    parser.add_argument("--objects", type=integer(1), default=120,
                        help="at most so many, spread over the data set (default %(default)s)")
    parser.add_argument("--clicks", type=integer(1), default=4,
                        help="simulated clicks per object (default %(default)s)")
    parser.add_argument("--min-area", type=float, default=0.01,
                        help="leave out objects that fill less of their image")
    parser.add_argument("--config", type=Path, metavar="JSON",
                        help="hyperparameters chosen for this model, kept with the importance")
    parser.add_argument("--seed", type=integer(0), default=0)
    parser.add_argument("--force", action="store_true", help="replace an existing file")


def run(args: argparse.Namespace) -> int:
    """Compute importance weights and write them beside the bundle; the path goes to stdout."""
    from tqdm import tqdm

    from trtseg.adapt.config import AdaptConfig
    from trtseg.adapt.importance import memory_aware_synapses, save_importance
    from trtseg.evaluate import open_dataset
    from trtseg.parse import build, read_derived

    notes = {}
    if args.config is not None:
        config = build(AdaptConfig, read_derived(args.config), str(args.config))
        notes["config"] = json.dumps(asdict(config))
    early = (Path(args.model) / "state.json").is_file()
    subject = early_fusion_subject(Path(args.model)) if early else bundle_subject(args.model)
    if subject.path.exists() and not args.force:
        raise FileExistsError(f"{subject.path}: exists already; pass --force to replace it")
    dataset = open_dataset(args.dataset, min_area=args.min_area)
    drawn = np.random.default_rng(args.seed).permutation(len(dataset))
    indices = sorted(drawn[: args.objects].tolist())
    bar = tqdm(indices, desc="importance", unit="object", file=sys.stderr)
    outputs = network_outputs(subject, dataset, bar, args.clicks, args.seed)
    importance = memory_aware_synapses(outputs, subject.weights)
    notes |= {"dataset": dataset.name, "objects": str(len(indices)), "clicks": str(args.clicks)}
    save_importance(subject.path, importance, subject.fingerprint, notes)
    print(subject.path)
    return 0


@dataclass(frozen=True)
class Subject:
    """A model whose weights are judged.

    Attributes:
        path: where its importance is kept.
        fingerprint: what ties the file to the model.
        weights: where the gradient is taken.
        open: from an image to a session and a function that gives, after some clicks, the
            network's output as a function of its weights.
    """

    path: Path
    fingerprint: str
    weights: Mapping[str, Tensor]
    open: Callable[[np.ndarray], tuple[Any, Callable[[], Forward]]]


def bundle_subject(name: str) -> Subject:
    """f of a bundle, with all its layers.

    Raises:
        BundleError: there is none, or it cannot be adapted.
    """
    import torch

    from trtseg.adapt.config import AdaptConfig
    from trtseg.adapt.importance import importance_path
    from trtseg.adapt.latent import AdaptableSegment
    from trtseg.runtime.segmenter import Segmenter

    segmenter = Segmenter.load(name)
    bundle = segmenter.bundle
    model = AdaptableSegment.from_bundle(
        bundle, AdaptConfig(bf16=False), memory=segmenter.engines.memory
    )

    def open_session(image: np.ndarray) -> tuple[Any, Callable[[], Forward]]:
        watcher = Watcher()
        session = segmenter.session(segmenter.encode(image), focus=None, adapt=watcher)

        def output() -> Forward:
            features = model.features(watcher.seen[-1])
            return lambda weights: torch.sigmoid(model.logits(features, weights))

        return session, output

    return Subject(importance_path(bundle), bundle.fingerprint, model.initial, open_session)


def early_fusion_subject(checkpoint: Path) -> Subject:
    """A DeepLabV3+ checkpoint, with all its layers.

    Raises:
        CheckpointError: it is damaged or of another kind.
    """
    from trtseg.adapt.config import AdaptConfig
    from trtseg.adapt.early_fusion import EarlyFusionModel, EarlyFusionSession
    from trtseg.adapt.importance import checkpoint_importance_path
    from trtseg.nn.checkpoint import read_checkpoint
    from trtseg.nn.deeplab import load_deeplab

    _, state = read_checkpoint(checkpoint)
    model = EarlyFusionModel(load_deeplab(checkpoint), AdaptConfig(bf16=False))

    def open_session(image: np.ndarray) -> tuple[Any, Callable[[], Forward]]:
        session = EarlyFusionSession(model, image, model.initial, adapts=False)
        return session, session.output

    path = checkpoint_importance_path(checkpoint)
    return Subject(path, state["tensors_sha256"], model.initial.values, open_session)


def network_outputs(
    subject: Subject, dataset: Dataset, indices: Iterable[int], clicks: int, seed: int
) -> Iterator[Forward]:
    """The masks as functions of the weights, for objects in the middle of being clicked on.

    Each object contributes one state: after 1 to `clicks` simulated clicks, at random.
    """
    from trtseg.evaluate.clicks import make_clicker
    from trtseg.evaluate.protocol import record_object

    for index in indices:
        sample = dataset[index]
        session, output = subject.open(sample.image)
        clicker = make_clicker("random", sample.mask, seed=seed, name=sample.name)
        count = int(np.random.default_rng([seed, index]).integers(1, clicks + 1))
        if record_object(session, sample, clicker, count).clicks:
            yield output()


class Watcher:
    """An adapter that learns nothing and keeps what it is shown."""

    def __init__(self) -> None:
        self.seen: list[Observation] = []

    def start(self) -> None:
        """See `trtseg.runtime.session.observation.Adapter`."""

    def adapt(self, weights: None, observation: Observation) -> None:
        """See `trtseg.runtime.session.observation.Adapter`."""
        self.seen.append(observation)

    def engine(self, weights: None) -> None:
        """See `trtseg.runtime.session.observation.Adapter`."""
