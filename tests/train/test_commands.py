"""`trtseg train`, under torchrun too, and the contact sheet."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from trtseg import cli
from trtseg.nn.checkpoint import read_checkpoint


@pytest.fixture
def write(config, tmp_path):
    """Write a run's JSON; keywords replace entries."""

    def to_file(name="c.json", **changes):
        path = tmp_path / name
        path.write_text(json.dumps(config(**changes).to_dict()))
        return str(path)

    return to_file


def train(*arguments):
    return cli.main(["train", *arguments, "--device", "cpu", "--workers", "0"])


def test_a_run_and_its_continuation(write, tmp_path, capsys):
    output = str(tmp_path / "run")
    assert train(write(), "--output", output, "--max-minutes", "0") == 0
    assert json.loads(capsys.readouterr().out)["done"] is False
    assert train(write(), "--output", output) == 2
    assert "pass --resume" in capsys.readouterr().err
    assert train(write(), "--output", output, "--resume") == 0
    result = json.loads(capsys.readouterr().out)
    assert result == {"done": True, "stage": "select", "step": 3, "checkpoint": f"{output}/last"}


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda data, run: None, r"last/state.json: cannot be read"),
        (lambda data, run: (data / "images" / "a_0.png").write_bytes(b"\x89PNG\r\n\x1a\n"),
         "images/a_0.png: the file is truncated"),
        (lambda data, run: [p.unlink() for p in (data / "images").iterdir()], "found none"),
    ],
)  # fmt: skip
def test_bad_input_gives_one_line(write, data, tmp_path, capsys, prepare, message):
    run = tmp_path / "run"
    prepare(data, run)
    path = write(data={"path": str(data), "layout": "folder"})
    arguments = ["--resume"] if "last" in message else []
    assert train(path, "--output", str(run), *arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "trtseg: error:" in line]
    assert len(errors) == 1
    assert message in errors[0]


def test_bad_configuration_gives_one_line(write, tmp_path, capsys):
    path = tmp_path / "c.json"
    values = json.loads(Path(write()).read_text())
    path.write_text(json.dumps({**values, "batch": "two"}))
    assert train(str(path), "--output", str(tmp_path / "run")) == 2
    assert "c.json: config.batch: expected a whole number, got 'two'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_interruption_saves_a_whole_step(write, tmp_path, capsys):
    path = write(stages=[{"trains": "segment", "steps": 100_000}])
    output = tmp_path / "run"
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background

    def interrupt():
        # not before the loop listens: the signal would end the tests themselves
        while signal.getsignal(signal.SIGINT) is before:
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert train(path, "--output", str(output)) == 130
    printed = capsys.readouterr()
    assert "interrupted: saving after this step" in printed.err
    step = json.loads(printed.out)["step"]
    assert step >= 1
    assert read_checkpoint(output / "last")[1]["step"] == step
    assert signal.getsignal(signal.SIGINT) is before


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def test_two_processes_equal_one_with_twice_the_batch(write, tmp_path):
    """Both stages, with corrections; gloo on the CPU."""
    changes = {"stages": [{"trains": trains, "steps": 2, "learning_rate": 1e-3}
                          for trains in ("segment", "select")]}  # fmt: skip
    assert train(write(batch=4, **changes), "--output", str(tmp_path / "one")) == 0
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
         "--master-addr", "127.0.0.1", "--master-port", str(free_port()),
         "-m", "trtseg", "train", write("two.json", batch=2, **changes),
         "--output", str(tmp_path / "two"), "--device", "cpu", "--workers", "0",
         "--threads", "1"],
        check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    one, state = read_checkpoint(tmp_path / "one" / "last")
    two, other = read_checkpoint(tmp_path / "two" / "last")
    assert state["samples"] == other["samples"]
    assert one.keys() == two.keys()
    for name, value in one.items():
        # Adam divides by the gradient's size: a step of 1e-3 shows errors of a gradient's last bits
        torch.testing.assert_close(value, two[name], rtol=1e-3, atol=2e-5, msg=name)
