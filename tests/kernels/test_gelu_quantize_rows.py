import math

import pytest
import torch
import torch.nn.functional as F
from cpu_backends import CPU_BACKENDS, on

from sparseq_kernels import InputError

OP = torch.ops.sparseq.gelu_quantize_rows


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.fixture(params=CPU_BACKENDS, autouse=True)
def backend(request):
    with on(request.param):
        yield request.param


def formula(x, approximate):
    if approximate == "none":
        return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (63, 577), (2, 3, 5), (859,), (0, 4), (4, 0)])
@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_against_the_formula_in_fp64(shape, bits, approximate):
    x = draw(*shape) * 3
    q, scale = OP(x, approximate, bits)
    assert q.shape == shape and scale.shape == shape[:-1]
    assert (q.dtype, scale.dtype) == (torch.int16 if bits == 16 else torch.int8, torch.float32)
    if x.numel():
        y, limit = formula(x.double(), approximate), 2 ** (bits - 1) - 1
        torch.testing.assert_close(scale.double(), y.abs().amax(-1) / limit, rtol=1e-5, atol=0)
        assert (q * scale.double().unsqueeze(-1) - y).abs().div(scale.unsqueeze(-1)).max() <= 0.5 + 1e-5 * limit


def test_gelu_is_within_a_millionth_of_x():
    """The scale of a row of one value is that value over 127."""
    x = torch.linspace(-9, 9, 20001).unsqueeze(1)
    _, scale = OP(x)
    y = formula(x.double(), "none").squeeze(1)
    seen = y.abs() > 1e-6  # Where torch's own rounds to zero, the scale is 1.
    errors = (127 * scale.double() - y.abs()).abs() / x.squeeze(1).abs()
    assert errors[seen].max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_quantizes_gelu_as_it_would_be_stored(dtype, approximate, backend):
    x = draw(9, 40, dtype=dtype)
    wide = x if dtype == torch.float64 else x.float()
    right = torch.ops.sparseq.quantize_rows(F.gelu(wide, approximate=approximate).to(dtype))
    found = OP(x, approximate)
    if backend.startswith("native") and dtype == torch.float32 and approximate == "none":
        # By an error function of its own, which moves what lies between two integers.
        torch.testing.assert_close(found[1], right[1], rtol=1e-6, atol=0)
        assert (found[0].int() - right[0]).abs().max() <= 1 and (found[0] != right[0]).sum() <= 1
    else:
        assert all(torch.equal(a, b) for a, b in zip(found, right, strict=True))


def test_rows_do_not_touch_one_another():
    x = draw(4, 9)
    before = OP(x)
    x[1, 3], x[2] = float("nan"), 0
    q, scale = OP(x)
    assert scale.isnan().tolist() == [False, True, False, False] and not q[1:3].any() and scale[2] == 1
    assert all(torch.equal(a[[0, 3]], b[[0, 3]]) for a, b in zip(before, (q, scale), strict=True))


def test_other_layouts():
    x = draw(7, 10).t()[::2]
    (q, scale), (right, right_scale) = OP(x), OP(x.contiguous())
    # torch's erf differs in the last place where the values do not lie side by side.
    torch.testing.assert_close(scale, right_scale)
    assert (q.int() - right).abs().max() <= 1 and (q != right).sum() <= 1


def test_an_unknown_approximation_is_refused():
    with pytest.raises(InputError, match="gelu_quantize_rows: unknown approximation 'erf': use none, tanh"):
        OP(draw(4, 9), "erf")
