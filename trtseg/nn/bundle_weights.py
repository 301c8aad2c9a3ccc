"""A network's weights out of a bundle, where they have the names of the state dict."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor

from trtseg.bundle import Bundle
from trtseg.errors import BundleError
from trtseg.nn.config import NetworkConfig
from trtseg.nn.network import LatentDiversity


def read_weights(graph: bytes) -> dict[str, np.ndarray]:
    """All floating-point initialisers of a serialised graph, as float32, by name."""
    model = onnx.load_from_string(graph)
    return {
        initialiser.name: numpy_helper.to_array(initialiser).astype(np.float32)
        for initialiser in model.graph.initializer
        if initialiser.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)
    }


def bundle_weights(bundle: Bundle) -> tuple[NetworkConfig, dict[str, Tensor]]:
    """Configuration and state dict of the network that a bundle holds.

    Raises:
        BundleError: it does not say which network it holds.
    """
    try:
        config = NetworkConfig.from_dict(dict(bundle.manifest.raw["network"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{bundle.path}: holds no network of ours: {error}") from error
    values = dict(bundle.parameters)
    for role in bundle.manifest.graphs:
        # a graph holds constants beside the weights; those have no place in a state dict
        named = read_weights(bundle.graph(role))
        values |= {name: array for name, array in named.items() if name.startswith(f"{role}.")}
    state = {name: torch.from_numpy(array.copy()) for name, array in values.items()}
    with torch.device("meta"):
        expected = LatentDiversity(config).state_dict()
    for name, tensor in expected.items():
        if name.endswith(".bias") and name not in state:
            # onnxscript drops the biases of convolutions that are zero throughout
            state[name] = torch.zeros(tensor.shape)
    return config, state


def load_network(bundle: Bundle) -> LatentDiversity:
    """The network of a bundle in evaluation mode.

    Raises:
        BundleError: as `bundle_weights`, or weights are missing or of other shapes.
    """
    config, state = bundle_weights(bundle)
    network = LatentDiversity(config)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"{bundle.path}: weights do not fit the network: {reason}") from None
    return network.eval()
