"""Is what was exported what was trained? ONNX Runtime against torch, FP16 against FP32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from trtseg.errors import BundleError
from trtseg.export.graphs import example_inputs
from trtseg.nn.network import LatentDiversity
from trtseg.nn.parts import Part, interfaces

SIZES = ((64, 64), (96, 160), (288, 384), (384, 512))


@dataclass(frozen=True)
class Limits:
    """Drift beyond these refuses a bundle.

    Attributes:
        fp32: largest difference of an FP32 graph's outputs to torch, relative to the output's
            largest magnitude: two orders of summation of a few thousand products differ by
            some 1e-6, and eight such layers in a row by some 1e-5.
        fp16: largest difference of an FP16 graph's masks to FP32, in probability: eight layers
            of 11-bit significands, through a sigmoid of slope at most 1/4.
        fp16_noc: largest difference of mean NoC@85 between FP16 and FP32 sessions, in clicks.
    """

    fp32: float = 1e-4
    fp16: float = 2e-2
    fp16_noc: float = 0.2


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def verify_graphs(
    network: LatentDiversity, graphs: Mapping[str, Mapping[str, onnx.ModelProto]]
) -> dict[str, Any]:
    """Largest differences over `SIZES`, by role.

    Returns:
        {role: {"fp32": relative difference of ONNX Runtime to torch, "fp16": difference of the
        FP16 graph to torch FP32, in probability for masks and relative for other outputs}}.
    """
    report: dict[str, Any] = {}
    for role in interfaces(network):
        module = Part(network, role).eval()
        sessions = {precision: _session(model) for precision, model in graphs[role].items()}
        worst = dict.fromkeys(graphs[role], 0.0)
        for seed, size in enumerate(SIZES):
            inputs = example_inputs(network, role, size, seed)
            with torch.no_grad():
                expected = [output.numpy() for output in module(list(inputs.values()))]
            for precision, session in sessions.items():
                dtype = np.float16 if precision == "fp16" else np.float32
                given = {name: value.numpy().astype(dtype) for name, value in inputs.items()}
                actual = session.run(None, given)
                for want, got in zip(expected, actual, strict=True):
                    if got.shape != want.shape:
                        raise BundleError(
                            f"{role} {precision} at {size}: expected output {want.shape}, "
                            f"got {got.shape}"
                        )
                    scale = max(float(np.abs(want).max()), 1e-12)
                    error = float(np.abs(got.astype(np.float32) - want).max()) / scale
                    worst[precision] = max(worst[precision], error)
        report[role] = worst
    return report


def beyond(report: Mapping[str, Any], limits: Limits) -> list[str]:
    """What in a report is beyond the limits, one sentence each."""
    found = []
    for role, worst in report["graphs"].items():
        for precision, limit in (("fp32", limits.fp32), ("fp16", limits.fp16)):
            # a NaN compares false with everything: ask whether it is within
            if precision in worst and not worst[precision] <= limit:
                found.append(
                    f"{role}: {precision} differs by {worst[precision]:.2e}, limit {limit:.0e}"
                )
    sessions = report.get("sessions")
    if sessions:
        drift = abs(sessions["fp16_noc85"] - sessions["fp32_noc85"])
        if not drift <= limits.fp16_noc:
            found.append(f"sessions: NoC@85 differs by {drift:.2f}, limit {limits.fp16_noc}")
        if not sessions["probability"] <= limits.fp16 * 5:
            # five clicks feed the mask back
            found.append(
                f"sessions: probability differs by {sessions['probability']:.2e} on average"
            )
    return found
