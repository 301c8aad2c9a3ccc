"""Triton model repositories: read back by a parser of protobuf's text format. No server runs."""

from __future__ import annotations

import dataclasses
import errno
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tiny_model import write_tiny

from trtseg import bundle as bundles
from trtseg.bundle import Bundle
from trtseg.cli import main
from trtseg.errors import EngineError
from trtseg.export.triton import config_text, triton_models, write_repository
from trtseg.runtime.engine import TensorSpec
from trtseg.runtime.tensorrt.build_options import LAYOUT
from trtseg.runtime.tensorrt.bundle_plans import requests
from trtseg.runtime.tensorrt.device_memory import Gpu
from trtseg.runtime.tensorrt.plan_cache import EngineCache

TOKENS = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[{}\[\]:,]|[-\w.]+)')


def parse(text: str) -> dict[str, list[Any]]:
    """Protobuf's text format, every field as a list of its values."""
    tokens = TOKENS.findall(text)
    assert "".join(tokens) == re.sub(r'("(?:[^"\\]|\\.)*")|\s', r"\1", text), "unknown characters"

    def scalar(token: str) -> Any:
        if token.startswith('"'):
            return token[1:-1].encode().decode("unicode_escape")
        return int(token) if token.lstrip("-").isdigit() else token

    def message() -> dict[str, list[Any]]:
        fields: dict[str, list[Any]] = {}
        while tokens and tokens[0] != "}":
            values = fields.setdefault(tokens.pop(0), [])
            token = tokens.pop(0)
            if token == "{":
                values.append(message())
                assert tokens.pop(0) == "}"
                continue
            assert token == ":"
            token = tokens.pop(0)
            if token != "[":
                values.append(scalar(token))
                continue
            while (token := tokens.pop(0)) != "]":
                if token != ",":
                    values.append(scalar(token))
        return fields

    fields = message()
    assert not tokens
    return fields


@pytest.fixture
def tiny(tmp_path: Path) -> Bundle:
    return bundles.read(write_tiny(tmp_path / "tiny.trtseg"))


def read(folder: Path) -> dict[str, list[Any]]:
    return parse((folder / "config.pbtxt").read_text())


def test_every_network_is_a_model(tiny: Bundle, tmp_path: Path) -> None:
    folders = write_repository(triton_models(tiny, instances=2), tmp_path / "models")
    assert [folder.name for folder in folders] == ["tiny_encoder", "tiny_segment", "tiny_select"]
    for folder, role in zip(folders, ("encoder", "segment", "select"), strict=True):
        config = read(folder)
        assert config["name"] == [folder.name]
        assert config["platform"] == ["onnxruntime_onnx"]
        assert config["max_batch_size"] == [0]
        assert config["instance_group"] == [{"count": [2], "kind": ["KIND_GPU"]}]
        session = onnxruntime.InferenceSession(folder / "1" / "model.onnx")
        for field, nodes in (("input", session.get_inputs()), ("output", session.get_outputs())):
            assert [each["name"] for each in config[field]] == [[node.name] for node in nodes]
            for each, node in zip(config[field], nodes, strict=True):
                assert each["data_type"] == ["TYPE_FP32"]
                assert each["dims"] == [s if isinstance(s, int) else -1 for s in node.shape]
        told = {
            each["key"][0]: each["value"][0]["string_value"][0] for each in config["parameters"]
        }
        assert told["trtseg_fingerprint"] == tiny.fingerprint
        assert told["trtseg_role"] == role
        assert (folder / "1" / "model.onnx").read_bytes() == tiny.graph(role)


def test_the_shipped_model_in_half_on_a_gpu_and_whole_on_a_cpu() -> None:
    lite = bundles.read("lite")
    for kind, wanted in (("gpu", "TYPE_FP16"), ("cpu", "TYPE_FP32")):
        for model in triton_models(lite, kind=kind):
            config = parse(model.config)
            kinds = {each["data_type"][0] for each in config["input"]}
            assert kinds == {wanted}  # the scores go out in float32 from either


def test_names_and_shapes_that_need_care() -> None:
    spec = TensorSpec('x"\\', np.dtype(np.float16), (1, None, 3))
    config = parse(
        config_text(
            "m", "tensorrt_plan", [spec], [spec], kind="gpu", instances=1, profiles=2,
            parameters={"k": 'a "b" {\n}'},
        )
    )  # fmt: skip
    assert config["input"] == [
        {"name": ['x"\\'], "data_type": ["TYPE_FP16"], "dims": [1, -1, 3]}
    ]
    assert config["instance_group"][0]["profile"] == ["0", "1"]
    assert config["parameters"][0]["value"][0]["string_value"] == ['a "b" {\n}']


@pytest.fixture
def engines(tiny: Bundle, tmp_path: Path) -> EngineCache:
    cache = EngineCache(tmp_path / "engines")
    gpu = Gpu(0, "A100", "8.0", 40960)
    for request in requests(tiny, flavour="tensorrt", version="11.4", gpu=gpu):
        cache.store(request.key, f"plan of {request.role}".encode())
    return cache


