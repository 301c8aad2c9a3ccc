"""`trtseg bench`: the numbers hang together; their size is not tested."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorrt_fixture import device, fake_cupy, fake_tensorrt
from tiny_model import write_tiny

from trtseg import bundle as bundles
from trtseg.benchmark import measure, report
from trtseg.benchmark.floor import Speed, Work, count_work, measure_speed
from trtseg.benchmark.measure import Spread, StageClock, clicks_on, picture_of, time_stages
from trtseg.cli import main
from trtseg.runtime import tensorrt
from trtseg.runtime.engine import HostMemory
from trtseg.runtime.segmenter import Segmenter
from trtseg.runtime.tensorrt.plan_cache import EngineCache

FAST = ["--repeats", "2", "--warmup", "1", "--clicks", "3", "--size", "60x80"]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny.trtseg")


@pytest.fixture
def result(tiny: Path, tmp_path: Path) -> Path:
    path = tmp_path / "result.json"
    assert main(["bench", str(tiny), *FAST, "--size", "33x65", "--json", str(path)]) == 0
    return path


def test_a_result_is_complete(result: Path, capsys) -> None:
    content = report.read(result)
    capsys.readouterr()
    assert content["machine"]["processor"]
    assert content["model"]["name"] == "tiny"
    assert [run["image_size"] for run in content["runs"]] == [[60, 80], [33, 65]]
    for run in content["runs"]:
        assert set(run["stages"]) == {
            "upload", "encoder", "hypercolumn", "guidance", "f", "g", "download", "compose",
        }  # fmt: skip
        assert set(run["whole"]) == {"encode", "click", "click_1", "click_2", "click_3"}
        for spread in (*run["stages"].values(), *run["whole"].values()):
            assert 0 < spread["least"] <= spread["p50"] <= spread["p95"] <= spread["p99"]
        assert run["whole"]["click"]["count"] == 6
        assert set(run["floor_ms"]) == {"encoder", "encode", "f", "g", "click"}
        assert run["cuda_graphs"] == "none"
        assert run["memory_mib"]["plan of one image and session"] > 0
    text = report.table(content)
    for words in ("tiny on ONNX Runtime", "image 60x80", "image 33x65", "p99", "ratio"):
        assert words in text


def test_two_results_are_compared(result: Path, tmp_path: Path, capsys) -> None:
    other = json.loads(result.read_text())
    for run in other["runs"]:
        run["whole"]["click"]["p50"] *= 2
    other["machine"]["processor"] = "another"
    path = tmp_path / "other.json"
    path.write_text(json.dumps(other))
    capsys.readouterr()
    assert main(["bench", "--compare", str(result), str(path)]) == 0
    text = capsys.readouterr().out
    assert "differs: processor" in text
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("click ")] == [
        "2.00", "2.00",
    ]  # fmt: skip


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_plot(result: Path, tmp_path: Path, ending: str) -> None:
    pytest.importorskip("matplotlib")
    report.plot(report.read(result), tmp_path / f"plot.{ending}")
    assert (tmp_path / f"plot.{ending}").stat().st_size > 1000


def test_files_are_not_replaced(tiny: Path, result: Path, capsys) -> None:
    before = result.read_text()
    assert main(["bench", str(tiny), *FAST, "--json", str(result)]) == 2
    assert "--force" in capsys.readouterr().err
    assert result.read_text() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["bench"],
        ["bench", "TINY", "--repeats", "0"],
        ["bench", "TINY", "--warmup", "-1"],
        ["bench", "TINY", "--size", "0x4"],
        ["bench", "random:huge"],
        ["bench", "--compare", "TINY", "TINY"],
        ["bench", "TINY", "--backend", "tensorrt"],
    ],
)
def test_bad_input_is_status_2(tiny: Path, arguments, capsys) -> None:
    arguments = [str(tiny) if word == "TINY" else word for word in arguments]
    try:
        status = main(arguments)
    except SystemExit as error:
        status = error.code
    assert status == 2
    assert "Traceback" not in capsys.readouterr().err


def test_percentiles() -> None:
    spread = Spread.of(range(101))
    assert (spread.count, spread.p50, spread.p95, spread.p99) == (101, 50, 95, 99)
    assert (spread.least, spread.mean) == (0, 50)
    with pytest.raises(ValueError, match="times_ms"):
        Spread.of([])


def test_work_is_counted_from_the_graph(tiny: Path) -> None:
    bundle = bundles.read(tiny)
    engines = Segmenter.load(tiny, backend="onnxruntime").engines
    work = count_work(bundle, "segment", engines.segment, {"x": (1, 8, 24, 32)})
    body, head = 4 * 8 * 9, 3 * 4
    assert work.gflop == pytest.approx(2 * 24 * 32 * (body + head) / 1e9)
    cells = 24 * 32 * (8 + 4 + 3)
    weights = body + 4 + head + 3
    assert work.mib == pytest.approx((cells + weights) * 4 / 2**20)


def test_the_floor_is_the_slower_of_arithmetic_and_memory() -> None:
    speed = Speed(copy_gb_s=1000, matrix_tflop_s=100)
    assert Work(gflop=200, mib=0).floor_ms(speed) == pytest.approx(2)
    assert Work(gflop=0, mib=1000).floor_ms(speed) == pytest.approx(1.048576)


def test_the_device_is_measured() -> None:
    speed = measure_speed(HostMemory(), np.dtype(np.float32), repeats=1)
    assert 0.1 < speed.copy_gb_s < 1e4
    assert 1e-4 < speed.matrix_tflop_s < 1e3


def test_the_device_is_measured_on_random_float32(monkeypatch) -> None:
    """NumPy's product of float16 takes a minute; one of constants is faster than any other."""
    seen = []
    multiply = np.matmul
    monkeypatch.setattr(np, "matmul", lambda a, b: seen.append(a) or multiply(a, b))
    measure_speed(HostMemory(), np.dtype(np.float16), repeats=1)
    for array in seen:
        assert array.dtype == np.float32
        assert array.std() > 0.5


