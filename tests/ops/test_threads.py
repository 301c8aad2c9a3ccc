"""The native thread pool: the answer does not depend on it, and it survives what processes do."""

import subprocess
import sys
import threading

import numpy as np
import pytest

from trtseg import _cpu
from trtseg.ops import distance_transform, hypercolumn

MASK = np.random.default_rng(5).random((300, 400)) < 0.01


def run(code):
    """In a fresh interpreter that dies, not hangs, if the pool deadlocks."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_number_of_threads_is_clamped():
    before = _cpu.num_threads()
    try:
        _cpu.set_num_threads(0)
        assert _cpu.num_threads() == 1
        _cpu.set_num_threads(10**6)
        assert 1 <= _cpu.num_threads() <= 64
    finally:
        _cpu.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_same_answer_with_any_number(count):
    level = np.random.default_rng(6).standard_normal((9, 40, 50)).astype(np.float32)
    expected = distance_transform(MASK), hypercolumn([level], (200, 600))
    before = _cpu.num_threads()
    try:
        _cpu.set_num_threads(count)
        found = distance_transform(MASK), hypercolumn([level], (200, 600))
    finally:
        _cpu.set_num_threads(before)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_calls_from_many_threads():
    expected = distance_transform(MASK)
    wrong = []

    def work():
        for _ in range(20):
            if not np.array_equal(distance_transform(MASK), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


COUNT_THREADS = """
import os, sys
def tasks(): return len(os.listdir('/proc/self/task'))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_no_thread_before_the_first_loop():
    before, after = run(
        COUNT_THREADS
        + "import trtseg; before = tasks()\n"
        + "from trtseg import _cpu; print(before, tasks())"
    )
    assert before == after == "1"


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_forked_child_computes_too():
    code = """
import os
import numpy as np
from trtseg.ops import distance_transform
mask = np.zeros((600, 800), bool); mask[5, 6] = True
expected = distance_transform(mask)
children = []
for _ in range(4):
    pid = os.fork()
    if pid == 0:
        ok = all(np.array_equal(distance_transform(mask), expected) for _ in range(5))
        os._exit(0 if ok else 1)
    children.append(pid)
print(*[os.waitpid(pid, 0)[1] for pid in children])
assert np.array_equal(distance_transform(mask), expected)
"""
    assert run(code) == ["0"] * 4
