"""Gradients of the native operations against autograd of the plain torch compositions, and those
compositions against finite differences in float64."""

import numpy as np
import pytest
import tolerances

torch = pytest.importorskip("torch")
plain = pytest.importorskip("trtseg.nn.plain_ops")

from trtseg.nn import ops  # noqa: E402

SIZES = [(1, 1), (7, 5), (33, 65)]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(11)


def normal(generator, *shape):
    return torch.randn(shape, generator=generator)


def gradients(function, tensors, generator_seed=0):
    """The function's value, and gradients for a random but fixed direction."""
    leaves = [t.detach().clone().requires_grad_(t.is_floating_point()) for t in tensors]
    value = function(*leaves)
    direction = torch.randn(value.shape, generator=torch.Generator().manual_seed(generator_seed))
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    return value.detach(), torch.autograd.grad(value, wanted, direction.to(value.dtype))


def check(native, reference, tensors, tolerance):
    value, grads = gradients(native, tensors)
    expected_value, expected_grads = gradients(reference, tensors)
    rtol, atol = tolerance
    np.testing.assert_allclose(value, expected_value, rtol=rtol, atol=atol)
    for one, expected in zip(grads, expected_grads, strict=True):
        assert one.dtype == expected.dtype
        np.testing.assert_allclose(one, expected, rtol=rtol, atol=atol)


