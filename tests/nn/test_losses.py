"""Losses against float64 NumPy written from the paper's equations."""

import itertools

import numpy as np
import pytest
import reference
import tolerances
import torch

from trtseg.nn.losses import (
    balanced_hindsight,
    click_penalties,
    cross_entropy_losses,
    hindsight,
    jaccard_losses,
    l1_losses,
    mask_losses,
    ranked_diversity,
    selection_loss,
)

SHAPES = [(1, 1, 1, 1), (2, 3, 7, 5), (3, 6, 33, 65)]


def example(shape, seed=0):
    """Masks, targets with void, and clicks in pixels of a map twice as large."""
    batch, _, height, width = shape
    rng = np.random.default_rng(seed)
    masks = rng.uniform(0.02, 0.98, shape).astype(np.float32)
    target = rng.integers(0, 2, (batch, height, width)).astype(np.uint8)
    target[rng.random(target.shape) < 0.1] = 255
    clicks = []
    for _ in range(batch):
        points = rng.uniform(-0.5, 0.5, (int(rng.integers(0, 5)), 2))
        points = (points + 0.5) * (2 * height, 2 * width) - 0.5
        labels = rng.integers(0, 2, (len(points), 1))
        clicks.append(np.hstack([points, labels]).astype(np.float32).reshape(-1, 3))
    return masks, target, clicks


def padded(clicks):
    longest = max(len(rows) for rows in clicks)
    out = np.full((len(clicks), longest, 3), -1, np.float32)
    for index, rows in enumerate(clicks):
        out[index, : len(rows)] = rows
    return torch.from_numpy(out)


def cells(rows, label):
    return np.floor((rows[rows[:, 2] == label, :2].astype(np.float64) + 0.5) / 2).astype(int)


@pytest.mark.parametrize("shape", SHAPES)
def test_jaccard_and_penalty(shape):
    masks, target, clicks = example(shape)
    native = mask_losses(torch.from_numpy(masks), torch.from_numpy(target), clicks, 2)
    composed = (
        jaccard_losses(torch.from_numpy(masks), torch.from_numpy(target)),
        click_penalties(torch.from_numpy(masks), padded(clicks), 2),
    )
    rtol, atol = tolerances.JACCARD
    for index, rows in enumerate(clicks):
        wanted = reference.jaccard(masks[index], target[index], cells(rows, 1), cells(rows, 0))
        for name, loss, penalty in (("native", *native), ("composed", *composed)):
            np.testing.assert_allclose(loss[index], wanted[0], rtol, atol, err_msg=name)
            np.testing.assert_allclose(penalty[index], wanted[1], rtol, 1e-5, err_msg=name)


def test_native_and_composed_gradients_agree():
    masks, target, clicks = example((3, 6, 33, 65))
    gradients = []
    for native in (True, False):
        leaf = torch.from_numpy(masks).requires_grad_()
        truth = torch.from_numpy(target)
        if native:
            loss, penalty = mask_losses(leaf, truth, clicks, 2)
        else:
            loss = jaccard_losses(leaf, truth)
            penalty = click_penalties(leaf, padded(clicks), 2)
        (loss.square().sum() + 0.3 * penalty.sum()).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


def test_empty_mask_and_target_cost_nothing():
    masks = torch.zeros(1, 2, 4, 4)
    masks[:, 1] = 0.5
    target = torch.zeros(1, 4, 4, dtype=torch.uint8)
    nothing = [np.zeros((0, 3), np.float32)]
    for loss in (jaccard_losses(masks, target), mask_losses(masks, target, nothing, 1)[0]):
        assert loss.tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("shape", SHAPES)
def test_cross_entropy_and_l1(shape):
    masks, target, _ = example(shape)
    cross_entropy = cross_entropy_losses(torch.from_numpy(masks), torch.from_numpy(target))
    l1 = l1_losses(torch.from_numpy(masks), torch.from_numpy(target))
    for b in range(shape[0]):
        valid, inside = target[b] != 255, target[b] == 1
        for m in range(shape[1]):
            p = masks[b, m].astype(np.float64)
            entropy = -np.where(inside, np.log(p), np.log(1 - p))
            count = max(valid.sum(), 1)
            np.testing.assert_allclose(cross_entropy[b, m], entropy[valid].sum() / count, 1e-5)
            np.testing.assert_allclose(l1[b, m], np.abs(p - inside)[valid].sum() / count, 1e-5)


def test_hindsight_gives_gradient_to_one_head_only():
    masks, target, _ = example((2, 6, 7, 5))
    leaf = torch.from_numpy(masks).requires_grad_()
    losses = jaccard_losses(leaf, torch.from_numpy(target))
    values, best = hindsight(losses)
    values.sum().backward()
    touched = leaf.grad.abs().sum((2, 3)) > 0
    assert touched.sum(1).tolist() == [1, 1]
    assert touched.float().argmax(1).tolist() == best.tolist() == losses.argmin(1).tolist()


@pytest.mark.parametrize(("samples", "masks"), [(4, 2), (3, 3), (5, 2), (2, 6), (4, 1), (6, 3)])
def test_balanced_hindsight_is_the_best_assignment_of_equal_shares(samples, masks):
    rng = np.random.default_rng(samples * 10 + masks)
    losses = torch.from_numpy(rng.random((samples, masks)).astype(np.float32)).requires_grad_()
    values, index = balanced_hindsight(losses)
    share = -(-samples // masks)
    assert np.bincount(index, minlength=masks).max() <= share
    found = losses.detach().numpy()
    np.testing.assert_array_equal(values.detach(), found[np.arange(samples), index])
    allowed = [
        sum(found[b, m] for b, m in enumerate(one))
        for one in itertools.product(range(masks), repeat=samples)
        if np.bincount(one, minlength=masks).max() <= share
    ]
    assert values.sum().item() == pytest.approx(min(allowed), rel=1e-6)
    values.sum().backward()
    assert (losses.grad != 0).sum() == samples


def test_a_mask_that_is_always_best_does_not_take_all():
    losses = torch.rand(12, 6)
    losses[:, 4] -= 1
    assert hindsight(losses)[1].tolist() == [4] * 12
    assert np.bincount(balanced_hindsight(losses)[1], minlength=6).tolist() == [2] * 6


def test_ranked_diversity_weights():
    jaccard = torch.rand(3, 6, dtype=torch.float64)
    weights = 0.01 * 2.0 ** np.arange(5, -1, -1)
    assert weights[0] == 0.32
    np.testing.assert_allclose(ranked_diversity(jaccard, 0.01), jaccard.numpy() @ weights)
    assert ranked_diversity(jaccard[:, :1], 0.01).tolist() == (0.01 * jaccard[:, 0]).tolist()


def test_selection_loss():
    rng = np.random.default_rng(0)
    scores, losses = rng.normal(size=(4, 6)), rng.random((4, 6))
    log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    hard = -log_p[np.arange(4), losses.argmin(1)]
    soft = np.exp(-losses / 0.05)
    soft /= soft.sum(1, keepdims=True)
    arguments = torch.from_numpy(scores), torch.from_numpy(losses)
    np.testing.assert_allclose(selection_loss(*arguments, 0), hard)
    np.testing.assert_allclose(selection_loss(*arguments, 0.05), -(log_p * soft).sum(1))
    # the colder, the nearer to the paper's single best mask
    np.testing.assert_allclose(selection_loss(*arguments, 1e-4), hard, rtol=1e-3)
