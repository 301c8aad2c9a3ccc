"""Building engines with the real parser and builder of TensorRT for RTX, without a GPU."""

from __future__ import annotations

import json
import os
import signal
import textwrap
from pathlib import Path

import pytest
from tensorrt_fixture import RtxBuilder, Unavailable, graphs, prepare

from trtseg import bundle as bundles
from trtseg.benchmark.graphs import with_layers
from trtseg.runtime.tensorrt.bundle_plans import coarser_inputs

# Every child prints one JSON value: the engine's facts, or the error's type and message.
CHILD = """
import json, sys
from trtseg.errors import TrtsegError
from trtseg.runtime.tensorrt.build_options import BuildOptions, Profile
from trtseg.runtime.tensorrt.build import build_engine
DYNAMIC = Profile((64, 64), (480, 640), (1024, 1024))
VGA = Profile(*((480, 640),) * 3)
def attempt(*arguments, **options):
    try:
        built = build_engine(*arguments, target="rtx", **options)
    except (TrtsegError, ValueError) as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {"bytes": len(built.plan), "seconds": built.seconds, "layers": built.layers,
            "warnings": built.warnings, "flavour": built.flavour, "version": built.version}
"""


@pytest.fixture(scope="module")
def rtx(tmp_path_factory: pytest.TempPathFactory) -> RtxBuilder:
    try:
        return prepare(tmp_path_factory.mktemp("forwarding"))
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("graphs")
    return {
        "segment": graphs.segment(folder / "segment.onnx"),
        "segment_fp32": graphs.segment(folder / "segment32.onnx", dtype="float32", channels=8),
        "segment_static": graphs.segment(folder / "static.onnx", channels=8, size=(480, 640)),
        "small": graphs.segment(folder / "small.onnx", channels=8),
        "select": graphs.select(folder / "select.onnx"),
        "encoder": graphs.encoder(folder / "encoder.onnx"),
    }


def build(rtx: RtxBuilder, code: str, *arguments: object) -> object:
    return json.loads(rtx.run(CHILD + textwrap.dedent(code), *arguments).splitlines()[-1])


@pytest.mark.parametrize("name", ["segment", "select", "encoder"])
def test_the_full_model_builds_static_and_dynamic(rtx, made, name) -> None:
    results = build(
        rtx,
        """
        print(json.dumps([attempt(sys.argv[1], [p]) for p in (VGA, DYNAMIC)]
                         + [attempt(sys.argv[1], [VGA, DYNAMIC])]))
        """,
        made[name],
    )
    for result in results:
        assert "error" not in result, result
        assert result["bytes"] > 2 * 64 * 64 * 9
        assert result["layers"] > 10
        assert result["flavour"] == "tensorrt_rtx"
        assert result["warnings"] == []


def test_every_layer_of_the_shipped_model_can_be_an_output(rtx, tmp_path) -> None:
    """As `trtseg engines compare --layers` asks for them."""
    model = with_layers(bundles.read("lite"))
    for role in model.manifest.graphs:
        path = tmp_path / f"{role}.onnx"
        path.write_bytes(model.graph(role, "fp16"))
        result = build(
            rtx,
            """
            sizes = (32, 32), (352, 448), (448, 448)
            stride, coarser = int(sys.argv[2]), json.loads(sys.argv[3])
            bounds = [(height // stride, width // stride) for height, width in sizes]
            print(json.dumps(attempt(sys.argv[1], [Profile(*bounds, coarser)])))
            """,
            path,
            1 if role == "encoder" else model.manifest.base_stride,
            json.dumps(coarser_inputs(model.manifest, role)),
        )
        assert "error" not in result, result


def test_float32_builds_when_asked_for(rtx, made) -> None:
    result = build(
        rtx,
        """
        print(json.dumps(attempt(sys.argv[1], [VGA], options=BuildOptions(precision="fp32"))))
        """,
        made["segment_fp32"],
    )
    assert "error" not in result, result


@pytest.mark.parametrize(
    ("graph", "precision", "words"),
    [
        ("segment_fp32", "fp16", "fp16 was promised, but"),
        ("small", "fp32", "fp32 was promised, but"),
    ],
)
def test_another_precision_than_promised_is_an_error(rtx, made, graph, precision, words) -> None:
    result = build(
        rtx,
        """
        options = BuildOptions(precision=sys.argv[2])
        print(json.dumps(attempt(sys.argv[1], [VGA], options=options)))
        """,
        made[graph],
        precision,
    )
    assert result["error"] == "EngineError"
    assert words in result["message"]