def test_sessions_at_once(tiny: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "result.json"
    assert main(["bench", str(tiny), *FAST, "--concurrency", "2", "--json", str(path)]) == 0
    (run,) = report.read(path)["runs"]
    assert run["concurrent"]["threads"] == 2
    assert run["concurrent"]["click"]["count"] == 2 * 2 * 3
    assert run["concurrent"]["clicks_per_s"] > 0
    assert "2 sessions at once:" in capsys.readouterr().out


def test_layer_by_layer(tiny: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "result.json"
    assert main(["bench", str(tiny), *FAST, "--layers", "--json", str(path)]) == 0
    (run,) = report.read(path)["runs"]
    assert set(run["layers_ms"]) == {"encoder", "f", "g"}
    for rows in run["layers_ms"].values():
        assert any("Conv" in operator for _, operator, _ in rows)
        assert all(time_ms >= 0 for _, _, time_ms in rows)
    assert "layers of f, the slowest first" in capsys.readouterr().out


def test_clicks_and_pictures_are_reproducible() -> None:
    np.testing.assert_array_equal(picture_of((7, 5)), picture_of((7, 5)))
    clicks = clicks_on((48, 64), 6)
    assert clicks == clicks_on((48, 64), 6)
    assert clicks[0].positive
    assert {click.positive for click in clicks} == {True, False}
    assert all(0 <= c.x <= 63 and 0 <= c.y <= 47 for c in clicks)


def test_stages_on_a_device_are_timed_by_events(monkeypatch, tiny: Path, tmp_path: Path) -> None:
    """With the stand-ins for CuPy and TensorRT: every stage is bracketed by two events."""
    cupy = device.install(monkeypatch)
    monkeypatch.setattr(measure, "FLUSH_BYTES", 1024)
    recorded, busy = [], []

    class Event(fake_cupy.Event):
        def record(self, stream) -> None:
            super().record(stream)
            recorded.append(self)
            busy.append(stream.queued > stream.done)

    cupy.cuda.Event = Event
    cupy.cuda.get_elapsed_time = lambda start, stop: float(recorded.index(stop))
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt.make())
    bundle = bundles.read(tiny)
    segmenter = Segmenter(bundle, tensorrt.load(bundle, cache=EngineCache(tmp_path / "cache")))
    replayed = []

    class Spy(measure.Recorded):
        def run(self, work, key) -> None:
            replayed.append(self)
            super().run(work, key)

    monkeypatch.setattr(measure, "Recorded", Spy)
    stages = time_stages(segmenter, picture_of((60, 80)), repeats=2, warmup=1)
    # f and g as within a click: recorded, and replayed from then on
    assert len(set(replayed)) == 2
    assert len(replayed) == 2 * 3
    assert set(stages) > {"upload", "encoder", "f", "g", "download"}
    clock = StageClock(segmenter.pipeline)
    assert clock.run("f", lambda: 7) == 7
    assert clock.times["f"][0] > 0
    # the first event is queued behind other work: on an idle stream Python would be timed
    assert busy[-2]


def test_a_network_with_random_weights_is_timed(tmp_path, monkeypatch):
    """Its bundle is in memory alone by the time that its engines are made."""
    random = pytest.importorskip("trtseg.export.random")
    config = random.NetworkConfig(
        encoder="none", width=8, dilations=(1,), select_width=8, select_dilations=(1,),
        working_long_side_px=64,
    )  # fmt: skip
    small = random.random_full(config)
    monkeypatch.setattr(random, "random_full", lambda: small)
    path = tmp_path / "result.json"
    assert main(["bench", "random:full", *FAST, "--size", "48x64", "--json", str(path)]) == 0
    assert json.loads(path.read_text())["model"]["name"] == "random-full"
