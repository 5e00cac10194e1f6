import itertools

import pytest
import torch
from samples import call

from sparseq_kernels import InputError, quantize_rows, use_backend
from sparseq_kernels.backends import runnable

pytestmark = pytest.mark.processor

OPS = torch.ops.sparseq


def qat(x, w, b=None, mask=None, ws=None, xs=None, bits=8, input_bits=8, out=None, regrow=False):
    return call("qat_linear", x, w, b, mask, ws, xs, bits, input_bits, out, regrow)


def fake(x, scale, bits, clips):
    """Quantized and dequantized by the formula, differentiable as straight-through and LSQ say."""
    limit = 2 ** (bits - 1) - 1
    v = x / scale
    clipped = v.clamp(-limit, limit) if clips else v
    rounded = clipped + (clipped.round() - clipped).detach()
    return rounded * scale


def expected(x, w, b, mask, ws, xs, bits, input_bits):
    kept = w if mask is None else w * mask
    channels = ws.unsqueeze(-1) if ws is not None else kept.detach().abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    rows = xs if xs is not None else x.detach().abs().amax(-1, keepdim=True) / (2 ** (input_bits - 1) - 1)
    y = fake(x, rows, input_bits, xs is not None) @ fake(kept, channels, bits, ws is not None).t()
    return y if b is None else y + b


CASES = list(itertools.product([(4, 8), (8, 8), (16, 16)], [False, True], [False, True], [False, True]))


@pytest.mark.parametrize("backend", runnable())
@pytest.mark.parametrize("bits,masked,learned,static", CASES)
def test_forward_and_every_gradient_against_fp64(backend, bits, masked, learned, static):
    torch.manual_seed(0)
    x, w, b = torch.randn(2, 7, 33), torch.randn(13, 33), torch.randn(13)
    mask = torch.rand(13, 33) > 0.4 if masked else None
    ws = torch.rand(13) * 0.3 + 0.3 if bits[0] == 4 else torch.rand(13) * 0.01 + 0.01
    xs = torch.tensor([0.015 if bits[1] == 8 else 6e-5])
    tensors = [x, w, b, *([ws] if learned else []), *([xs] if static else [])]
    single = [t.clone().requires_grad_() for t in tensors]
    double = [t.double().requires_grad_() for t in tensors]

    def split(ts):
        rest = list(ts[3:])
        return (*ts[:3], rest.pop(0) if learned else None, rest.pop(0) if static else None)

    xi, wi, bi, wsi, xsi = split(single)
    with use_backend(backend):
        y = qat(xi, wi, bi, mask, wsi, xsi, *bits)
        grad = torch.randn(y.shape)
        y.backward(grad)
    xd, wd, bd, wsd, xsd = split(double)
    y_ref = expected(xd, wd, bd, mask, wsd, xsd, *bits)
    y_ref.backward(grad.double())
    torch.testing.assert_close(y.double(), y_ref, rtol=1e-4, atol=1e-4)
    for name, a, d in zip(("x", "weight", "bias"), single, double, strict=False):
        torch.testing.assert_close(a.grad.double(), d.grad, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    limit = 2 ** (bits[0] - 1) - 1
    if learned:
        torch.testing.assert_close(wsi.grad.double(), wsd.grad * (33 * limit) ** -0.5, rtol=1e-3, atol=1e-3)
    if static:
        factor = (33 * (2 ** (bits[1] - 1) - 1)) ** -0.5
        torch.testing.assert_close(xsi.grad.double(), xsd.grad * factor, rtol=1e-3, atol=1e-3)
    if masked:
        assert not wi.grad[~mask].any()


def test_the_forward_runs_on_the_packed_layers_integers():
    x, w, b = torch.randn(9, 31), torch.randn(11, 31), torch.randn(11)
    q, scale = OPS.quantize_rows(w)
    assert torch.equal(qat(x, w, b), OPS.int8_linear(x, q, scale, b))


@pytest.mark.parametrize("backend", runnable())
@pytest.mark.parametrize("shape", [(5, 7, 33), (4, 33), (33,), (0, 33)], ids=str)
@pytest.mark.parametrize("learned", [False, True])
def test_integers_that_were_found_before_are_used(backend, shape, learned):
    x, w, b = torch.randn(shape), torch.randn(13, 33), torch.randn(13)
    scale = torch.rand(13) if learned else None
    mask = torch.rand(13, 33) > 0.5

    def results(*given):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, w, b)]
        y = OPS.qat_linear(*leaves, mask, scale, None, 8, 8, None, False, None, *given)[0]
        return [y, *torch.autograd.grad(y.sum(), leaves)]

    with use_backend(backend):
        q, s = quantize_rows(x)
        for found, right in zip(results(q, s), results(), strict=True):
            assert torch.equal(found, right)
        others = results(torch.zeros_like(q), s)
    assert torch.equal(others[0], b.expand(*shape[:-1], 13))


