"""A model repository for NVIDIA's Triton Inference Server: the networks of a bundle, each a model.

The server runs networks; what lies between them (guidance maps, the first layer, the mask) are
trtseg's own operations and stay with its client, which finds what it needs to know of the bundle
in the parameters of each model.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from trtseg import bundle as bundles
from trtseg.atomic import write_atomically
from trtseg.bundle import Bundle
from trtseg.errors import EngineError
from trtseg.runtime.engine import TensorSpec, is_channels_last
from trtseg.runtime.onnxruntime import PROVIDERS, OnnxEngine
from trtseg.runtime.tensorrt.build_options import LAYOUT
from trtseg.runtime.tensorrt.plan_cache import EngineCache
from trtseg.runtime.tensorrt.plan_key import EngineKey

PLATFORMS = {"onnxruntime": ("onnxruntime_onnx", "model.onnx"),
             "tensorrt": ("tensorrt_plan", "model.plan")}  # fmt: skip
KINDS = {"gpu": "KIND_GPU", "cpu": "KIND_CPU"}
SEQUENCE_IDLE_S = 600  # a session that nobody asks for longer is forgotten
SEQUENCES = 64  # sessions of an instance at once
_TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16"}


@dataclass(frozen=True)
class TritonModel:
    """One model of a repository.

    Attributes:
        name: of its folder; the server's name for it.
        config: the text of `config.pbtxt`.
        filename: of the network in the version's folder.
        network: an ONNX graph, a TensorRT plan, or a Python program.
    """

    name: str
    config: str
    filename: str
    network: bytes


def triton_models(
    bundle: Bundle,
    *,
    platform: str = "onnxruntime",
    precision: str | None = None,
    kind: str = "gpu",
    instances: int = 1,
    engines: EngineCache | None = None,
) -> list[TritonModel]:
    """The models of a bundle: encoder, segment and select, as far as it has them.

    Args:
        platform: "onnxruntime", or "tensorrt" for plans that were built before.
        precision: "fp16" or "fp32"; by default fp16 on a GPU where every graph has it.
        kind: of the instances, "gpu" or "cpu".
        instances: of each model, per GPU.
        engines: where to find the plans; must hold exactly one for each graph.

    Raises:
        ValueError: an argument is none of these, or TensorRT was asked for on a CPU.
        BundleError: a graph is missing in that precision.
        EngineError: a plan is missing or damaged, or there are several.
    """
    if platform not in PLATFORMS:
        raise ValueError(f"platform: expected {' or '.join(PLATFORMS)}, got {platform!r}")
    if kind not in KINDS:
        raise ValueError(f"kind: expected {' or '.join(KINDS)}, got {kind!r}")
    if platform == "tensorrt" and (kind != "gpu" or engines is None):
        raise ValueError("platform: expected a GPU and a folder of engines for tensorrt")
    if instances < 1:
        raise ValueError(f"instances: expected at least 1, got {instances}")
    roles = tuple(bundle.manifest.graphs)
    if precision is None:
        half = kind == "gpu" and all("fp16" in bundle.precisions(role) for role in roles)
        precision = "fp16" if half else "fp32"
    backend, filename = PLATFORMS[platform]
    models = []
    for role in roles:
        graph = bundle.graph(role, precision)
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", f"{bundle.name}_{role}")
        engine = OnnxEngine(graph, name, [PROVIDERS["cpu"]])
        network, profiles = graph, 0
        inputs, outputs = engine.inputs, engine.outputs
        if platform == "tensorrt":
            assert engines is not None
            network, key = _plan(engines, f"{bundle.name}/{role}", graph, precision)
            profiles = len(key.profiles.split())
            if LAYOUT in key.options:
                inputs, outputs = map(_on_gpu, (inputs, outputs))
        config = config_text(
            name,
            backend,
            inputs,
            outputs,
            kind=kind,
            instances=instances,
            profiles=profiles,
            parameters=_parameters(bundle, role, precision),
        )
        models.append(TritonModel(name, config, filename, network))
    return models


def pipeline_model(bundle: Bundle, *, kind: str = "gpu", instances: int = 1) -> TritonModel:
    """The whole chain as one model of Triton's Python backend: `trtseg/serve/triton_backend.py`.

    A sequence of requests is one object in one image. Its first request brings IMAGE, the bytes of
    a file; each may bring PROMPTS, the bytes of a JSON list as in docs/serving.md. MASK, SCORES
    and SELECTED come back. The server's Python needs trtseg, and finds the bundle where it is now.

    Raises:
        ValueError: `kind` is no key of `KINDS`, or instances is below 1.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected {' or '.join(KINDS)}, got {kind!r}")
    if instances < 1:
        raise ValueError(f"instances: expected at least 1, got {instances}")
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", f"{bundle.name}_pipeline")
    shipped = bundle.name in bundles.names() and bundles.find(bundle.name) == bundle.path
    where = bundle.name if shipped else str(bundle.path.resolve())
    tensors = (
        ("input", "IMAGE", "TYPE_UINT8", "-1", True),
        ("input", "PROMPTS", "TYPE_UINT8", "-1", True),
        ("output", "MASK", "TYPE_UINT8", "-1, -1", False),
        ("output", "SCORES", "TYPE_FP32", "-1", False),
        ("output", "SELECTED", "TYPE_INT32", "1", False),
    )  # fmt: skip
    lines = [f"name: {_quoted(name)}", 'backend: "python"', "max_batch_size: 0"]
    for field, tensor, kind_of, dims, optional in tensors:
        lines += _tensor(field, tensor, kind_of, dims, *(["optional: true"] if optional else []))
    # several sequences an instance: the direct strategy would let others wait until one has ended
    lines += [
        "sequence_batching {", f"  oldest {{ max_candidate_sequences: {SEQUENCES} }}",
        f"  max_sequence_idle_microseconds: {SEQUENCE_IDLE_S}000000",
    ]  # fmt: skip
    for control in ("START", "END"):
        lines += [
            "  control_input {", f"    name: {_quoted(control)}",
            f"    control {{ kind: CONTROL_SEQUENCE_{control} int32_false_true: [ 0, 1 ] }}", "  }",
        ]  # fmt: skip
    lines += [
        "  control_input {", '    name: "CORRID"',
        "    control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 }", "  }", "}",
        *_instances(kind, instances), *_parameter("trtseg_bundle", where),
    ]  # fmt: skip
    source = (resources.files("trtseg") / "serve" / "triton_backend.py").read_text("utf-8")
    return TritonModel(name, "\n".join(lines) + "\n", "model.py", source.encode())


