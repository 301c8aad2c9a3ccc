"""The command and what it leaves behind."""

import argparse
import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from evaluate.methods import write_folder

from trtseg import cli
from trtseg.commands.evaluate import add_arguments
from trtseg.evaluate.curves import running_mean
from trtseg.evaluate.records import ObjectRecord
from trtseg.evaluate.report import overlay, select_cases
from trtseg.evaluate.summary import summarise_records


def main(arguments):
    return cli.main(["evaluate", *arguments])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluate")
    data = write_folder(root / "photos", images=3)
    output = root / "run"
    arguments = ["--model", "geodesic-matting", "--data", str(data), "--clicks", "4"]
    arguments += ["--output", str(output), "--quiet"]
    assert main(arguments) == 0
    return arguments, output


def test_files(finished):
    _, output = finished
    summary = json.loads((output / "results.json").read_text())
    result = summary["results"]["photos"]
    assert (result["objects"], result["expected"]) == (6, 6)
    assert len(result["iou"]) == 4
    noc = result["noc"]["0.85"]
    assert 1 <= noc["low"] <= noc["mean"] <= noc["high"] <= 4
    assert result["click_ms"]["median"] > 0
    assert "Bai and Sapiro" in summary["method"]["parameters"]["source"]
    rows = list(csv.DictReader((output / "objects.csv").read_text().splitlines()))
    assert [row["object"] for row in rows] == ["00#1", "00#2", "01#1", "01#2", "02#1", "02#2"]
    assert (
        float(rows[0]["iou@1"])
        == json.loads((output / "objects/photos/000000.json").read_text())["ious"][0]
    )
    for row in rows:
        reached = max(float(row[f"iou@{k}"]) for k in range(1, 5)) >= 0.9
        assert row["reached@0.9"] == ("true" if reached else "false")
    for name in ("iou", "jaccard_error", "clicks_over_sequence"):
        assert (output / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (output / f"{name}.svg").read_bytes()


def test_report_needs_no_other_file(finished):
    _, output = finished
    report = (output / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', report)
    assert len(sources) > 6
    assert all(source.startswith("data:image/") for source in sources)
    assert "photos: worst" in report
    assert "photos: median" in report


def test_a_full_directory_is_not_overwritten(finished, capsys):
    arguments, output = finished
    before = (output / "objects.csv").read_bytes()
    assert main(arguments) == 2
    assert "--resume continues, --force replaces" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 0
    assert (output / "objects.csv").read_bytes() == before
    assert "NoC@85" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--force", "--resume"])
def test_other_folders_are_left_alone(tmp_path, capsys, option):
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "diary.txt").write_text("dear")
    data = write_folder(tmp_path / "data", images=1)
    arguments = ["--model", "grabcut", "--data", str(data), "--output", str(precious)]
    assert main([*arguments, option]) == 2
    assert "does not delete" in capsys.readouterr().err
    assert [path.name for path in precious.iterdir()] == ["diary.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "/no/such/place", "--model", "graph-cut"], "no such file or folder"),
        (["--model", "graph-cut"], "data: expected at least one"),
        (["--model", "no-such-model"], "no-such-model"),
        (["--model", "graph-cut", "--adapt", "image"], "neither be adapted nor refined"),
        (["--adapt", "both", "--workers", "2"], "workers, cluster: expected 1"),
        (["--adapt", "both", "--cluster", "dask"], "workers, cluster: expected 1"),
        (["--cluster", "slurm", "--model", "graph-cut"], "cluster: expected one of dask, ray"),
        (["--target", "85,85", "--model", "graph-cut"], "target: expected different values"),
        (["--seed", "-1", "--protocol", "random", "--model", "graph-cut"], "seed: expected"),
    ],
)
def test_bad_input(tmp_path, capsys, arguments, message):
    if "--data" not in arguments and message != "data: expected at least one":
        arguments = [*arguments, "--data", str(write_folder(tmp_path / "data", images=1))]
    assert main([*arguments, "--output", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_file_as_output_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["--output", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err == f"trtseg: error: {tmp_path / 'file'}: Not a directory\n"


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "wrong",
    [
        ["--clicks", "0"],
        ["--model", "no-such-model"],
        ["--data", "/no/such/place"],
        ["--cluster", "slurm"],
        ["--data", "OUTPUT"],
    ],
)
def test_force_deletes_nothing_before_all_is_checked(finished, tmp_path, wrong):
    arguments, finished_output = finished
    output = tmp_path / "run"
    shutil.copytree(finished_output, output)
    before = contents(output)
    wrong = [word.replace("OUTPUT", str(output)) for word in wrong]
    assert main([*arguments, "--output", str(output), *wrong, "--force"]) == 2
    assert contents(output) == before


def test_force_replaces(finished, tmp_path):
    arguments, finished_output = finished
    output = tmp_path / "run"
    shutil.copytree(finished_output, output)
    fewer = [*arguments, "--output", str(output), "--limit", "2", "--force", "--no-report"]
    assert main(fewer) == 0
    assert len(list(output.glob("objects/*/*.json"))) == 2
    assert not (output / "report.html").exists()


def test_matplotlib_is_missed_before_the_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    data = write_folder(tmp_path / "data", images=1)
    arguments = ["--model", "geodesic-matting", "--data", str(data), "--clicks", "1", "--quiet"]
    arguments += ["--output", str(tmp_path / "run")]
    assert main(arguments) == 2
    assert "trtseg[evaluate]" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*arguments, "--no-report"]) == 0


