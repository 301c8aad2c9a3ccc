"""What an engine depends on, as the key of the engine cache."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class EngineKey:
    """Everything a plan depends on; two equal keys may share a plan, others never.

    Attributes:
        graph: which graph of which bundle, for people, such as "lite/segment".
        graph_sha256: SHA-256 of the ONNX file.
        flavour: "tensorrt" or "tensorrt_rtx".
        version: version of that TensorRT, all of it.
        gpu: name of the GPU, "any" for a plan built ahead of time.
        compute_capability: such as "8.6", or "8.6,8.9,12.0".
        precision: "fp16" or "fp32".
        profiles: the optimisation profiles as text.
        options: every other build option that changes the plan, as text.
        system: operating system and processor, such as "linux-x86_64".
    """

    graph: str
    graph_sha256: str
    flavour: str
    version: str
    gpu: str
    compute_capability: str
    precision: str
    profiles: str
    options: str
    system: str

    def digest(self) -> str:
        """32 hexadecimal digits that name the entry's files."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def system_name() -> str:
    """Operating system and processor as they enter the key."""
    return f"{platform.system()}-{platform.machine()}".lower()