def hypercolumn_inputs(generator, size):
    height, width = size
    image, weight, bias = normal(generator, 3, *size), normal(generator, 4, 3), normal(generator, 4)
    levels = [normal(generator, 4, -(-height // s), -(-width // s)) for s in (1, 2, 4, 8, 16)]
    return [image, weight, bias, *levels]


@pytest.mark.parametrize("size", SIZES)
def test_hypercolumn(size, generator):
    def call(module):
        return lambda image, weight, bias, *levels: module.hypercolumn(
            levels, size, image=image, image_weight=weight, bias=bias
        )

    tensors = hypercolumn_inputs(generator, size)
    check(call(ops), call(plain), tensors, tolerances.BILINEAR_GRADIENT)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_add_guidance(size, channels_last, generator):
    def call(module):
        return lambda *tensors: module.add_guidance(*tensors, channels_last=channels_last)

    tensors = [normal(generator, 6, *size), normal(generator, 5, *size), normal(generator, 6, 5)]
    check(call(ops), call(plain), tensors, tolerances.GUIDANCE_WEIGHT_GRADIENT)


def jaccard_inputs(generator, size):
    masks = torch.rand((6, *size), generator=generator) * 0.998 + 0.001
    target = torch.tensor([0, 1, 255], dtype=torch.uint8)[
        torch.randint(3, size, generator=generator)
    ]
    clicks = [
        torch.stack([torch.randint(side, (n,), generator=generator) for side in size], 1).int()
        for n in (3, 2)
    ]
    return masks, target, *clicks


@pytest.mark.parametrize("size", SIZES)
def test_jaccard(size, generator):
    def call(module):
        return lambda *tensors: torch.stack(module.jaccard(*tensors))

    check(call(ops), call(plain), jaccard_inputs(generator, size), tolerances.JACCARD)


def test_only_one_of_two_losses_is_used(generator):
    masks, *rest = jaccard_inputs(generator, (7, 5))
    masks.requires_grad_()
    ops.jaccard(masks, *rest)[0].sum().backward()
    (expected,) = torch.autograd.grad(plain.jaccard(masks, *rest)[0].sum(), masks)
    np.testing.assert_allclose(masks.grad, expected, rtol=tolerances.JACCARD[0], atol=1e-7)


def test_plain_compositions_pass_gradcheck(generator):
    levels = [normal(generator, 2, h, h + 1).double().requires_grad_() for h in (5, 3, 1)]
    assert torch.autograd.gradcheck(lambda *levels: plain.hypercolumn(levels, (5, 6)), levels)
    base, guidance, weight = (
        normal(generator, *shape).double().requires_grad_()
        for shape in ((3, 4, 5), (4, 4, 5), (3, 4))
    )
    assert torch.autograd.gradcheck(plain.add_guidance, (base, guidance, weight))
    masks, *rest = jaccard_inputs(generator, (4, 5))
    assert torch.autograd.gradcheck(
        lambda masks: plain.jaccard(masks, *rest), masks.double().requires_grad_()
    )


def test_memory_is_shared():
    points = torch.tensor([[1.0, 2.0]])
    out = torch.zeros((4, 5))
    address = out.data_ptr()
    assert ops.distance_map(points, (4, 5), limit_px=9, out=out) is out
    assert out.data_ptr() == address
    assert out[1, 2] == 0
    assert out[3, 2] == 2


def test_public_ops_dispatch_tensors_here(generator):
    import trtseg.ops

    points = torch.tensor([[1.0, 2.0]])
    found = trtseg.ops.distance_map(points, (4, 5), limit_px=9)
    assert isinstance(found, torch.Tensor)
    base = normal(generator, 2, 3, 4).requires_grad_()
    guided = trtseg.ops.add_guidance(base, normal(generator, 4, 3, 4), normal(generator, 2, 4))
    assert guided.requires_grad
    mask, _, _ = trtseg.ops.compose_mask(torch.ones(2, 2), (4, 4))
    assert (mask == 255).all()
    assert (trtseg.ops.distance_transform(torch.ones((2, 2), dtype=torch.bool)) == 0).all()


def test_refuses_wrong_tensors(generator):
    base = normal(generator, 2, 3, 4).requires_grad_()
    guidance, weight = normal(generator, 4, 3, 4), normal(generator, 2, 4)
    with pytest.raises(ValueError, match="out: expected None where a gradient is wanted"):
        ops.add_guidance(base, guidance, weight, out=torch.empty(2, 3, 4))
    with pytest.raises(TypeError, match="base: expected float32 or float16, got bfloat16"):
        ops.add_guidance(base.detach().bfloat16(), guidance, weight)
    with pytest.raises(TypeError, match="weight: expected float32, got float64"):
        ops.add_guidance(base, guidance, weight.double())
    with pytest.raises(ValueError, match="guidance: expected a tensor on cpu, got one on meta"):
        ops.add_guidance(base, guidance.to("meta"), weight)
    with pytest.raises(TypeError, match="guidance: expected a torch tensor, got ndarray"):
        ops.add_guidance(base, guidance.numpy(), weight)
    with pytest.raises(TypeError, match=r"levels\[1\]: expected a torch tensor, got ndarray"):
        ops.hypercolumn([base, guidance.numpy()], (3, 4))
    target, clicks = torch.ones((3, 4), dtype=torch.uint8), torch.zeros((1, 2), dtype=torch.int32)
    with pytest.raises(TypeError, match="target: expected a torch tensor, got ndarray"):
        ops.jaccard(base, target.numpy(), clicks, clicks)
    with pytest.raises(TypeError, match="negative: expected a torch tensor, got NoneType"):
        ops.jaccard(base, target, clicks, None)
    points = torch.zeros((1, 2))
    with pytest.raises(TypeError, match=r"dtype: expected float32 or float16, got torch\.bfloat16"):
        ops.distance_map(points, (3, 4), limit_px=9, dtype=torch.bfloat16)
    with pytest.raises(TypeError, match="dtype: expected float32 or float16, got float64"):
        ops.distance_map(points, (3, 4), limit_px=9, dtype=np.float64)
    with pytest.raises(ValueError, match="out: expected rows that do not overlap, got strides"):
        ops.distance_map(points, (3, 4), limit_px=9, out=torch.zeros(4).expand(3, 4))


def test_losses_may_be_changed_in_place(generator):
    masks, *rest = jaccard_inputs(generator, (7, 5))
    masks.requires_grad_()
    loss, penalty = ops.jaccard(masks, *rest)
    loss += penalty
    loss.sum().backward()
    (expected,) = torch.autograd.grad(sum(plain.jaccard(masks, *rest)).sum(), masks)
    np.testing.assert_allclose(masks.grad, expected, rtol=tolerances.JACCARD[0], atol=1e-7)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_memory_belongs_to_the_named_stream():
    stream = torch.cuda.Stream()
    mask = torch.zeros((64, 64), dtype=torch.bool, device="cuda")
    mask[3, 4] = True
    torch.cuda.synchronize()
    found = ops.distance_transform(mask, stream=stream.cuda_stream)
    stream.synchronize()
    np.testing.assert_array_equal(found.cpu(), ops.distance_transform(mask.cpu()))
