"""3x3 layers whose weights learn by matrix products, against torch's own gradients."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from trtseg.nn.layers.convolution import Convolution  # noqa: E402


@pytest.mark.parametrize("dilation", [1, 2, 9])
@pytest.mark.parametrize(("batch", "channels"), [(1, (32, 48)), (3, (40, 32)), (1, (8, 40))])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_gradients_are_those_of_torch(dilation, batch, channels, layout):
    torch.manual_seed(0)
    layer = Convolution(*channels, dilation).to(memory_format=layout)
    x = torch.randn(batch, channels[0], 7, 5).contiguous(memory_format=layout).requires_grad_()
    with torch.no_grad():
        plain = layer(x)
    found = layer(x)
    assert torch.equal(found, plain)
    arguments = (x, layer.weight, layer.bias)
    expected = F.conv2d(*arguments, padding=dilation, dilation=dilation)
    toward = torch.randn_like(found)
    # optimisers, and averaging over processes, want the gradient's layout to be the weight's
    (of_weight,) = torch.autograd.grad(layer(x), layer.weight, toward)
    assert of_weight.stride() == layer.weight.stride()
    # float32 sums of at most 105 products of order one, in another order
    for mine, theirs in zip(
        torch.autograd.grad(found, arguments, toward),
        torch.autograd.grad(expected, arguments, toward),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_wide_layers_take_that_way_and_only_where_they_learn():
    wide, narrow = Convolution(32, 32), Convolution(32, 8)
    x = torch.randn(1, 32, 4, 4)
    assert "Convolve" in type(wide(x).grad_fn).__name__
    assert "Convolve" not in type(narrow(x).grad_fn).__name__
    with torch.autocast("cpu", torch.bfloat16):
        assert "Convolve" not in type(wide(x).grad_fn).__name__
    frozen = wide.requires_grad_(False)
    assert "Convolve" not in type(frozen(x.requires_grad_()).grad_fn).__name__


def test_in_double_precision():
    layer = Convolution(32, 32).double()
    x = torch.randn(1, 32, 3, 3, dtype=torch.double)
    assert layer(x).dtype == torch.double
