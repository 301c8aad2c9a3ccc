"""The networks in PyTorch: training, export and adaptation build on them."""

from trtseg.nn.config import NetworkConfig
from trtseg.nn.network import LatentDiversity, normalisation

__all__ = ["LatentDiversity", "NetworkConfig", "normalisation"]
