import numpy as np
import pytest
import reference
import tolerances

from trtseg import _cpu
from trtseg.ops import jaccard

from .shapes import DTYPES, SHAPES, ids

NONE = np.empty((0, 2), np.int32)


def problem(rng, size, dtype, count=6):
    masks = (0.001 + 0.998 * rng.random((count, *size))).astype(dtype)
    target = rng.choice(np.array([0, 1, 1, 255], np.uint8), size)
    positive = np.stack([rng.integers(0, side, 3) for side in size], 1).astype(np.int32)
    negative = np.stack([rng.integers(0, side, 2) for side in size], 1).astype(np.int32)
    return masks, target, positive, negative


@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("size", SHAPES, ids=ids)
def test_matches_reference(backend, size, dtype, rng):
    arguments = problem(rng, size, dtype)
    loss, penalty = backend.jaccard(*arguments)
    expected_loss, expected_penalty = reference.jaccard(*arguments)
    rtol, atol = tolerances.JACCARD
    np.testing.assert_allclose(loss, expected_loss, rtol=rtol, atol=atol)
    np.testing.assert_allclose(penalty, expected_penalty, rtol=rtol, atol=atol)


@pytest.mark.parametrize("dtype", DTYPES, ids=ids)
@pytest.mark.parametrize("size", SHAPES, ids=ids)
def test_gradient_matches_reference(backend, size, dtype, rng):
    arguments = problem(rng, size, dtype)
    weights = rng.standard_normal((2, 6)).astype(np.float32)
    *_, grad = backend.jaccard(*arguments, weights=weights)
    assert grad.dtype == dtype
    expected = reference.jaccard_gradient(*arguments, *weights)
    tolerance = tolerances.with_storage(
        tolerances.JACCARD_GRADIENT, dtype, roundings=tolerances.JACCARD_GRADIENT_ROUNDINGS
    )
    np.testing.assert_allclose(grad, expected, **tolerance)


@pytest.mark.parametrize("count", [1, 2, 32])
def test_any_number_of_masks(backend, count, rng):
    arguments = problem(rng, (9, 11), np.float32, count)
    rtol, atol = tolerances.JACCARD
    for found, expected in zip(
        backend.jaccard(*arguments), reference.jaccard(*arguments), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


def test_both_empty_is_no_loss(backend):
    masks = np.zeros((2, 7, 5), np.float32)
    target = np.zeros((7, 5), np.uint8)
    ones = np.ones(2, np.float32)
    loss, penalty, grad = backend.jaccard(masks, target, NONE, NONE, (ones, ones))
    assert (loss == 0).all()
    assert (penalty == 0).all()
    assert (grad == 0).all()


def test_everything_ignored(backend, rng):
    masks, _, positive, negative = problem(rng, (7, 5), np.float32)
    target = np.full((7, 5), 255, np.uint8)
    loss, penalty = backend.jaccard(masks, target, positive, negative)
    assert (loss == 0).all()
    assert (penalty > 0).all()


def test_nan_is_not_no_loss(backend):
    """A network that diverged must not look perfect."""
    masks = np.full((2, 7, 5), 0.5, np.float32)
    masks[1, 3, 2] = np.nan
    target = np.zeros((7, 5), np.uint8)
    target[0] = 1
    ones = np.ones(2, np.float32)
    loss, _, grad = backend.jaccard(masks, target, NONE, NONE, (ones, ones))
    assert np.isfinite(loss[0])
    assert np.isfinite(grad[0]).all()
    assert np.isnan(loss[1])
    assert np.isnan(grad[1]).all()
    target[3, 2] = 255
    loss, _ = backend.jaccard(masks, target, NONE, NONE)
    assert np.isfinite(loss).all()


def test_a_boolean_target(rng):
    masks, *_ = problem(rng, (7, 5), np.float32)
    target = rng.random((7, 5)) < 0.5
    found = jaccard(masks, target, NONE, NONE)
    for one, same in zip(found, jaccard(masks, target.astype(np.uint8), NONE, NONE), strict=True):
        np.testing.assert_array_equal(one, same)


def test_empty_target_is_all_loss(backend, rng):
    masks, target, *_ = problem(rng, (7, 5), np.float32)
    loss, _ = backend.jaccard(masks, np.zeros_like(target), NONE, NONE)
    assert (loss == 1).all()


def test_perfect_mask(backend):
    target = (np.arange(35).reshape(7, 5) % 3 == 0).astype(np.uint8)
    positive, negative = (np.argwhere(target == v).astype(np.int32, "C") for v in (1, 0))
    loss, penalty = backend.jaccard(target[None].astype(np.float32), target, positive, negative)
    assert loss.item() == 0
    assert penalty.item() == 0


def test_a_click_listed_twice_counts_twice(backend):
    masks = np.full((1, 3, 3), 0.25, np.float32)
    clicks = np.array([[1, 2], [1, 2], [0, 0]], np.int32)
    ones = np.ones(1, np.float32)
    _, penalty, grad = backend.jaccard(
        masks, np.full((3, 3), 255, np.uint8), clicks, clicks[:1], (ones, ones)
    )
    assert penalty.item() == 2.25 + 0.25
    np.testing.assert_array_equal(grad[0], [[-1, 0, 0], [0, 0, -1], [0, 0, 0]])


def test_is_deterministic_whatever_the_threads(rng):
    masks, target, *_ = problem(rng, (480, 640), np.float32)
    threads = _cpu.num_threads()
    try:
        results = []
        for count in (1, 2, threads):
            _cpu.set_num_threads(count)
            results.append(jaccard(masks, target, NONE, NONE)[0])
    finally:
        _cpu.set_num_threads(threads)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_refuses_wrong_arguments(rng):
    masks, target, positive, negative = problem(rng, (4, 5), np.float32)
    with pytest.raises(ValueError, match=r"target: expected shape \[4, 5\], got \[5, 4\]"):
        jaccard(masks, target.T.copy(), positive, negative)
    with pytest.raises(TypeError, match="target: expected bool or uint8, got int64"):
        jaccard(masks, target.astype(np.int64), positive, negative)
    with pytest.raises(TypeError, match="positive: expected int32, got int64"):
        jaccard(masks, target, positive.astype(np.int64), negative)
    with pytest.raises(ValueError, match="masks: expected 1 to 32 masks, got 0"):
        jaccard(masks[:0], target, positive, negative)
    with pytest.raises(ValueError, match="masks: expected sides of at least 1"):
        jaccard(masks[:, :0], target[:0], positive, negative)
    for bad in ([4, 0], [0, 5], [-1, 0]):
        outside = np.array([bad], np.int32)
        with pytest.raises(ValueError, match=r"negative: expected pixels \(y, x\) inside \[4, 5\]"):
            jaccard(masks, target, positive, outside)