def test_compute_capabilities(rtx, made) -> None:
    results = build(
        rtx,
        """
        lists = [(), ("7.5",), ("8.6",), ("8.6", "8.9", "12.0"), ("8.0", "12.1")]
        print(json.dumps([attempt(sys.argv[1], [DYNAMIC], options=BuildOptions(
            compute_capabilities=l)) for l in lists]))
        """,
        made["small"],
    )
    assert all("error" not in result for result in results), results
    # One plan for three cards carries three sets of targets.
    assert results[3]["bytes"] > results[2]["bytes"]


def test_a_card_that_rtx_does_not_know(rtx, made) -> None:
    result = build(
        rtx,
        """
        from trtseg.runtime.tensorrt import build_options
        build_options.RTX_COMPUTE_CAPABILITIES += ("9.0",)
        import tensorrt_rtx
        tensorrt_rtx.ComputeCapability.SM90 = 90
        options = BuildOptions(compute_capabilities=("9.0",))
        print(json.dumps(attempt(sys.argv[1], [VGA], options=options)))
        """,
        made["small"],
    )
    assert result["error"] == "EngineError"
    assert "does not build for compute capability 9.0" in result["message"]
    assert "invalid or not supported" in result["message"]


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ("Profile((640, 64), (480, 640), (1024, 1024))", "minimum <= optimum <= maximum"),
        ("Profile((0, 64), (64, 64), (64, 64))", "does not fit"),
    ],
)
def test_a_wrong_profile_is_refused_before_the_build(rtx, made, profile, words) -> None:
    result = build(rtx, f"print(json.dumps(attempt(sys.argv[1], [{profile}])))", made["small"])
    assert result["error"] == "ValueError"
    assert words in result["message"]


def test_a_dynamic_graph_needs_a_profile_and_a_static_one_none(rtx, made) -> None:
    dynamic, static, fitting, other = build(
        rtx,
        """
        print(json.dumps([attempt(sys.argv[1]), attempt(sys.argv[2]),
            attempt(sys.argv[2], [VGA]), attempt(sys.argv[2], [DYNAMIC])]))
        """,
        made["small"],
        made["segment_static"],
    )
    assert "give at least one" in dynamic["message"]
    assert "error" not in static
    assert "error" not in fitting
    assert "does not fit" in other["message"]


def test_options_that_only_the_other_flavour_has(rtx, made) -> None:
    result = build(
        rtx,
        """
        options = BuildOptions(hardware_compatibility="ampere_plus")
        print(json.dumps(attempt(sys.argv[1], [VGA], options=options)))
        """,
        made["small"],
    )
    assert result["error"] == "ValueError"
    assert "compute_capabilities" in result["message"]


