"""Latent diversity's f as something that adapts, one candidate of it or all."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trtseg.adapt.config import AdaptConfig
from trtseg.adapt.learn import Example, Forward
from trtseg.bundle import Bundle
from trtseg.errors import BundleError
from trtseg.nn.bundle_weights import read_weights
from trtseg.nn.config import NetworkConfig
from trtseg.nn.layers.context import SLOPE, ContextNetwork
from trtseg.nn.layers.pyramid import PyramidNetwork
from trtseg.nn.layers.unet import UNet
from trtseg.nn.network import segment_network
from trtseg.nn.precision import autocast
from trtseg.runtime.engine import Array, HostMemory, Memory
from trtseg.runtime.pipeline.guidance_maps import GuidanceMaps
from trtseg.runtime.session.observation import Observation

PREFIX = "segment."  # of f's names in the state dict and in the graphs


Segment = ContextNetwork | UNet | PyramidNetwork
Features = tuple[Tensor, ...]


class Tail(nn.Module):
    """The last layers of f: what they read to logits [1, M, H, W]. Names as in the state dict."""

    def __init__(self, segment: Segment, layers: int) -> None:
        super().__init__()
        self.segment, self.layers = segment, layers

    def forward(self, features: Features) -> Tensor:
        return self.segment.logits(features, self.layers)


class Whole(nn.Module):
    """f as it is, under the names of the state dict."""

    def __init__(self, segment: Segment) -> None:
        super().__init__()
        self.segment = segment

    def forward(self, x: Tensor, *maps: Tensor) -> tuple[Tensor, Tensor]:
        return self.segment(x, *maps)


class AdaptableSegment:
    """f, and how an observation becomes its input.

    The first layer (guidance, features and image to C channels) stays as it is: it lies outside
    of the `segment` graph, its image part is cached with the encoding, and without it the
    gradient ends at x, which is computed once per click.

    Attributes:
        initial: theta* of the adapted layers, float32, by name in the state dict.
        device: where the steps run.
    """

    def __init__(
        self,
        bundle: Bundle,
        segment: Segment,
        config: AdaptConfig,
        device: torch.device | str = "cpu",
        memory: Memory | None = None,
    ) -> None:
        layers = segment.depth if config.layers is None else min(config.layers, segment.depth)
        self.device = torch.device(device)
        self.segment = segment.eval().requires_grad_(False)
        layout = torch.channels_last
        segment.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self._tail, self._whole = Tail(self.segment, layers), Whole(self.segment)
        # a functional call lends the module its weights while it runs: one at a time
        self._lock = threading.Lock()
        self._bf16, self._manifest = config.bf16, bundle.manifest
        self._memory = memory or HostMemory()
        weight = torch.from_numpy(bundle.parameters["guidance_weight"].copy())
        self._guidance_weight = weight[:, :, None, None].to(self.device)
        self.initial: dict[str, Tensor] = {
            name: parameter.detach().clone()
            for name, parameter in self._tail.named_parameters()
            if segment.in_tail(name.removeprefix(PREFIX), layers)
        }

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle,
        config: AdaptConfig,
        device: torch.device | str = "cpu",
        memory: Memory | None = None,
    ) -> AdaptableSegment:
        """From the bundle's FP32 graph, whose initialisers have the state dict's names.

        Raises:
            BundleError: the bundle does not say which network it holds, or weights are missing.
        """
        try:
            network = NetworkConfig.from_dict(dict(bundle.manifest.raw["network"]))
            segment = segment_network(network)
            values = read_weights(bundle.graph("segment"))
            segment.load_state_dict(
                {
                    name: torch.from_numpy(values[PREFIX + name])
                    for name in segment.state_dict()
                }
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise BundleError(f"{bundle.path}: cannot be adapted: {error}") from error
        return cls(bundle, segment, config, device, memory)

    def guidance(self, observation: Observation) -> Tensor:
        """Click maps, distance maps and previous mask, float32 [1, G, H, W]."""
        base = observation.encoded.base
        maps = GuidanceMaps(
            self._manifest.guidance,
            base.shape[1:],
            self._manifest.base_stride,
            HostMemory(),
            np.dtype(np.float32),
        )
        maps.update(observation.prompts, observation.previous)
        return torch.from_numpy(maps.maps).to(self.device)

    def features(self, observation: Observation) -> Features:
        """What the adapted layers read, [1, C, H, W] each; no adapted weight changes it."""
        encoded = observation.encoded
        with torch.no_grad(), self._autocast():
            x, *maps = (self._tensor(one) for one in (encoded.base[None], *encoded.maps))
            x = F.leaky_relu(x + F.conv2d(self.guidance(observation), self._guidance_weight), SLOPE)
            x = x.contiguous(memory_format=torch.channels_last)
            return self.segment.prefix(x, *maps, layers=self._tail.layers)

    def _tensor(self, array: Array) -> Tensor:
        # the encoding's arrays are read-only, which torch would warn of
        values = torch.tensor(np.asarray(self._memory.host(array), np.float32), device=self.device)
        return values.contiguous(memory_format=torch.channels_last)

    def logits(self, features: Features, weights: Mapping[str, Tensor]) -> Tensor:
        """All candidates, [M, H, W]."""
        with self._lock, self._autocast():
            return torch.func.functional_call(self._tail, dict(weights), (features,))[0]

    def run(
        self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Masks and features of x [1, C, H, W] and the image maps, in float32."""
        given = tuple(
            one.float().contiguous(memory_format=torch.channels_last) for one in inputs
        )
        with self._lock:
            return torch.func.functional_call(self._whole, dict(weights), given)

    def example(
        self,
        observation: Observation,
        corrections: np.ndarray,
        mask: np.ndarray | None,
        candidates: str = "shown",
    ) -> Example:
        """An example for `learn`.

        Args:
            observation: gives the input; its `selected` is the candidate that was shown.
            corrections: float32 [N, 3], rows (y, x, label) in cells of the grid.
            mask: p, [H, W] in [0, 1].
            candidates: which learn, see `Learning.candidates`.
        """
        features = self.features(observation)
        selected = max(observation.selected, 0)
        taught = slice(None) if candidates == "all" else slice(selected, selected + 1)

        def forward(weights: Mapping[str, Tensor]) -> Tensor:
            return self.logits(features, weights)[taught]

        call: Forward = forward
        target = None if mask is None else torch.tensor(mask, device=self.device)
        return Example(call, torch.from_numpy(corrections).to(self.device), target)

    def _autocast(self) -> torch.autocast:
        return autocast(self.device, self._bf16)


def corrections_of(observation: Observation) -> np.ndarray:
    """All clicks of an observation as corrections, float32 [N, 3], rows (y, x, label)."""
    rows = [
        np.column_stack([points, np.full(len(points), label, np.float32)])
        for points, label in (
            (observation.prompts.positive, 1.0), (observation.prompts.negative, 0.0)
        )
    ]
    return np.concatenate(rows).astype(np.float32)
