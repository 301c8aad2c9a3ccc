"""The differentiable Jaccard loss against autograd of its plain composition, and that one against
finite differences in float64."""

import numpy as np
import plain_ops
import pytest
import tolerances
import torch

from trtseg.nn.jaccard import jaccard

SIZES = [(1, 1), (7, 5), (33, 65)]


def problem(size):
    random = torch.Generator().manual_seed(11)
    masks = torch.rand((6, *size), generator=random) * 0.998 + 0.001
    target = torch.tensor([0, 1, 255], dtype=torch.uint8)[torch.randint(3, size, generator=random)]
    clicks = [
        torch.stack([torch.randint(side, (n,), generator=random) for side in size], 1).int()
        for n in (3, 2)
    ]
    return masks, target, *clicks


def gradient(function, masks, rest, weights):
    leaf = masks.detach().clone().requires_grad_()
    losses = function(leaf, *rest)
    torch.autograd.backward([loss @ weight for loss, weight in zip(losses, weights, strict=True)])
    return *(loss.detach() for loss in losses), leaf.grad


@pytest.mark.parametrize("size", SIZES)
def test_gradients_are_those_of_the_composition(size):
    masks, *rest = problem(size)
    weights = torch.randn((2, 6), generator=torch.Generator().manual_seed(0))
    rtol, atol = tolerances.JACCARD
    for one, expected in zip(
        gradient(jaccard, masks, rest, weights),
        gradient(plain_ops.jaccard, masks, rest, weights),
        strict=True,
    ):
        assert one.dtype == expected.dtype
        np.testing.assert_allclose(one, expected, rtol=rtol, atol=atol)


def test_the_composition_passes_gradcheck():
    masks, *rest = problem((4, 5))
    assert torch.autograd.gradcheck(
        lambda masks: plain_ops.jaccard(masks, *rest), masks.double().requires_grad_()
    )


def test_only_one_of_two_losses_is_used():
    masks, *rest = problem((7, 5))
    masks.requires_grad_()
    jaccard(masks, *rest)[0].sum().backward()
    (expected,) = torch.autograd.grad(plain_ops.jaccard(masks, *rest)[0].sum(), masks)
    np.testing.assert_allclose(masks.grad, expected, rtol=tolerances.JACCARD[0], atol=1e-7)


def test_losses_may_be_changed_in_place():
    masks, *rest = problem((7, 5))
    masks.requires_grad_()
    loss, penalty = jaccard(masks, *rest)
    loss += penalty
    loss.sum().backward()
    (expected,) = torch.autograd.grad(sum(plain_ops.jaccard(masks, *rest)).sum(), masks)
    np.testing.assert_allclose(masks.grad, expected, rtol=tolerances.JACCARD[0], atol=1e-7)


def test_any_memory_order():
    masks, target, *clicks = problem((7, 5))
    turned = masks.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert not turned.is_contiguous()
    for one, expected in zip(
        jaccard(turned, target, *clicks), jaccard(masks, target, *clicks), strict=True
    ):
        assert torch.equal(one, expected)
