"""The paper's network with random weights: latency does not depend on what was learnt."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from trtseg import bundle
from trtseg.bundle import Bundle
from trtseg.export.bundle import manifest_of, pack
from trtseg.export.graphs import network_graphs
from trtseg.nn.config import NetworkConfig
from trtseg.nn.network import LatentDiversity


def random_full(config: NetworkConfig | None = None, *, seed: int = 0) -> Bundle:
    """A bundle of a network that was never trained.

    Args:
        config: None: the paper's network on VGG-19, of width 64.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    network = LatentDiversity(config or NetworkConfig()).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if not bool(parameter.any()):
                # such as the biases of a new network: the exporter drops what adds nothing
                parameter.normal_(std=0.1)
    names, files = pack(network, network_graphs(network))
    manifest = {**manifest_of(network, "random-full"), "graphs": names}
    with tempfile.TemporaryDirectory() as folder:
        return bundle.read(bundle.write(Path(folder) / "bundle", manifest, files))