def config_text(
    name: str,
    platform: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    kind: str,
    instances: int,
    profiles: int,
    parameters: Mapping[str, str],
) -> str:
    """The text of a `config.pbtxt`.

    Args:
        name: of the model.
        platform: as Triton names it.
        inputs, outputs: of the network, the batch of 1 among their dimensions.
        kind: a key of `KINDS`.
        instances: per GPU.
        profiles: optimisation profiles of a plan, all of which an instance serves; 0 for none.
        parameters: texts, by name.
    """
    lines = [
        f"name: {_quoted(name)}",
        f"platform: {_quoted(platform)}",
        # Batches are 1 and part of the shapes: images differ in size.
        "max_batch_size: 0",
    ]
    for field, specs in (("input", inputs), ("output", outputs)):
        for spec in specs:
            dims = ", ".join("-1" if side is None else str(side) for side in spec.shape)
            # the bytes of a request, too, are then channels-last
            layout = ["is_non_linear_format_io: true"] if spec.channels_last else []
            lines += _tensor(field, spec.name, _TYPES[spec.dtype.name], dims, *layout)
    served = f"profile: [ {', '.join(_quoted(str(i)) for i in range(profiles))} ]"
    lines += _instances(kind, instances, *([served] if profiles else []))
    for key, value in parameters.items():
        lines += _parameter(key, value)
    return "\n".join(lines) + "\n"


def _block(name: str, *lines: str) -> list[str]:
    return [f"{name} {{", *(f"  {line}" for line in lines), "}"]


def _tensor(field: str, name: str, kind: str, dims: str, *more: str) -> list[str]:
    return _block(
        field, f"name: {_quoted(name)}", f"data_type: {kind}", f"dims: [ {dims} ]", *more
    )


