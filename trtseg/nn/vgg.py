"""VGG-19 up to conv5_2 with the paper's five taps, and the ways to load its weights."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trtseg.errors import CheckpointError

# convolutions per block, channels; conv5_3 and conv5_4 are not needed
BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (2, 512))
TAP_CHANNELS = (64, 128, 256, 512, 512)
TAP_STRIDES = (1, 2, 4, 8, 16)

# ImageNet statistics of torchvision's weights, for RGB in 0..255
MEAN = (123.675, 116.28, 103.53)
SCALE = (1 / 58.395, 1 / 57.12, 1 / 57.375)
# of Caffe's weights: BGR in 0..255, minus the mean, unscaled
CAFFE_MEAN_RGB = (123.68, 116.779, 103.939)

TORCHVISION_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"


class VGG19(nn.Module):
    """Features after ReLU of conv1_2, conv2_2, conv3_2, conv4_2 and conv5_2.

    Input [B, 3, h, w], RGB normalised by `MEAN` and `SCALE`.
    """

    tap_channels = TAP_CHANNELS
    tap_strides = TAP_STRIDES

    def __init__(self) -> None:
        super().__init__()
        channels = 3
        for block, (count, width) in enumerate(BLOCKS, start=1):
            for index in range(1, count + 1):
                layer = nn.Conv2d(channels, width, 3, padding=1)
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.get_parameter("bias"))
                setattr(self, f"conv{block}_{index}", layer)
                channels = width

    def forward(self, image: Tensor) -> list[Tensor]:
        x = image
        taps = []
        for block, (count, _) in enumerate(BLOCKS, start=1):
            if block > 1:
                x = F.max_pool2d(x, 2)
            for index in range(1, count + 1):
                x = F.relu(getattr(self, f"conv{block}_{index}")(x))
                if index == 2:
                    taps.append(x)
        return taps

    def layer_names(self) -> list[str]:
        """convX_Y in the order of the computation."""
        return [f"conv{b}_{i}" for b, (n, _) in enumerate(BLOCKS, 1) for i in range(1, n + 1)]

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
        """Load torchvision's `vgg19` state dict (`features.N.weight|bias`).

        Raises:
            CheckpointError: a name is missing or a shape differs.
        """
        index = 0
        for block, (count, _) in enumerate(BLOCKS, start=1):
            # torchvision numbers every ReLU and pooling layer too
            position = index
            for layer in range(1, count + 1):
                self._assign(f"conv{block}_{layer}", state, f"features.{position}", source)
                position += 2
            index += 2 * _TORCHVISION_COUNTS[block - 1] + 1

    def load_torchvision_file(self, path: str | Path) -> None:
        """Load a downloaded `vgg19-XXXXXXXX.pth`, whose name begins its SHA-256.

        A file of another name is loaded unchecked.

        Raises:
            CheckpointError: missing, altered, not a checkpoint, or of another network.
        """
        path = Path(path)
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file; torchvision's VGG-19: {TORCHVISION_URL}")
        named = re.fullmatch(r".*-([0-9a-f]{8,64})\.pth", path.name)
        if named:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
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

    def load_torchvision_url(self, url: str = TORCHVISION_URL) -> None:
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

    def load_caffe(self, path: str | Path) -> list[str]:
        """Load Caffe-style arrays `convX_Y.weight|bias` (OIHW, BGR input) from an npz file.

        The first layer's channels are turned to RGB, and the difference between Caffe's
        normalisation (BGR, minus a mean) and ours (RGB, `MEAN`, `SCALE`) is folded into its
        weights and bias, so that both give the same features away from the image's border
        (zero padding means another colour under each normalisation).

        Returns:
            The names of the layers that the file holds; the others keep their values.

        Raises:
            CheckpointError: the file is unreadable, holds no layer, or a shape differs.
        """
        path = Path(path)
        try:
            arrays = {name: torch.from_numpy(np.asarray(value, np.float32))
                      for name, value in np.load(io.BytesIO(path.read_bytes())).items()}
        except (OSError, ValueError, AttributeError, BadZipFile) as error:
            raise CheckpointError(f"{path}: cannot read: {error}") from error
        loaded = [name for name in self.layer_names() if f"{name}.weight" in arrays]
        if not loaded:
            raise CheckpointError(f"{path}: expected arrays convX_Y.weight, got {sorted(arrays)}")
        if "conv1_1" in loaded:
            weight = arrays["conv1_1.weight"].flip(1)
            # pixel - caffe_mean = normalised / scale + (mean - caffe_mean)
            scale = torch.tensor(SCALE).view(1, 3, 1, 1)
            offset = (torch.tensor(MEAN) - torch.tensor(CAFFE_MEAN_RGB)).view(1, 3, 1, 1)
            if "conv1_1.bias" not in arrays:
                raise CheckpointError(f"{path}: conv1_1.bias is missing")
            arrays["conv1_1.bias"] = arrays["conv1_1.bias"] + (weight * offset).sum((1, 2, 3))
            arrays["conv1_1.weight"] = weight / scale
        for name in loaded:
            self._assign(name, arrays, name, str(path))
        return loaded

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


_TORCHVISION_COUNTS = (2, 2, 4, 4, 4)