@pytest.mark.parametrize(
    ("text", "targets"),
    [("0.85,0.9", [0.85, 0.9]), ("85,90", [0.85, 0.9]), ("1", [1.0]), ("100", [1.0])],
)
def test_targets(text, targets):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert list(parser.parse_args(["--output", "o", "--target", text]).target) == targets


@pytest.mark.parametrize("text", ["1.5", "0", "101", "0.85,90", "nan", "", "-1"])
def test_bad_targets(capsys, text):
    with pytest.raises(SystemExit):
        main([f"--target={text}"])
    assert "--target: expected" in capsys.readouterr().err


def children(process):
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def running(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are found in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_command(tmp_path, number):
    data = write_folder(tmp_path / "photos", images=80)
    output = tmp_path / "run"
    arguments = ["--model", "geodesic-matting", "--data", str(data), "--output", str(output)]
    command = [sys.executable, "-m", "trtseg", "evaluate", *arguments, "--workers", "2", "--quiet"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not list(output.glob("objects/*/*.json")) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.02)
        started = children(process.pid)
        assert len(started) >= 2
        process.send_signal(number)
        _, told = process.communicate(timeout=60)  # which ends with the last of the processes
    if number == signal.SIGTERM:
        assert process.returncode == 143
        # Not always the last line: the pool's own tracker of semaphores ends after the command.
        assert "\ntrtseg evaluate: terminated; " in f"\n{told}"
    while any(map(running, started)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(running, started))
    assert 0 < len(list(output.glob("objects/*/*.json"))) < 160


def test_evaluate_never_loads_torch_nor_the_optional_packages():
    code = (
        "import sys, trtseg.commands.options.method, trtseg.evaluate.runner; "
        "names = {'torch', 'scipy', 'skimage', 'maxflow', 'matplotlib', 'pycocotools'}; "
        "print(sorted(names & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"


def record(name, ious):
    times = [2.0] * len(ious)
    return ObjectRecord("data", ord(name), name, ious, click_ms=times, encode_ms=10.0)


def test_summary_by_hand():
    records = [record("a", [0.5, 0.9]), record("b", [0.86, 0.88]), record("c", [0.1, 0.2])]
    result = summarise_records(records, (0.85, 0.9), resamples=50)
    assert result["noc"]["0.85"]["mean"] == pytest.approx(5 / 3, abs=1e-4)
    assert result["clicks"]["0.85"] == {"97": 2, "98": 1, "99": 2}
    assert running_mean([2, 4, 6, 8], 2).tolist() == [2, 3, 5, 7]
    assert result["failures"] == {"0.85": 1, "0.9": 2}
    assert result["failures_at_limit"] == {"0.85": 2, "0.9": 3}
    assert result["seconds_per_click"] == pytest.approx((10 + 4) / 2 / 1000)
    assert result["click_ms"]["median"] == 2.0
    assert "best_iou" not in result
    assert "held" not in result


def test_corrections_held_are_those_after_the_last_click():
    records = [record("a", [0.5, 0.9, 0.9]), record("b", [0.9] * 3)]
    records[0].obeyed, records[1].obeyed = [1, 2, 2], [1]
    result = summarise_records(records, (0.85,), resamples=50)
    assert result["held"] == pytest.approx(3 / 4)  # 2 of 3 and 1 of 1
    assert result["obeyed"] == pytest.approx(6 / 7, abs=1e-4)  # 1 of 1, 2 of 2, 2 of 3; 1 of 1


def test_cases_are_the_worst_and_the_median():
    records = [record(str(k), [0.1 * k, 0.1 * k]) for k in range(10)]
    cases = dict(select_cases(records, 0.95, 2))
    assert [case.name for case in cases["worst"]] == ["0", "1"]
    assert [case.name for case in cases["median"]] == ["4", "5"]
    assert dict(select_cases([], 0.9, 2)) == {}
    assert [title for title, _ in select_cases(records[:1], 0.9, 2)] == ["worst"]


def test_overlay_shows_mask_truth_and_clicks():
    image = np.full((40, 60, 3), 100, np.uint8)
    truth = np.zeros((40, 60), np.uint8)
    truth[10:30, 10:30] = 1
    panel = overlay(image, truth, truth == 1, [(20.0, 20.0, True), (50.0, 5.0, False)])
    assert panel.shape == (200, 300, 3)
    assert panel[75, 130, 2] > panel[75, 130, 0]  # tinted
    assert (panel == (255, 220, 0)).all(2).any()  # outlined
    assert tuple(panel[27, 247]) == (220, 0, 0)  # a red click, left of its number
    assert (panel[190, 290] == 100).all()
