import numpy as np
import pytest

from trtseg import ops

from .shapes import DTYPES, SHAPES, ids


@pytest.mark.parametrize("score_dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("size", SHAPES, ids=ids)
def test_copies_the_map_that_argmax_names(backend, size, dtype, score_dtype, rng):
    maps = rng.random((6, *size)).astype(dtype)
    for _ in range(3):
        scores = rng.standard_normal(6).astype(score_dtype)
        np.testing.assert_array_equal(backend.best_map(maps, scores), maps[scores.argmax()])


def test_the_first_of_equals(backend):
    maps = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    for scores, best in (([1, 1, 1], 0), ([0, 2, 2], 1), ([-np.inf, -5, -5], 1)):
        found = backend.best_map(maps, np.array(scores, np.float32))
        np.testing.assert_array_equal(found, maps[best])
    np.testing.assert_array_equal(backend.best_map(maps[:1], np.zeros(1, np.float32)), maps[0])


def test_refuses_wrong_arguments():
    maps, scores = np.zeros((3, 7, 5), np.float32), np.zeros(3, np.float32)
    out = np.zeros((7, 5), np.float32)
    assert ops.best_map(maps, scores, out) is out
    for changes, error, words in (
        ({"scores": scores[:2]}, ValueError, r"scores: expected shape \[3\], got \[2\]"),
        ({"maps": maps[0]}, ValueError, r"maps: expected shape \[M, h, w\]"),
        ({"maps": maps[:0], "scores": scores[:0]}, ValueError, "maps: expected sides of at least"),
        ({"out": out[:6]}, ValueError, r"out: expected shape \[7, 5\]"),
        ({"out": out.astype(np.float16)}, TypeError, "out: expected float32, got float16"),
        ({"out": maps[1]}, ValueError, "out: expected memory apart from maps"),
        ({"maps": [[[0.0]]]}, TypeError, "maps: expected an array"),
    ):
        with pytest.raises(error, match=words):
            ops.best_map(**{"maps": maps, "scores": scores, "out": out, **changes})
