"""The networks in PyTorch: training, export and adaptation build on them."""

from trtseg.nn.config import NetworkConfig, lite_config
from trtseg.nn.network import LatentDiversity, normalisation

__all__ = ["LatentDiversity", "NetworkConfig", "lite_config", "normalisation"]
