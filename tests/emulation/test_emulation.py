"""The emulation must run right kernels right, and must not pass wrong ones."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from .build import build, compiler, sanitizer_preload, translate

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")

HERE = Path(__file__).resolve().parent
KERNELS = [
    "sum",
    "rotate",
    "rotate_broken",
    "rotate_twice",
    "rotate_twice_broken",
    "diverge",
    "two_barriers",
    "absent_lane",
    "copy",
    "copy_shared",
    "copy_vector",
    "votes",
    "bad_launch",
    "second_warp",
    "sum_twice",
    "sum_twice_broken",
]
FORWARD, REVERSE, SHUFFLED = range(3)


class Library:
    """The test kernels, called with NumPy arrays."""

    def __init__(self, sanitize):
        path = build("kernels", [HERE / "kernels.cu"], sanitize=sanitize)
        self._library = ctypes.CDLL(str(path))
        self._library.run.restype = ctypes.c_char_p
        self._library.run.argtypes = [
            ctypes.c_int,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_int,
        ]
        self._library.emulation_set_order.argtypes = [ctypes.c_int, ctypes.c_uint64]

    def __call__(self, kernel, source, out, n, order=FORWARD, seed=0):
        self._library.emulation_set_order(order, seed)
        message = self._library.run(KERNELS.index(kernel), source.ctypes.data, out.ctypes.data, n)
        return message.decode() if message else None


@pytest.fixture(scope="module")
def library():
    return Library(sanitize=False)


ORDERS = [(FORWARD, 0), (REVERSE, 0), (SHUFFLED, 1), (SHUFFLED, 2)]


@pytest.mark.parametrize(("order", "seed"), ORDERS)
def test_right_kernels(library, order, seed):
    source = np.arange(1, 1001, dtype=np.float32)
    out = np.zeros(8, np.float32)
    assert library("sum", source, out, 1000, order, seed) is None
    assert out.sum() == source.sum()

    source = np.arange(64, dtype=np.float32)
    out = np.zeros(64, np.float32)
    assert library("rotate", source, out, 64, order, seed) is None
    np.testing.assert_array_equal(out, np.roll(source, -1))
    assert library("rotate_twice", source, out, 64, order, seed) is None
    np.testing.assert_array_equal(out, np.roll(source, -2))

    source, out = np.arange(96, dtype=np.float32), np.zeros(96, np.float32)
    assert library("second_warp", source, out, 96, order, seed) is None
    np.testing.assert_array_equal(out, np.repeat([0, source[32:64].sum(), 0], 32))

    votes = np.zeros(32, np.uint32)
    assert library("votes", source, votes, 0, order, seed) is None
    assert (votes == sum(1 << i for i in range(0, 32, 3))).all()


def test_missing_barrier_before_the_read(library):
    source = np.arange(64, dtype=np.float32)
    for order, seed in ORDERS:
        out = np.zeros(64, np.float32)
        assert library("rotate_broken", source, out, 64, order, seed) is None
        # Reads what no thread of this block has written: NaN, not a leftover.
        assert np.isnan(out).any()


@pytest.mark.parametrize(
    ("kernel", "n", "expected"),
    [
        ("rotate_twice", 64, lambda source: np.roll(source[:64], -2)),
        ("sum_twice", 2, lambda source: [source.sum(), source.sum() + 128]),
    ],
)
def test_missing_barrier_before_the_overwrite(library, kernel, n, expected):
    source = np.arange(128, dtype=np.float32)
    results = {True: [], False: []}
    for order, seed in ORDERS:
        for right in (True, False):
            out = np.zeros(n, np.float32)
            name = kernel if right else f"{kernel}_broken"
            assert library(name, source, out, n, order, seed) is None
            results[right].append(np.array_equal(out, expected(source)))
    assert all(results[True])
    assert not all(results[False])


@pytest.mark.parametrize(
    ("kernel", "n", "expected"),
    [
        ("diverge", 40, "threads diverge"),
        ("two_barriers", 0, "threads diverge"),
        ("absent_lane", 0, "a lane that has returned"),
        ("bad_launch", 64, "invalid configuration"),
    ],
)
def test_broken_rules_are_reported(library, kernel, n, expected):
    out = np.zeros(64, np.float32)
    message = library(kernel, out, out, n)
    assert message is not None
    assert expected in message
    # The next launch is not disturbed.
    assert library("rotate", np.zeros(64, np.float32), out, 64) is None


def test_translation_keeps_lines_and_refuses_what_it_cannot():
    text = "__shared__ float a[4];\nf<T,\n 2><<<dim3(1, 2), 3,\n 0, s>>>(x,\n y);\n"
    with pytest.raises(ValueError, match="cannot translate"):
        translate("f<<<1, 2>>>(x)")
    translated = translate(text)
    assert translated.count("\n") == text.count("\n")
    assert (
        '::launch("f<T, 2>", ::emulation::config(dim3(1, 2), 3,\n 0, s), [=] { f<T,\n 2>('
        in translated
    )


CASES = {
    "copy": ("copy", 64, None),
    "beyond_input": ("copy", 65, "heap-buffer-overflow"),
    "beyond_shared": ("copy_shared", 1, "out of bounds"),
    "misaligned": ("copy_vector", 16, "misaligned address"),
}


@pytest.mark.parametrize("case", CASES)
def test_sanitizers_see_bad_accesses(case):
    preload = sanitizer_preload()
    if preload is None:
        pytest.skip("no AddressSanitizer")
    build("kernels", [HERE / "kernels.cu"], sanitize=True)  # not under the sanitizer itself
    environment = dict(
        os.environ,
        LD_PRELOAD=preload,
        ASAN_OPTIONS="detect_leaks=0",
        PYTHONPATH=str(HERE.parent),
    )
    done = subprocess.run(
        [sys.executable, "-m", "emulation.test_emulation", case],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    expected = CASES[case][2]
    if expected is None:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode != 0
        assert expected in done.stderr


def _run_case(case):
    library = Library(sanitize=True)
    source, out = np.ones(64, np.float32), np.zeros(128, np.float32)
    for order, seed in ORDERS:
        if case == "copy":
            assert library("copy", source, out, 64, order, seed) is None
            assert library("sum", source, out, 64, order, seed) is None
            assert library("rotate_twice", source, out, 64, order, seed) is None
            assert library("diverge", source, out, 40, order, seed) is not None
        elif case == "misaligned":
            library("copy_vector", source[1:], out, CASES[case][1], order, seed)
        else:
            library(CASES[case][0], source, out, CASES[case][1], order, seed)


if __name__ == "__main__":
    _run_case(sys.argv[1])
