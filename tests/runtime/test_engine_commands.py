"""`trtseg build-engine` and `trtseg engines`, ahead of time on the real RTX builder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper
from tensorrt_fixture import (
    RtxBuilder,
    Unavailable,
    device,
    fake_cupy,
    fake_tensorrt,
    prepare,
)
from tiny_model import write_tiny

from trtseg import bundle as bundles
from trtseg.cli import main
from trtseg.runtime import tensorrt
from trtseg.runtime.image import working_size
from trtseg.runtime.tensorrt.build import build_engine
from trtseg.runtime.tensorrt.build_options import BuildOptions
from trtseg.runtime.tensorrt.bundle_plans import default_sizes, requests
from trtseg.runtime.tensorrt.device_memory import Gpu
from trtseg.runtime.tensorrt.plan_cache import EngineCache

COMMAND = "import sys; from trtseg.cli import main; sys.exit(main())"
AHEAD = ("--target", "rtx", "--compute-capability", "8.6,8.9,12.0")


@pytest.fixture(scope="module")
def rtx(tmp_path_factory: pytest.TempPathFactory) -> RtxBuilder:
    try:
        return prepare(tmp_path_factory.mktemp("forwarding"))
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny.trtseg")


def trtseg(rtx: RtxBuilder, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", COMMAND, *map(str, arguments)],
        env=rtx.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_ahead_of_time_from_the_command_line(rtx, tiny, tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    first = trtseg(rtx, "build-engine", tiny, *AHEAD, "--output", folder)
    assert first.returncode == 0, first.stderr
    lines = [line.split("\t") for line in first.stdout.splitlines()]
    assert [line[:2] for line in lines] == [
        [f"tiny/{role}", "built"] for role in bundles.read(tiny).manifest.graphs
    ]
    assert all(Path(line[3]).is_file() for line in lines)
    again = trtseg(rtx, "build-engine", tiny, *AHEAD, "--output", folder)
    assert again.stdout.count("\tready\t") == len(lines)
    forced = trtseg(rtx, "build-engine", tiny, *AHEAD, "--output", folder, "--force")
    assert forced.stdout.count("\tbuilt\t") == len(lines)
    explained = trtseg(
        rtx, "build-engine", tiny, "--target", "rtx", "--output", folder, "--explain"
    )
    assert "compute capability was 8.6,8.9,12.0 and is portable" in explained.stdout
    sidecars = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    assert {sidecar["key"]["gpu"] for sidecar in sidecars} == {"any"}
    assert {sidecar["key"]["flavour"] for sidecar in sidecars} == {"tensorrt_rtx"}


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("name", bundles.names())
def test_the_shipped_models_ahead_of_time(rtx, name, precision, tmp_path: Path) -> None:
    options = "--precision", precision, "--output", tmp_path / "engines"
    result = trtseg(rtx, "build-engine", name, *AHEAD, *options)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\tbuilt\t") == len(bundles.read(name).manifest.graphs)


def test_chosen_profiles(rtx, tiny, tmp_path: Path) -> None:
    result = trtseg(
        rtx, "build-engine", tiny, *AHEAD, "--output", tmp_path / "engines",
        "--profile", "96x128", "--profile", "64x64:480x640:1024x1024",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    profiles = {entry.key.graph: entry.key.profiles for entry in
                EngineCache(tmp_path / "engines").entries()}  # fmt: skip
    assert profiles["tiny/encoder"] == "96x128 64x64:480x640:1024x1024"
    assert profiles["tiny/segment"] == "24x32 16x16:120x160:256x256"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "rtx", "--compute-capability", "9.0"], "compute_capabilities"),
        (["--target", "tensorrt", "--compute-capability", "8.6"], "only with --target rtx"),
        (["--target", "rtx", "--profile", "48x64"], "multiples of 32"),
        (["--target", "rtx", "--profile", "64"], "expected HEIGHTxWIDTH"),
        (["--target", "rtx", "--profile", "64x64:96x96"], "one size or three"),
        (["--target", "rtx", "--precision", "fp16"], "no fp16 graph"),
        (["--target", "rtx", "--workspace-mib", "0"], "workspace_mib"),
        (["--target", "tensorrt"], "on the GPU that will run the engine"),
    ],
)
def test_bad_input_is_status_2(rtx, tiny, tmp_path: Path, arguments, words) -> None:
    result = trtseg(rtx, "build-engine", tiny, *arguments, "--output", tmp_path / "engines")
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_failing_build_is_status_1(rtx, tiny, tmp_path: Path) -> None:
    result = trtseg(
        rtx, "build-engine", tiny, *AHEAD, "--refittable", "all", "--output", tmp_path / "engines"
    )
    assert result.returncode == 1
    assert "tiny/encoder: TensorRT built no engine" in result.stderr


def test_without_tensorrt_one_message_says_what_to_install(tiny, tmp_path: Path) -> None:
    blocked = "import sys\nfor n in ('tensorrt', 'tensorrt_rtx', 'tensorrt_bindings'):\n"
    blocked += "    sys.modules[n] = None\n" + COMMAND
    result = subprocess.run(
        [sys.executable, "-c", blocked, "build-engine", str(tiny), *AHEAD],
        env={**os.environ, "TRTSEG_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.count("trtseg: error:") == 1
    for words in ("RTX cards", "data centre cards", "PyPI alone", "pip install tensorrt-rtx"):
        assert words in result.stderr


@pytest.mark.parametrize("name", bundles.names())
def test_the_usual_size_is_that_of_a_photo_of_4_to_3(name) -> None:
    bundle = bundles.read(name)
    manifest = bundle.manifest
    # halves have to be rounded as images do: lite works at 10.5 multiples
    photo = working_size(
        480, 640, long_side_px=manifest.long_side_px, multiple_px=manifest.multiple_px
    )
    static, dynamic = default_sizes(bundle)
    assert static == (photo, photo, photo)
    assert dynamic[1] == photo


def fill(folder: Path, tiny: Path) -> EngineCache:
    cache = EngineCache(folder)
    for request in requests(bundles.read(tiny), flavour="tensorrt", version="1", gpu=None):
        cache.store(request.key, b"plan of " + request.role.encode())
    return cache


def test_listing_verifying_and_pruning(tiny, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "engines"
    assert main(["engines", "list", "--cache", str(folder)]) == 2
    assert "--cache: expected a folder" in capsys.readouterr().err
    folder.mkdir()
    assert main(["engines", "list", "--cache", str(folder)]) == 0
    assert capsys.readouterr().out == "no engines\n"
    cache = fill(folder, tiny)
    assert main(["engines", "list", "--cache", str(folder), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["key"]["graph"] for row in rows} == {"tiny/encoder", "tiny/segment", "tiny/select"}
    assert main(["engines", "verify", "--cache", str(folder)]) == 0
    capsys.readouterr()
    cache.entries()[0].path.write_bytes(b"damaged")
    assert main(["engines", "verify", "--cache", str(folder)]) == 1
    assert capsys.readouterr().out.count("SHA-256") == 1
    assert main(["engines", "verify", "--cache", str(folder), "--remove"]) == 0
    assert "(removed)" in capsys.readouterr().out
    assert len(cache.entries()) == 2
    assert main(["engines", "prune", "--limit-mib", "0", "--cache", str(folder)]) == 0
    assert capsys.readouterr().out.count("removed ") == 2
    assert cache.entries() == []
    assert main(["engines", "list", "--limit-mib", "1", "--cache", str(folder)]) == 2


def test_an_engine_built_ahead_of_time_is_used_on_the_card(
    monkeypatch, tiny, tmp_path: Path
) -> None:
    """Built for three cards on one machine, loaded on another with one of them."""
    trt = fake_tensorrt.make("1.7.1", "tensorrt_rtx")
    bundle, cache = bundles.read(tiny), EngineCache(tmp_path / "shipped")
    for name, module in (
        ("tensorrt", None),
        ("tensorrt_rtx", trt),
        ("cupy", fake_cupy.make(capability="8.9")),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    ahead = requests(
        bundle,
        flavour="tensorrt_rtx",
        version="1.7.1",
        gpu=None,
        options=BuildOptions(compute_capabilities=("8.6", "8.9")),
    )
    for request in ahead:
        # The stand-in knows no compute capabilities: its plan is made without.

        options = BuildOptions(precision=request.key.precision)
        plan = build_engine(request.onnx, request.profiles, options=options).plan
        cache.store(request.key, plan)
    before = len(trt.calls)
    card = Gpu(0, "NVIDIA Imaginary", "8.9", 1)
    here = requests(bundle, flavour="tensorrt_rtx", version="1.7.1", gpu=card)
    assert "ready, built ahead of time for 8.6,8.9" in cache.explain(here[0].key)
    engines = tensorrt.load(bundle, cache=cache)
    assert engines.segment.name == "tiny/segment"
    assert not [call for call in trt.calls[before:] if call[0] == "build"]
    other = requests(
        bundle,
        flavour="tensorrt_rtx",
        version="1.7.1",
        gpu=Gpu(0, "NVIDIA Imaginary", "12.0", 1),
    )
    assert cache.load_portable(other[0].key) is None


def test_graphs_beside_onnx_runtime(monkeypatch, tiny: Path, tmp_path: Path, capsys) -> None:
    """With the stand-ins: one row for each output, and hardly a difference."""
    device.install(monkeypatch)
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.make())
    (tmp_path / "cache").mkdir()
    arguments = ["engines", "compare", str(tiny), "--cache", str(tmp_path / "cache")]
    assert main([*arguments, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {(row["graph"], row["output"]) for row in rows} >= {
        ("encoder", "level_0"), ("segment", "masks"), ("select", "scores"),
    }  # fmt: skip
    for row in rows:
        assert row["largest"] <= 1e-5 * max(1, row["scale"])
        assert row["scale"] > 0
    assert main(["engines", "compare", str(tiny), "--backend", "onnxruntime"]) == 0
    assert "onnx runtime" in capsys.readouterr().out.lower()
    assert main(["engines", "compare"]) == 2
    assert "bundle: expected with compare" in capsys.readouterr().err


@pytest.mark.parametrize("backend", ["tensorrt", "onnxruntime"])
def test_layers_beside_onnx_runtime(monkeypatch, tiny, tmp_path: Path, capsys, backend) -> None:
    """One row for every layer, in their order; the first that differs is the wrong one."""
    device.install(monkeypatch)
    module = fake_tensorrt.make()
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    (tmp_path / "cache").mkdir()
    arguments = ["engines", "compare", str(tiny), "--backend", backend, "--layers", "--json"]
    arguments += ["--cache", str(tmp_path / "cache")]
    assert main(arguments) == 0
    rows = json.loads(capsys.readouterr().out)
    names = [row["output"] for row in rows if row["graph"] == "segment"]
    assert names == ["raw", "features", "logits", "masks"]
    assert all(row["largest"] <= 1e-5 * max(1, row["scale"]) for row in rows)
    if backend == "onnxruntime":
        return
    build = module.Builder.build_serialized_network

    def with_a_wrong_layer(self, network, config):
        """A head with another bias, as a tactic gone wrong would compute it."""
        model = onnx.load_model_from_string(network.onnx)
        for weight in model.graph.initializer:
            if weight.name == "head.bias":
                wrong = numpy_helper.to_array(weight) + 1
                weight.CopyFrom(numpy_helper.from_array(wrong, weight.name))
        network.onnx = model.SerializeToString()
        return build(self, network, config)

    monkeypatch.setattr(module.Builder, "build_serialized_network", with_a_wrong_layer)
    (tmp_path / "other").mkdir()
    assert main([*arguments[:-1], str(tmp_path / "other")]) == 0
    rows = json.loads(capsys.readouterr().out)
    wrong = [(row["graph"], row["output"]) for row in rows if row["largest"] > 1e-3]
    assert wrong[0] == ("segment", "logits")
    assert main(["engines", "list", "--layers"]) == 2
    assert "--layers: expected with compare" in capsys.readouterr().err


def test_what_would_be_built_is_told_without_tensorrt(monkeypatch, tiny: Path, capsys) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["build-engine", str(tiny), "--explain"]) == 0
    captured = capsys.readouterr()
    assert [line.partition(":")[0] for line in captured.out.splitlines()] == [
        "tiny/encoder", "tiny/segment", "tiny/select",
    ]  # fmt: skip
    assert "cannot be told here" in captured.err
    assert main(["build-engine", str(tiny), "--explain", "--profile", "33x65"]) == 2
    assert "sizes: expected multiples of 32" in capsys.readouterr().err
    assert main(["build-engine", str(tiny)]) != 0
