"""What a packed layer multiplies by as it is stored is what it holds at the time, by whichever tensors."""

import copy

import pytest
import torch
from gpu_or_interpreter import DEVICE, randn

import sparseq
from sparseq.nn import QuantSparseLinear, use_sparse_kernels

pytestmark = pytest.mark.usefixtures("on_triton")


PATTERNS = ["unstructured", "2:4", "16x32"]


def stored_layer(pattern, seed):
    torch.manual_seed(seed)
    layer = QuantSparseLinear(64, 32, pattern=pattern).to(DEVICE)
    layer.set_mask(torch.ops.sparseq.magnitude_mask([layer.weight.detach()], 0.5, pattern)[0])
    packed = use_sparse_kernels(sparseq.pack(layer))
    assert all(buffer.shape != layer.weight.shape for buffer in packed.buffers())  # It holds no expanded copy.
    return packed


@pytest.mark.parametrize("pattern", PATTERNS)
def test_another_state_is_multiplied_by_itself(pattern):
    a, b, x = stored_layer(pattern, 0), stored_layer(pattern, 1), randn(5, 64)
    ours, theirs = a(x), b(x)
    assert not torch.equal(ours, theirs)
    for given in (b.state_dict(), dict(b.named_buffers())):
        torch.testing.assert_close(torch.func.functional_call(a, given, x), theirs)
        torch.testing.assert_close(a(x), ours)
    for name, tensor in b.state_dict().items():
        a.get_buffer(name).copy_(tensor)
    torch.testing.assert_close(a(x), theirs)
    torch.testing.assert_close(copy.deepcopy(a)(x), theirs)
    a.expand()
    torch.testing.assert_close(a(x), theirs)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_gradients_of_what_is_stored(pattern):
    layer, x, g = stored_layer(pattern, 0), randn(5, 64), randn(5, 32)
    x.requires_grad_()
    layer(x).backward(g)
    torch.testing.assert_close(x.grad, g @ layer.weight, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_cast_is_followed(pattern):
    layer, x = stored_layer(pattern, 0), randn(5, 64).bfloat16()
    expected = layer(x)
    layer.bfloat16()
    assert layer.scale.dtype == torch.float32 and layer(x).dtype == torch.bfloat16
    torch.testing.assert_close(layer(x), expected, rtol=2e-2, atol=2e-2)
