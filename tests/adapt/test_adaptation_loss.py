"""CA eq. 1 to 4 against a hand-written NumPy version."""

import numpy as np
import pytest
import torch

from trtseg.adapt.loss import (
    adaptation_loss,
    corrected_logits,
    correction_loss,
    drift,
    mask_loss,
)


def _cross_entropy(logit, label):
    p = 1 / (1 + np.exp(-np.float64(logit)))
    return -(label * np.log(p) + (1 - label) * np.log(1 - p))


def _bilinear(logits, y, x):
    height, width = logits.shape
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(np.floor(y)), int(np.floor(x))
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    fy, fx = y - top, x - left
    return (
        logits[top, left] * (1 - fy) * (1 - fx)
        + logits[top, right] * (1 - fy) * fx
        + logits[bottom, left] * fy * (1 - fx)
        + logits[bottom, right] * fy * fx
    )


def _problem(size, count, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, size)
    points = np.column_stack(
        [
            rng.uniform(-0.5, size[0] - 0.5, count),
            rng.uniform(-0.5, size[1] - 0.5, count),
            rng.integers(0, 2, count),
        ]
    )
    weights = {"a": rng.normal(size=(3, 2)), "b": rng.normal(size=4)}
    initial = {name: v + rng.normal(0, 0.1, v.shape) for name, v in weights.items()}
    importance = {name: rng.uniform(0, 2, v.shape) for name, v in weights.items()}
    return logits, points, rng.uniform(0, 1, size), weights, initial, importance


def _tensors(values):
    return {name: torch.tensor(value) for name, value in values.items()}


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (33, 65)])
@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize(("lambda_", "gamma"), [(1.0, 1.0), (0.5, 2.0), (0.0, 0.0)])
def test_equation_4(size, count, lambda_, gamma):
    logits, points, mask, weights, initial, importance = _problem(size, count)
    corrected = np.mean([_cross_entropy(_bilinear(logits, y, x), c) for y, x, c in points])
    everywhere = np.mean(_cross_entropy(logits, mask))
    distance = sum(
        (importance[name] * (weights[name] - initial[name]) ** 2).sum() for name in weights
    )
    expected = lambda_ * corrected + (1 - lambda_) * everywhere + gamma * distance
    found = adaptation_loss(
        torch.tensor(logits),
        torch.tensor(points),
        torch.tensor(mask),
        drift(_tensors(weights), _tensors(initial), _tensors(importance)),
        correction_weight=lambda_,
        importance_weight=gamma,
    )
    assert float(found) == pytest.approx(expected, rel=1e-10)


def test_only_the_cells_around_corrections_get_a_gradient():
    logits = torch.zeros(6, 8, requires_grad=True)
    correction_loss(logits, torch.tensor([[2.0, 3.5, 1.0]])).backward()
    assert torch.nonzero(logits.grad).tolist() == [[2, 3], [2, 4]]
    assert bool((logits.grad[2, 3:5] < 0).all())


def test_without_corrections_the_loss_is_zero():
    logits = torch.ones(3, 3, requires_grad=True)
    assert float(correction_loss(logits, torch.zeros(0, 3))) == 0.0


def test_without_a_mask_only_corrections_count():
    logits, points, *_ = _problem((5, 5), 3)
    found = adaptation_loss(
        torch.tensor(logits), torch.tensor(points), None, 0.0,
        correction_weight=0.5, importance_weight=1.0,
    )
    assert float(found) == pytest.approx(
        0.5 * float(correction_loss(torch.tensor(logits), torch.tensor(points)))
    )


def test_a_point_outside_takes_the_nearest_cell():
    logits = torch.arange(12.0).reshape(3, 4)
    points = torch.tensor([[-0.5, -0.5, 1.0], [2.5, 3.5, 0.0]])
    assert corrected_logits(logits, points).tolist() == [0.0, 11.0]


def test_the_mask_term_is_least_at_the_mask():
    mask = torch.tensor([[0.2, 0.9]], dtype=torch.float64)
    logits = torch.logit(mask).requires_grad_()
    mask_loss(logits, mask).backward()
    assert float(logits.grad.abs().max()) < 1e-12


def test_the_jaccard_mask_term_is_that_of_the_soft_masks():
    logits, _, mask, *_ = _problem((7, 5), 1)
    found = 1 / (1 + np.exp(-logits))
    expected = 1 - np.minimum(found, mask).sum() / np.maximum(found, mask).sum()
    loss = mask_loss(torch.tensor(logits), torch.tensor(mask), "jaccard")
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_the_jaccard_mask_term_of_two_empty_masks_is_0():
    logits = torch.full((2, 2), -200.0, requires_grad=True)
    loss = mask_loss(logits, torch.zeros(2, 2), "jaccard")
    loss.backward()
    assert loss.item() == 0
    assert bool(torch.isfinite(logits.grad).all())
