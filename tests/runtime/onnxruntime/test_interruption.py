"""Ctrl-C ends a network's run, which would otherwise go on for minutes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_model import CHANNELS

from trtseg import EngineError
from trtseg.runtime.onnxruntime import PROVIDERS, OnnxEngine

ENOUGH_S = 5.0  # an operator of these graphs takes milliseconds; a machine may be busy
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as on Unix")


def long_run(operators: int = 4000, constant: bool = False) -> bytes:
    """A graph of convolutions that takes operators times some 2 ms; of constants alone, where a
    loader could compute them."""
    noise = np.random.default_rng(0).normal(0, 0.005, (CHANNELS, CHANNELS, 65, 65))
    weights = {"w": noise, "c": np.ones((1, CHANNELS, 16, 16))}
    nodes, last = [], "c" if constant else "x"
    for index in range(operators):
        nodes.append(helper.make_node("Conv", [last, "w"], [f"y{index}"], pads=[32] * 4))
        last = f"y{index}"
    nodes.append(helper.make_node("Add", ["x", last], ["masks"]))
    shape = (1, CHANNELS, 16, 16)
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("masks", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    return model.SerializeToString()


def bound(graph: bytes) -> Callable[[], None]:
    engine = OnnxEngine(graph, "long", [PROVIDERS["cpu"]])
    shape = (1, CHANNELS, 16, 16)
    buffers = {name: np.zeros(shape, np.float32) for name in ("x", "masks")}
    return engine.bind(buffers).run


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Ctrl-C as Python has it: whoever starts the tests may ignore it."""
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, kept)


@pytest.fixture(scope="module")
def forever() -> Callable[[], None]:
    return bound(long_run())


def after(delay_s: float, sent: list[float]) -> None:
    def send() -> None:
        time.sleep(delay_s)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=send).start()


@pytest.mark.parametrize("again", range(2))
def test_ctrl_c_ends_a_run(forever: Callable[[], None], again: int) -> None:
    sent: list[float] = []
    after(0.3, sent)
    with pytest.raises(KeyboardInterrupt):
        forever()
    assert time.monotonic() - sent[0] < ENOUGH_S
    assert signal.set_wakeup_fd(-1) == -1


def test_constants_are_not_computed_while_loading() -> None:
    start = time.monotonic()
    run = bound(long_run(constant=True))
    assert time.monotonic() - start < ENOUGH_S
    sent: list[float] = []
    after(0.3, sent)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert time.monotonic() - sent[0] < ENOUGH_S


# Python 3.12 warns of forks beside threads; the child of this one only computes.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_run_in_a_forked_process_hears_its_own_signals(forever: Callable[[], None]) -> None:
    bound(long_run(1))()  # the listener is there
    child = os.fork()
    if child == 0:
        try:
            after(0.3, [])
            forever()
        except KeyboardInterrupt:
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_what_a_program_makes_of_ctrl_c_is_its_own() -> None:
    run, heard = bound(long_run(300)), []
    signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    after(0.1, [])
    run()
    assert heard == [1]


def test_who_listens_to_signals_goes_on_listening() -> None:
    run = bound(long_run(1))
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    try:
        run()
    finally:
        assert signal.set_wakeup_fd(-1) == writing
        os.close(reading)
        os.close(writing)


def test_other_threads_run_without_listening() -> None:
    run, errors = bound(long_run(1)), []

    def call() -> None:
        try:
            run()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert errors == []


def test_a_failing_run_is_still_an_engine_error() -> None:
    engine = OnnxEngine(long_run(1), "long", [PROVIDERS["cpu"]])
    with pytest.raises(EngineError, match="long: "):
        engine.run(lambda options: engine._session.run(["nothing"], {}, options))


PROGRAM = """
import signal, sys
from pathlib import Path
import numpy as np
from trtseg.runtime.onnxruntime import PROVIDERS, OnnxEngine

signal.signal(signal.SIGINT, signal.default_int_handler)
engine = OnnxEngine(Path(sys.argv[1]).read_bytes(), "long", [PROVIDERS["cpu"]])
shape = engine.inputs[0].shape
run = engine.bind({name: np.zeros(shape, np.float32) for name in ("x", "masks")}).run
print("running", flush=True)
run()
"""


def test_a_program_ends_by_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "long.onnx").write_bytes(long_run())
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "long.onnx")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert program.stdout is not None
    assert program.stdout.readline() == "running\n"
    time.sleep(0.5)
    program.send_signal(signal.SIGINT)
    _, told = program.communicate(timeout=ENOUGH_S)
    assert told.endswith("KeyboardInterrupt\n")
    assert program.returncode == -signal.SIGINT