def test_integers_that_are_not_of_this_input_are_refused():
    x, w = torch.randn(5, 8), torch.randn(4, 8)
    q, s = quantize_rows(x)
    for given in ((q, None), (None, s), (q[1:], s), (q, s[1:]), (q.short(), s), (q, s.double())):
        with pytest.raises(InputError, match="as quantize_rows"):
            call("qat_linear", x, w, None, None, None, None, 8, 8, None, False, None, *given)
    for settings in ((torch.ones(1), 8, 8), (None, 8, 16), (None, 16, 8)):
        with pytest.raises(InputError, match="scales by row and up to 8 bits"):
            call("qat_linear", x, w, None, None, None, *settings, None, False, None, q, s)


def test_backends_agree_bit_for_bit():
    x, w, b, mask = torch.randn(37, 63), torch.randn(41, 63), torch.randn(41), torch.rand(41, 63) > 0.5
    results = []
    for name in runnable():
        with use_backend(name):
            results.append(qat(x, w, b, mask))
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_regrow_gives_masked_weights_the_dense_gradient():
    x, w, mask = torch.randn(5, 8), torch.randn(4, 8, requires_grad=True), torch.rand(4, 8) > 0.5
    qat(x, w, mask=mask, regrow=True).sum().backward()
    dense = w.grad.clone()
    w.grad = None
    qat(x, w, mask=mask).sum().backward()
    assert dense[~mask].any() and torch.equal(dense * mask, w.grad)


def test_only_the_gradients_that_are_needed():
    x, w = torch.randn(5, 8), torch.randn(4, 8, requires_grad=True)
    qat(x, w).sum().backward()
    assert w.grad is not None and x.grad is None
    x.requires_grad_()
    qat(x, w.detach()).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("shape", [(0, 5), (3, 0, 5), (1, 5)])
def test_empty_batches_go_forward_and_backward(shape):
    x, w, b = torch.randn(shape, requires_grad=True), torch.randn(4, 5, requires_grad=True), torch.randn(4)
    y = qat(x, w, b)
    y.sum().backward()
    assert y.shape == (*shape[:-1], 4) and x.grad.shape == x.shape and w.grad.shape == w.shape


def test_a_fully_masked_layer_gives_its_bias():
    x, w, b = torch.randn(6, 5), torch.randn(4, 5), torch.randn(4)
    assert torch.equal(qat(x, w, b, torch.zeros(4, 5, dtype=torch.bool)), b.expand(6, 4))


def test_gradcheck_of_the_smooth_part():
    """y is linear in the bias, and in the other operand once both are quantized: fp64, against finite differences."""
    x, w = torch.randn(3, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    b = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda bias: qat(x, w, bias), (b,))
    xs, ws = torch.tensor([0.01], dtype=torch.float64), torch.full((4,), 0.01, dtype=torch.float64)
    rounding_x, rounding_w = (OPS.fake_quant(t, s, 16) - t for t, s in ((x, xs), (w, ws.unsqueeze(1))))

    class Smooth(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, w):
            ctx.save_for_backward(x, w)
            return (x + rounding_x) @ (w + rounding_w).t()

        @staticmethod
        def backward(ctx, grad):
            x0, w0 = ctx.saved_tensors
            settings = (16, 16, torch.float64, False, [True, True, False, False, False])
            return OPS.qat_linear_backward(grad, x0, w0, None, ws, xs, [], *settings)[:2]

    operands = (x.clone().requires_grad_(), w.clone().requires_grad_())
    # The step is far below the quantization step, so that no operand changes its level.
    assert torch.autograd.gradcheck(Smooth.apply, operands, eps=1e-9, atol=1e-5, nondet_tol=0)


def test_autocast_sets_the_outputs_precision_only():
    x, w = torch.randn(5, 8), torch.randn(4, 8, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = qat(x, w)
    assert y.dtype == torch.bfloat16 and torch.equal(y, qat(x, w).bfloat16())
    y.float().sum().backward()
    assert w.grad.dtype == torch.float32


def test_func_transforms():
    x, w, b = torch.randn(3, 6, 5), torch.randn(4, 5, requires_grad=True), torch.randn(4)

    def loss(weight, inputs):
        return (qat(inputs, weight, b) ** 2).sum()

    one_by_one = []
    for sample in x:
        w.grad = None
        loss(w, sample).backward()
        one_by_one.append(w.grad)
    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(w.detach(), x)
    torch.testing.assert_close(per_sample, torch.stack(one_by_one))