def _instances(kind: str, count: int, *more: str) -> list[str]:
    return _block("instance_group", f"count: {count}", f"kind: {KINDS[kind]}", *more)


def _parameter(key: str, value: str) -> list[str]:
    return _block(
        "parameters", f"key: {_quoted(key)}", f"value {{ string_value: {_quoted(value)} }}"
    )


def write_repository(
    models: Sequence[TritonModel], path: Path, *, version: int = 1, overwrite: bool = False
) -> list[Path]:
    """Put models into a repository, which may hold others.

    Every folder is complete before it appears under its name, so a server that watches the
    repository never sees half a model. If one cannot be put there, none is.

    Args:
        path: the repository, created when missing.
        version: of the models, at least 1.
        overwrite: replace models of these names, all their versions.

    Returns:
        The models' folders.

    Raises:
        ValueError: the version is below 1.
        FileExistsError: a model of such a name is there and `overwrite` is False.
        OSError: it cannot be written.
    """
    if version < 1:
        raise ValueError(f"version: expected at least 1, got {version}")
    folders = [path / model.name for model in models]
    for folder in folders:
        if folder.exists() and not overwrite:
            raise FileExistsError(f"{folder}: exists already")
    path.mkdir(parents=True, exist_ok=True)
    # Beside the repository, not in it: on the same file system, and where no server looks.
    beside = path.resolve().parent
    with tempfile.TemporaryDirectory(dir=beside, prefix=f".{path.name}.") as made:
        new, old = Path(made) / "new", Path(made) / "old"
        old.mkdir()
        for model in models:
            _write_model(model, new / model.name, version)
        placed: list[Path] = []
        try:
            for folder in folders:
                if folder.exists():
                    folder.rename(old / folder.name)
                placed.append(folder)
                (new / folder.name).rename(folder)
        except OSError:
            for folder in placed:
                shutil.rmtree(folder, ignore_errors=True)
            for before in old.iterdir():
                before.rename(path / before.name)
            raise
    return folders


def _write_model(model: TritonModel, folder: Path, version: int) -> None:
    (folder / str(version)).mkdir(parents=True)
    write_atomically(folder / "config.pbtxt", model.config.encode(), mode=0o666)
    write_atomically(folder / str(version) / model.filename, model.network, mode=0o666)


def _on_gpu(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """As an engine has them."""
    return tuple(
        replace(spec, channels_last=is_channels_last(spec.name, spec.shape)) for spec in specs
    )


def _plan(
    engines: EngineCache, graph_name: str, graph: bytes, precision: str
) -> tuple[bytes, EngineKey]:
    """The plan built from a graph, and its key."""
    digest = hashlib.sha256(graph).hexdigest()
    found = [
        entry.key
        for entry in engines.entries()
        if entry.key is not None
        and (entry.key.graph_sha256, entry.key.precision) == (digest, precision)
    ]
    if len(found) != 1:
        listed = "".join(
            f"\n  {key.flavour} {key.version}, {key.gpu}, profiles {key.profiles}, {key.options}"
            for key in found
        )
        raise EngineError(
            f"{graph_name}: expected one {precision} engine in {engines.directory}, found "
            f"{len(found)}{listed}; `trtseg build-engine --output FOLDER` makes them in a folder "
            "of their own"
        )
    (key,) = found
    if key.flavour != "tensorrt":
        raise EngineError(
            f"{graph_name}: Triton loads engines of TensorRT, this one is for {key.flavour}"
        )
    plan = engines.load(key)
    if plan is None:
        raise EngineError(f"{graph_name}: {engines.path(key)} is damaged; build it again")
    return plan, key


def _parameters(bundle: Bundle, role: str, precision: str) -> dict[str, str]:
    manifest = bundle.manifest
    return {
        "trtseg_model": bundle.name,
        "trtseg_fingerprint": bundle.fingerprint,
        "trtseg_role": role,
        "trtseg_precision": precision,
        "trtseg_working_size": json.dumps(
            {"long_side_px": manifest.long_side_px, "multiple_px": manifest.multiple_px}
        ),
    }


def _quoted(text: str) -> str:
    """A string of protobuf's text format."""
    return json.dumps(text)