def test_a_refittable_build_without_a_gpu_says_why(rtx, made) -> None:
    result = build(
        rtx,
        """
        options = BuildOptions(refittable="all")
        print(json.dumps(attempt(sys.argv[1], [VGA], options=options)))
        """,
        made["small"],
    )
    assert result["error"] == "EngineError"
    assert "TensorRT built no engine" in result["message"]
    assert "gave no reason" not in result["message"]


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "flipped", "missing"])
def test_a_corrupt_graph(rtx, made, tmp_path: Path, damage: str) -> None:
    good = made["small"].read_bytes()
    path = tmp_path / "bad.onnx"
    contents = {
        "empty": b"",
        "text": b"this is no graph",
        "truncated": good[: len(good) // 2],
        "flipped": good.replace(b"Conv", b"Vonc"),
    }
    if damage in contents:
        path.write_bytes(contents[damage])
    from_file, from_memory = build(
        rtx,
        """
        from pathlib import Path
        path = Path(sys.argv[1])
        print(json.dumps([attempt(path, [VGA]), attempt(
            path.read_bytes() if path.exists() else path, [VGA], name="bad.onnx")]))
        """,
        path,
    )
    for result in (from_file, from_memory):
        assert result["error"] == "EngineError"
        assert "bad.onnx" in result["message"]


def test_progress_rises_and_ends_at_one(rtx, made) -> None:
    calls = build(
        rtx,
        """
        calls = []
        attempt(sys.argv[1], [DYNAMIC], progress=lambda fraction, phase:
                calls.append((fraction, phase)))
        print(json.dumps(calls))
        """,
        made["small"],
    )
    fractions = [fraction for fraction, _ in calls]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert fractions[-1] == 1
    assert len({phase for _, phase in calls}) > 3


def test_cancelling_and_building_again(rtx, made) -> None:
    cancelled, again = build(
        rtx,
        """
        seen = []
        def progress(fraction, phase): seen.append(phase)
        first = attempt(sys.argv[1], [DYNAMIC], progress=progress,
                        cancelled=lambda: len(seen) > 10)
        print(json.dumps([first, attempt(sys.argv[1], [DYNAMIC])]))
        """,
        made["small"],
    )
    assert cancelled["error"] == "BuildCancelled"
    assert "error" not in again


def test_an_exception_in_the_progress_callback_comes_out(rtx, made) -> None:
    result = build(
        rtx,
        """
        def progress(fraction, phase):
            raise ValueError("from the callback")
        print(json.dumps(attempt(sys.argv[1], [DYNAMIC], progress=progress)))
        """,
        made["small"],
    )
    assert result == {"error": "ValueError", "message": "from the callback"}


def test_control_c_ends_a_build(rtx, made) -> None:
    process = rtx.start(
        CHILD
        + textwrap.dedent(
            """
            import os, signal
            signal.signal(signal.SIGINT, signal.default_int_handler)
            def progress(fraction, phase):
                os.kill(os.getpid(), signal.SIGINT)
            try:
                attempt(sys.argv[1], [DYNAMIC], progress=progress)
            except KeyboardInterrupt:
                print("interrupted")
            """
        ),
        made["small"],
    )
    out, err = process.communicate(timeout=60)
    assert out == "interrupted\n", err


def test_two_threads_build_one_after_the_other(rtx, made) -> None:
    results = build(
        rtx,
        """
        import threading
        results = []
        threads = [threading.Thread(target=lambda: results.append(attempt(sys.argv[1], [DYNAMIC])))
                   for _ in range(3)]
        for t in threads: t.start()
        for t in threads: t.join()
        print(json.dumps(results))
        """,
        made["small"],
    )
    assert len({result["bytes"] for result in results}) == 1


def test_two_processes_build_one_engine_and_a_killed_one_harms_nothing(
    rtx, made, tmp_path: Path
) -> None:
    code = CHILD + textwrap.dedent(
        """
        import os, time
        from trtseg.runtime.tensorrt.plan_cache import EngineCache
        from trtseg.runtime.tensorrt.plan_key import EngineKey
        key = EngineKey("small", *["x"] * 9)
        def build():
            def progress(fraction, phase):
                if fraction == 0: print("building", flush=True)
                if sys.argv[3] == "hang" and fraction > 0.5: time.sleep(60)
            built = build_engine(sys.argv[1], [DYNAMIC], target="rtx", progress=progress)
            time.sleep(0.3)
            return built.plan, {"build_seconds": built.seconds}
        result = EngineCache(sys.argv[2]).load_or_build(key, build)
        print(len(result.plan), result.built)
        """
    )
    hanging = rtx.start(code, made["small"], tmp_path, "hang")
    assert hanging.stdout.readline() == "building\n"
    os.kill(hanging.pid, signal.SIGKILL)
    hanging.communicate(timeout=60)
    both = [rtx.start(code, made["small"], tmp_path, "run") for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in both]
    lines = sorted(out.splitlines()[-1].split()[1] for out, _ in outputs)
    assert lines == ["False", "True"], outputs
    assert len(list(tmp_path.glob("*.plan"))) == 1


def test_loading_a_plan_needs_a_gpu_and_a_corrupt_one_is_refused(rtx, made) -> None:
    results = build(
        rtx,
        """
        from trtseg.runtime.tensorrt.execution import deserialize
        from trtseg.runtime.tensorrt.library import load_tensorrt
        plan = build_engine(sys.argv[1], [DYNAMIC], target="rtx").plan
        out = []
        for data in (plan, plan[:1000], b"", b"no plan at all" * 100):
            try:
                deserialize(load_tensorrt("rtx"), data, "small")
                out.append("loaded")
            except TrtsegError as error:
                out.append(str(error))
        print(json.dumps(out))
        """,
        made["small"],
    )
    for message in results:
        assert message.startswith("small: TensorRT cannot load this engine"), message