def test_plans_come_from_a_folder_of_engines(
    tiny: Bundle, engines: EngineCache, tmp_path: Path
) -> None:
    models = triton_models(tiny, platform="tensorrt", engines=engines)
    for folder in write_repository(models, tmp_path / "models", version=7):
        config = read(folder)
        assert config["platform"] == ["tensorrt_plan"]
        assert config["instance_group"][0]["profile"] == ["0", "1"]  # static and dynamic
        # the server has to be told which tensors of an engine are channels-last
        tensors = (*config["input"], *config["output"])
        last = {t["name"][0] for t in tensors if t.get("is_non_linear_format_io") == ["true"]}
        role = folder.name.removeprefix("tiny_")
        wanted = {"encoder": {"level_0", "level_1", "level_2"}, "segment": {"x"}, "select": set()}
        assert last == wanted[role]
        assert (folder / "7" / "model.plan").read_bytes() == f"plan of {role}".encode()


def test_plans_from_before_are_planar(tiny: Bundle, tmp_path: Path) -> None:
    cache, gpu = EngineCache(tmp_path / "old"), Gpu(0, "A100", "8.0", 40960)
    for request in requests(tiny, flavour="tensorrt", version="11.4", gpu=gpu):
        old = request.key.options.replace(LAYOUT, "").rstrip()
        cache.store(dataclasses.replace(request.key, options=old), b"plan")
    for model in triton_models(tiny, platform="tensorrt", engines=cache):
        assert "is_non_linear_format_io" not in model.config


def test_engines_that_do_not_serve(tiny: Bundle, engines: EngineCache, tmp_path: Path) -> None:
    first = engines.entries()[0]
    assert first.key is not None
    engines.store(dataclasses.replace(first.key, version="11.5"), b"another")
    with pytest.raises(EngineError, match=r"expected one fp32 engine in .*, found 2\n.* 11\.5, A1"):
        triton_models(tiny, platform="tensorrt", engines=engines)
    with pytest.raises(EngineError, match="found 0; `trtseg build-engine"):
        triton_models(tiny, platform="tensorrt", engines=EngineCache(tmp_path / "empty"))
    rtx = EngineCache(tmp_path / "rtx")
    for request in requests(tiny, flavour="tensorrt_rtx", version="1", gpu=None):
        rtx.store(request.key, b"plan")
    with pytest.raises(EngineError, match="Triton loads engines of TensorRT, this one is for"):
        triton_models(tiny, platform="tensorrt", engines=rtx)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"platform": "torch"}, "platform: expected onnxruntime or tensorrt"),
        ({"kind": "tpu"}, "kind: expected gpu or cpu"),
        ({"platform": "tensorrt"}, "platform: expected a GPU and a folder of engines"),
        ({"instances": 0}, "instances: expected at least 1"),
    ],
)
def test_wrong_options(tiny: Bundle, options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        triton_models(tiny, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_other_models_stay_and_nothing_is_replaced_unasked(tiny: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "models"
    (path / "other" / "1").mkdir(parents=True)
    (path / "other" / "config.pbtxt").write_text("")
    models = triton_models(tiny)
    write_repository(models, path)
    before = contents(path)
    with pytest.raises(FileExistsError, match="tiny_encoder: exists already"):
        write_repository(models, path, version=2)
    assert contents(path) == before
    write_repository(models, path, version=2, overwrite=True)
    assert not (path / "tiny_encoder" / "1").exists()
    assert (path / "other" / "config.pbtxt").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"models", "tiny.trtseg"}
    with pytest.raises(ValueError, match="version: expected at least 1"):
        write_repository(models, path, version=0)


@pytest.mark.parametrize("failing", range(6))
def test_all_models_or_none(
    monkeypatch: pytest.MonkeyPatch, tiny: Bundle, tmp_path: Path, failing: int
) -> None:
    """A rename that fails, the old models' as well as the new ones'."""
    path = tmp_path / "models"
    write_repository(triton_models(tiny), path)
    before = contents(path)
    rename, count = Path.rename, iter(range(100))

    def sometimes(self: Path, target: Path) -> Path:
        if next(count) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", sometimes)
    with pytest.raises(OSError, match="No space"):
        write_repository(triton_models(tiny, instances=3), path, overwrite=True)
    assert contents(path) == before
    assert {p.name for p in tmp_path.iterdir()} == {"models", "tiny.trtseg"}


def test_the_command(tiny: Bundle, engines: EngineCache, tmp_path: Path, capsys) -> None:
    path = str(tmp_path / "models")
    assert main(["export-triton", str(tiny.path), path]) == 0
    assert capsys.readouterr().out.count("model.onnx") == 3
    assert main(["export-triton", str(tiny.path), path]) == 2
    assert "pass --force" in capsys.readouterr().err
    plans = ["--platform", "tensorrt", "--engines", str(engines.directory), "--force"]
    assert main(["export-triton", str(tiny.path), path, *plans]) == 0
    assert capsys.readouterr().out.count("model.plan") == 3
    for wrong in (plans[:2], plans[2:], [*plans[:2], "--engines", "nowhere"]):
        assert main(["export-triton", str(tiny.path), path, *wrong]) == 2
        assert "--engines: expected" in capsys.readouterr().err


def test_needs_no_torch() -> None:
    code = "import sys; import trtseg.commands.export_triton; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
