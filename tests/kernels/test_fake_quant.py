import pytest
import torch

from sparseq_kernels import InputError, fake_quant, use_backend
from sparseq_kernels.backends import runnable
from sparseq_kernels.numerics import row_max, scale_from_max

OPS = torch.ops.sparseq


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("scale_shape", [(), (1,), (6, 1), (6, 9)])
def test_values_against_the_formula_in_fp64(bits, scale_shape):
    x, scale = torch.randn(6, 9, dtype=torch.float64) * 3, torch.rand(scale_shape, dtype=torch.float64) + 0.01
    limit = 2 ** (bits - 1) - 1
    expected = (x / scale).round().clamp(-limit, limit) * scale
    torch.testing.assert_close(OPS.fake_quant(x, scale, bits), expected, rtol=1e-12, atol=1e-12)


def surrogate(x, scale, rounding, limit):
    """What straight-through and LSQ differentiate: rounding is a constant added to v = x / scale inside the range."""
    v = x / scale
    return (
        scale * (v + rounding).clamp(-limit, limit) if rounding is None else scale * (v.clamp(-limit, limit) + rounding)
    )


@pytest.mark.parametrize("scale_shape", [(), (6, 1)])
def test_gradients_are_those_of_the_smooth_surrogate(scale_shape):
    limit, factor = 7, None
    x = (torch.randn(6, 9, dtype=torch.float64) * 3).requires_grad_()
    scale = (torch.rand(scale_shape, dtype=torch.float64) * 0.3 + 0.2).requires_grad_()
    v = (x / scale).detach()
    assert (v.abs() > limit).any() and (v.abs() < limit).any()
    rounding = torch.where(v.abs() <= limit, v.round() - v, torch.zeros_like(v))
    factor = (x.numel() // scale.numel() * limit) ** -0.5

    class Smooth(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, scale):
            ctx.save_for_backward(x, scale)
            return surrogate(x, scale, rounding, limit)

        @staticmethod
        def backward(ctx, grad):
            dx, ds = OPS.fake_quant_backward(grad, *ctx.saved_tensors, 4)
            return dx, ds / factor

    assert torch.autograd.gradcheck(Smooth.apply, (x, scale), eps=1e-7, atol=1e-5)


@pytest.mark.processor
@pytest.mark.parametrize("backend", runnable())
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("shape", [(2, 5, 33), (7, 33), (33,), (0, 33), (3, 0)], ids=str)
def test_scales_of_the_rows_are_those_of_their_maxima(backend, dtype, bits, shape):
    x = torch.randn(shape).to(dtype)
    if x.dim() > 1 and x.numel():
        x[..., 1, :], x[..., 2, 0], x[..., 3, 0] = 0, float("nan"), float("inf")
    given = [x.clone().requires_grad_() for _ in range(2)]
    with use_backend(backend):
        found = fake_quant(given[0], None, bits)
        assert found.dtype == dtype and found.shape == shape
        expected = fake_quant(given[1], scale_from_max(row_max(x), bits).unsqueeze(-1), bits)
        assert torch.equal(found.nan_to_num(nan=-1.0), expected.nan_to_num(nan=-1.0))
        found.backward(torch.ones_like(found))
        expected.backward(torch.ones_like(found))
    finite = x.isfinite().all(-1)
    assert torch.equal(given[0].grad[finite], given[1].grad[finite])


def test_scales_of_the_rows_of_a_scalar_are_refused():
    with pytest.raises(InputError, match="at least one dimension"):
        fake_quant(torch.ones(()))


def test_lsq_gradient_by_hand():
    x = torch.tensor([0.6, 1.0, -20.0, 20.0], requires_grad=True)
    scale = torch.tensor(1.0, requires_grad=True)
    OPS.fake_quant(x, scale, 4).sum().backward()
    assert x.grad.tolist() == [1, 1, 0, 0]
    # (round(v) - v) inside, -7 and +7 outside, over sqrt(4 values x 7 levels).
    assert scale.grad.item() == pytest.approx((0.4 + 0 - 7 + 7) / 28**0.5, abs=1e-6)


def test_the_maximum_itself_is_not_clipped():
    x = torch.randn(100, 33, requires_grad=True)
    scale = x.detach().abs().amax(1, keepdim=True) / 127
    OPS.fake_quant(x, scale, 8).sum().backward()
    assert x.grad.eq(1).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_input_keeps_its_dtype(dtype):
    x = torch.randn(4, 8).to(dtype).requires_grad_()
    y = OPS.fake_quant(x, torch.tensor(0.05), 8)
    y.sum().backward()
    assert y.dtype == dtype and x.grad.dtype == dtype
