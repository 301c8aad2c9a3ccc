"""Bundles with random weights, for measuring: latency does not depend on what was learnt."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch

from trtseg import bundle
from trtseg.export.bundle import manifest_of, pack
from trtseg.export.graphs import network_graphs
from trtseg.nn.config import NetworkConfig, lite_config
from trtseg.nn.network import LatentDiversity

CONFIGS: dict[str, Callable[[], NetworkConfig]] = {"full": NetworkConfig, "lite": lite_config}


def write_random(name: str, path: str | os.PathLike[str], *, seed: int = 0) -> Path:
    """Export a network that was never trained.

    Args:
        name: "full" (the paper's network on VGG-19, width 64) or "lite".
        path: where to write the bundle.
        seed: of the weights.

    Raises:
        ValueError: another name.
    """
    if name not in CONFIGS:
        raise ValueError(f"random: expected {' or '.join(CONFIGS)}, got {name!r}")
    torch.manual_seed(seed)
    network = LatentDiversity(CONFIGS[name]()).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if not bool(parameter.any()):
                # such as the biases of a new network: the exporter drops what adds nothing
                parameter.normal_(std=0.1)
    names, files = pack(network, network_graphs(network))
    manifest = {**manifest_of(network, f"random-{name}"), "graphs": names}
    return bundle.write(path, manifest, files)
