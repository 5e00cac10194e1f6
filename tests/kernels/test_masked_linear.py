import pytest
import torch
import torch.nn.functional as F
from rounding import assert_within_rounding
from samples import call

from sparseq_kernels.block_index import BlockIndex


def masked(x, w, mask, b=None, regrow=False):
    return call("masked_linear", x, w, mask, b, regrow)


@pytest.mark.parametrize("density", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (0, 7), (5, 7), (2, 3, 63)])
def test_against_a_multiplied_mask(density, shape):
    x = torch.randn(shape, requires_grad=True)
    w, b = torch.randn(5, shape[-1], requires_grad=True), torch.randn(5, requires_grad=True)
    mask = torch.rand(w.shape) < density
    y = masked(x, w, mask, b)
    grad = torch.randn(y.shape)
    got = torch.autograd.grad(y, (x, w, b), grad)
    want = torch.autograd.grad(F.linear(x, w * mask, b), (x, w, b), grad)
    torch.testing.assert_close(y, F.linear(x, w * mask, b))
    for a, e in zip(got, want, strict=True):
        torch.testing.assert_close(a, e)


def test_gradcheck():
    x, w, b = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((2, 3, 5), (4, 5), (4,)))
    mask = torch.rand(4, 5) > 0.5
    assert torch.autograd.gradcheck(lambda *t: masked(t[0], t[1], mask, t[2]), (x, w, b))


def test_a_masked_infinity_does_not_leak():
    w = torch.ones(2, 3)
    w[0, 1] = float("inf")
    assert masked(torch.zeros(1, 3), w, w.isfinite()).isfinite().all()


def test_regrow_gives_the_dense_gradient():
    x, w, mask = torch.randn(6, 5), torch.randn(4, 5, requires_grad=True), torch.rand(4, 5) > 0.5
    grad = torch.autograd.grad(masked(x, w, mask, regrow=True).sum(), w)[0]
    torch.testing.assert_close(grad, x.sum(0).expand(4, 5))


def test_autocast_like_a_linear_layer():
    x, w, mask = torch.randn(6, 5), torch.randn(4, 5, requires_grad=True), torch.rand(4, 5) > 0.5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = masked(x, w, mask)
        assert y.dtype == torch.bfloat16
        assert_within_rounding(y, F.linear(x, w * mask), 1)
    y.float().sum().backward()
    assert w.grad.dtype == torch.float32


def test_a_weight_of_higher_precision_is_rounded_and_its_gradient_is_not():
    x, w, mask = torch.randn(6, 5).bfloat16(), torch.randn(4, 5, requires_grad=True), torch.rand(4, 5) > 0.5
    y = masked(x, w, mask)
    assert y.dtype == torch.bfloat16
    assert_within_rounding(y, F.linear(x, (w * mask).bfloat16()), 1)
    (grad,) = torch.autograd.grad(y.sum(), w)
    assert grad.dtype == torch.float32 and not grad[~mask].any()


def test_tiles_pass_through_autograd_vmap_and_compile():
    x, w, mask = torch.randn(3, 6, 5), torch.randn(4, 5, requires_grad=True), torch.rand(4, 5) > 0.5
    tiles = BlockIndex.from_mask(mask).tensors()

    def run(x, w, tiles):
        return call("masked_linear", x, w, mask, None, False, tiles)

    expected = run(x, w, None)
    (wanted,) = torch.autograd.grad(expected.sum(), w)
    batched = torch.func.vmap(lambda row: run(row, w, tiles))(x)
    slope = torch.func.grad(lambda w: run(x, w, tiles).sum())(w)
    for y in (run(x, w, tiles), torch.ops.sparseq.masked_linear(x, w, mask, None, False, tiles), batched):
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(torch.autograd.grad(y.sum(), w)[0], wanted)
    torch.testing.assert_close(slope, wanted)
    torch._dynamo.reset()
    y = torch.compile(run, fullgraph=True, backend="aot_eager")(x, w, tiles)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), w)[0], wanted)
