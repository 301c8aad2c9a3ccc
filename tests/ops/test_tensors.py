"""Torch's tensors in `trtseg.ops`: taken as they lie, without their history."""

import numpy as np
import pytest

from trtseg import ops

torch = pytest.importorskip("torch")


def problem():
    random = torch.Generator().manual_seed(3)
    return tuple(
        torch.randn(shape, generator=random) for shape in ((6, 4, 5), (3, 4, 5), (6, 3))
    )


def test_results_are_tensors_of_the_same_bits():
    arrays = problem()
    found = ops.add_guidance(*arrays)
    assert isinstance(found, torch.Tensor)
    np.testing.assert_array_equal(found, ops.add_guidance(*(a.numpy() for a in arrays)))
    mask, upsampled = ops.compose_mask(torch.ones(2, 2), (4, 4), return_probability=True)
    assert (mask.dtype, upsampled.dtype) == (torch.uint8, torch.float32)
    assert ops.distance_transform(torch.ones((2, 3), dtype=torch.bool)).dtype == torch.float32
    levels = [torch.ones((2, 3, 3), dtype=torch.float16)]
    assert ops.hypercolumn(levels, (3, 3)).dtype == torch.float16


def test_memory_is_shared():
    base, guidance, weight = problem()
    expected = ops.add_guidance(base, guidance, weight)
    address = base.data_ptr()
    assert ops.add_guidance(base, guidance, weight, out=base) is base
    assert base.data_ptr() == address
    assert torch.equal(base, expected)


def test_history_is_left_behind():
    """Where a gradient is wanted, too: parameters are taken as they are."""
    base, guidance, weight = problem()
    expected = ops.add_guidance(base, guidance, weight)
    found = ops.add_guidance(
        base.requires_grad_(), guidance * base[:3], torch.nn.Parameter(weight)
    )
    assert not found.requires_grad
    found = ops.hypercolumn([base], (4, 5), bias=torch.nn.Parameter(torch.zeros(6)))
    assert torch.equal(found, base.detach())
    assert expected.shape == found.shape


def test_kinds_of_arrays_may_meet():
    base, guidance, weight = problem()
    assert torch.equal(
        ops.add_guidance(base, guidance.numpy(), weight.numpy()),
        ops.add_guidance(base, guidance, weight),
    )


def test_refuses_wrong_tensors():
    base, guidance, weight = problem()
    with pytest.raises(TypeError, match="base: expected float32 or float16, got bfloat16"):
        ops.add_guidance(base.bfloat16(), guidance, weight)
    with pytest.raises(TypeError, match="weight: expected float32, got float64"):
        ops.add_guidance(base, guidance, weight.double())
    with pytest.raises(TypeError, match="base: expected an array in host or CUDA memory"):
        ops.add_guidance(base.to("meta"), guidance, weight)
    with pytest.raises(TypeError, match="guidance: expected an array in host memory, got Tensor"):
        ops.add_guidance(base, guidance.to("meta"), weight)
    with pytest.raises(ValueError, match="base: expected a C-contiguous array, got strides"):
        ops.add_guidance(base.permute(0, 2, 1), guidance, weight)
    with pytest.raises(TypeError, match="base: expected an array that can be shared, but"):
        ops.add_guidance(base.to_sparse(), guidance, weight)
    out = torch.zeros(4, dtype=torch.uint8).expand(3, 4)
    with pytest.raises(ValueError, match="out: expected rows that do not overlap, got strides"):
        ops.compose_mask(torch.ones(2, 2), (3, 4), out=out)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_streams():
    """Torch's current one by default; memory comes from the pool of the one that is named."""
    mask = torch.zeros((64, 64), dtype=torch.bool, device="cuda")
    mask[3, 4] = True
    expected = ops.distance_transform(mask.cpu())
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    found = ops.distance_transform(mask, stream=stream.cuda_stream)
    stream.synchronize()
    np.testing.assert_array_equal(found.cpu(), expected)
    with torch.cuda.stream(stream):
        found = ops.distance_transform(mask)
        np.testing.assert_array_equal(found.cpu(), expected)
