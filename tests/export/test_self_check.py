"""FP16 engines that answer nonsense are told when they are loaded."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import numpy_helper

from trtseg import Segmenter, bundle
from trtseg.errors import EngineError
from trtseg.export.bundle import manifest_of, pack
from trtseg.export.graphs import network_graphs
from trtseg.nn.config import NetworkConfig
from trtseg.nn.network import LatentDiversity
from trtseg.runtime.pipeline import self_check

CONFIG = NetworkConfig(
    encoder="none", width=8, dilations=(1, 2, 1), select="rank", candidates=2,
    working_long_side_px=96,
)  # fmt: skip


@pytest.fixture(scope="module")
def exported() -> tuple[LatentDiversity, dict]:
    torch.manual_seed(0)
    network = LatentDiversity(CONFIG).eval()
    for name, parameter in network.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    return network, network_graphs(network, (64, 96))


def write(folder: Path, exported, change) -> Path:
    """A bundle whose FP16 weights are `change` of what they should be."""
    network, graphs = exported
    half = type(graphs["segment"]["fp16"])()
    half.CopyFrom(graphs["segment"]["fp16"])
    for initialiser in half.graph.initializer:
        values = numpy_helper.to_array(initialiser)
        if values.ndim == 4:
            initialiser.CopyFrom(numpy_helper.from_array(change(values), initialiser.name))
    graphs = {"segment": {**graphs["segment"], "fp16": half}}
    names, files = pack(network, graphs)
    return bundle.write(folder / "b", {**manifest_of(network, "b"), "graphs": names}, files)


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        (lambda values: values, logging.INFO, "agrees with fp32"),
        (lambda values: -values, logging.WARNING, "its answers are wrong"),
    ],
    ids=["sound", "wrong"],
)
def test_a_wrong_engine_is_told_once(tmp_path, exported, caplog, change, level, words) -> None:
    self_check._checked.clear()
    path = write(tmp_path, exported, change)
    with caplog.at_level(logging.INFO, "trtseg.runtime.pipeline.self_check"):
        for _ in range(2):
            Segmenter.load(path, backend="onnxruntime", precision="fp16", threads=1)
        Segmenter.load(path, backend="onnxruntime", threads=1)  # fp32 needs no check
    (record,) = caplog.records
    assert record.levelno == level
    assert words in record.message


def test_an_engine_that_is_not_finite_is_refused(tmp_path, exported) -> None:
    path = write(tmp_path, exported, lambda values: np.full_like(values, np.nan))
    with pytest.raises(EngineError, match="segment: masks: the values are not finite"):
        Segmenter.load(path, backend="onnxruntime", precision="fp16", threads=1)
