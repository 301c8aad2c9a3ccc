"""Assembling and writing a bundle from a trained network."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from trtseg import bundle
from trtseg.atomic import file_sha256
from trtseg.errors import BundleError, EngineError
from trtseg.export.graphs import network_graphs, without_weights_of
from trtseg.export.scale import fit_features_to_half
from trtseg.export.sessions import compare_sessions
from trtseg.export.verify import Limits, beyond, verify_graphs
from trtseg.nn.manifest import PARAMETERS, manifest_of, parameters_of
from trtseg.nn.network import LatentDiversity


def _archive(parameters: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **parameters)  # type: ignore[arg-type]
    return buffer.getvalue()


def pack(
    network: LatentDiversity, graphs: Mapping[str, Mapping[str, onnx.ModelProto]]
) -> tuple[dict[str, dict[str, str]], dict[str, bytes]]:
    """A bundle's contents: (file names of the graphs by role and precision, all files)."""
    files = {PARAMETERS: _archive(parameters_of(network))}
    names: dict[str, dict[str, str]] = {}
    for role, by_precision in graphs.items():
        first = f"{role}.onnx"
        for precision, model in by_precision.items():
            name = first if precision == "fp32" else f"{role}.{precision}.onnx"
            names.setdefault(role, {})[precision] = name
            if name != first:
                model = without_weights_of(model, first, files[first])
            files[name] = model.SerializeToString()
    return names, files


def export_bundle(
    network: LatentDiversity,
    path: str | os.PathLike[str],
    *,
    name: str,
    training: Mapping[str, Any] | None = None,
    accuracy: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    data: str | os.PathLike[str] | None = None,
    objects: int = 10,
    fp16: bool = True,
    force: bool = False,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Export a network, verify the result, and write it as a bundle.

    Args:
        network: in evaluation mode, on the CPU, float32. Its weights are rounded to FP16 (see
            `network_graphs`), the encoder's scaled before (see `fit_features_to_half`), in place.
        path: a directory, or a zip file when it ends in ".trtseg".
        name: the model's name.
        training, accuracy: provenance for the manifest.
        limits: drift beyond these refuses the bundle; `Limits()` when None.
        data: images with masks on which FP16 sessions are compared to FP32 ones in NoC; by
            default the drawn scenes of `trtseg.export.sessions`.
        objects: how many of them.
        fp16: write FP16 graphs beside the FP32 ones; GPUs run those by default.
        force: write the bundle although it drifts; the report says so.
        overwrite: replace what is at `path`.
        progress: is told what is being done.

    Returns:
        The report, as written into the manifest under "export".

    Raises:
        BundleError: the bundle drifts beyond the limits and `force` is False, or the network
            cannot work in FP16 at all.
        FileExistsError: something is at `path` and `overwrite` is False.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path}: exists already")
    limits = limits or Limits()
    progress("tracing the networks")
    fit_features_to_half(network)
    graphs = network_graphs(network, fp16=fp16)
    progress("comparing ONNX Runtime with torch")
    report: dict[str, Any] = {
        "torch": torch.__version__.split("+")[0],
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "opset": graphs["segment"]["fp32"].opset_import[0].version,
        "limits": {"fp32": limits.fp32, "fp16": limits.fp16, "fp16_noc": limits.fp16_noc},
        "graphs": verify_graphs(network, graphs),
    }
    names, files = pack(network, graphs)
    manifest = {
        **manifest_of(network, name),
        "graphs": names,
        "training": dict(training or {}),
        "accuracy": dict(accuracy or {}),
    }
    if fp16:
        progress("comparing FP16 sessions with FP32 sessions")
        try:
            report["sessions"] = compare_sessions(manifest, files, data, objects)
        except EngineError as error:
            raise BundleError(
                f"{path}: not written, its FP16 sessions fail: {error}; without FP16 graphs "
                "(--fp32-only) it can be"
            ) from error
    problems = beyond(report, limits)
    report["forced"] = bool(problems)
    if problems and not force:
        raise BundleError(f"{path}: not written, the export drifts: {'; '.join(problems)}")
    bundle.write(path, {**manifest, "export": report}, files, overwrite=overwrite)
    return report


def provenance(state: Mapping[str, Any], checkpoint: Path) -> dict[str, Any]:
    """What the manifest keeps of a training run."""
    train = dict(state.get("train", {}))
    # where the data lay on the training machine is of no use elsewhere
    sources = train.get("data", ())
    train["data"] = [
        {name: value for name, value in source.items() if name != "path"}
        for source in ([sources] if isinstance(sources, dict) else sources)
    ]
    if train.get("initial_weights"):
        train["initial_weights"] = Path(train["initial_weights"]).name
    if isinstance(train.get("validation"), dict):
        train["validation"] = {
            **train["validation"],
            "paths": [Path(p).name for p in train["validation"].get("paths", ())],
        }
    train.pop("network", None)
    return {
        "config": train,
        "stage": state.get("stage"),
        "step": state.get("step"),
        "samples": state.get("samples"),
        "minutes": round(float(state.get("seconds", 0)) / 60, 1),
        "tensors_sha256": file_sha256(checkpoint / "tensors.safetensors"),
    }
