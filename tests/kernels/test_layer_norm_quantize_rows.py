import pytest
import torch
import torch.nn.functional as F
from cpu_backends import CPU_BACKENDS, on

from sparseq_kernels import InputError, layer_norm_quantize_rows

OP = torch.ops.sparseq.layer_norm_quantize_rows


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.fixture(params=CPU_BACKENDS, autouse=True)
def backend(request):
    with on(request.param):
        yield request.param


@pytest.mark.parametrize("shape", [(1, 3), (5, 7), (63, 577), (2, 3, 5), (859,), (0, 4), (4, 0)])
@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("residual", [True, False])
def test_against_the_formula_in_fp64(shape, bits, residual):
    x, weight, bias = draw(*shape), draw(shape[-1], seed=1), draw(shape[-1], seed=2)
    added = draw(*shape, seed=3) if residual else None
    q, scale, y = OP(x, added, weight, bias, 1e-5, bits)
    assert q.shape == y.shape == shape and scale.shape == shape[:-1]
    assert (q.dtype, scale.dtype, y.dtype) == (torch.int16 if bits == 16 else torch.int8, x.dtype, x.dtype)
    total = x.double() if added is None else x.double() + added.double()
    off = total - total.mean(-1, keepdim=True)
    exact = off / (off.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight + bias
    torch.testing.assert_close(y.double(), exact, rtol=1e-5, atol=1e-5)
    if y.numel():
        limit = 2 ** (bits - 1) - 1
        torch.testing.assert_close(scale, y.abs().amax(-1) / limit)
        assert (q * scale.double().unsqueeze(-1) - y).abs().div(scale.unsqueeze(-1)).max() <= 0.5 + 1e-6 * limit


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_the_integers_are_those_of_the_y_that_leaves(dtype):
    x, residual = draw(9, 40, dtype=dtype), draw(9, 40, seed=1, dtype=dtype)
    q, scale, y = OP(x, residual, draw(40, seed=2), draw(40, seed=3))
    right = torch.ops.sparseq.quantize_rows(y)
    assert y.dtype == dtype and torch.equal(q, right[0]) and torch.equal(scale, right[1])
    exact = F.layer_norm(
        x.double() + residual.double(), (40,), draw(40, seed=2).double(), draw(40, seed=3).double(), 1e-12
    )
    torch.testing.assert_close(y, exact.to(dtype))


def test_rows_do_not_touch_one_another():
    x, weight, bias = draw(4, 9), draw(9, seed=1), draw(9, seed=2)
    before = OP(x, None, weight, bias)
    x[1, 3], x[2] = float("nan"), 0
    q, scale, y = OP(x, None, weight, bias)
    assert scale.isnan().tolist() == [False, True, False, False] and y[1].isnan().all() and not q[1].any()
    assert torch.equal(y[2], bias)
    assert all(torch.equal(a[[0, 3]], b[[0, 3]]) for a, b in zip(before, (q, scale, y), strict=True))


def test_other_layouts():
    x, residual, weight = draw(7, 5).t(), draw(5, 14, seed=1)[:, ::2], draw(7, 2, seed=2)
    found = OP(x, residual, weight[:, 0], weight[:, 1])
    expected = OP(x.contiguous(), residual.contiguous(), weight[:, 0].contiguous(), weight[:, 1].contiguous())
    torch.testing.assert_close(found[2], expected[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("shape", [(7, 5), (1, 32), (3, 48), (2, 3, 16), (0, 4)])
def test_the_typed_function_gives_what_the_op_gives(shape, dtype):
    args = (
        draw(*shape, dtype=dtype),
        draw(*shape, seed=1, dtype=dtype),
        draw(shape[-1], seed=2),
        draw(shape[-1], seed=3),
    )
    for given in (args, (args[0].transpose(0, -1).contiguous().transpose(0, -1), *args[1:])):
        found, expected = layer_norm_quantize_rows(*given, 1e-5), OP(*given, 1e-5)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("change", [{"weight": None}, {"bits": 1}, {"bits": 17}, {"eps": -1.0}, {"bias": draw(8)}])
def test_the_typed_function_refuses_what_the_op_refuses(change):
    args = {"x": draw(4, 9), "residual": None, "weight": draw(9), "bias": draw(9)} | change
    with pytest.raises(InputError):
        layer_norm_quantize_rows(**args)


def test_no_argument_is_written_or_returned():
    args = draw(4, 9), draw(4, 9, seed=1), draw(9, seed=2), draw(9, seed=3)
    copies = [a.clone() for a in args]
    results = OP(*args)
    assert all(torch.equal(a, b) for a, b in zip(args, copies, strict=True))
    assert len({t.untyped_storage().data_ptr() for t in (*args, *results)}) == 7


@pytest.mark.parametrize(
    "change,sentence",
    [
        ({"residual": draw(4, 8)}, r"residual must have the shape \(4, 9\), not \(4, 8\)"),
        ({"residual": draw(9)}, r"residual must have the shape \(4, 9\), not \(9,\)"),
        ({"weight": draw(8)}, r"weight must have the shape \(9,\), not \(8,\)"),
        ({"bias": draw(4, 9)}, r"bias must have the shape \(9,\), not \(4, 9\)"),
    ],
)
def test_what_does_not_fit_is_refused(change, sentence):
    args = {"x": draw(4, 9), "residual": None, "weight": draw(9), "bias": draw(9)} | change
    with pytest.raises(InputError, match=f"layer_norm_quantize_rows: {sentence}"):
        OP(**args)
