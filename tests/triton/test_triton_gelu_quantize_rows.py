import pytest
import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from gpu_or_interpreter import DEVICE, FLOATS, both, randn, same
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseq_kernels.reference.quantize_rows import quantize_rows
from sparseq_kernels.triton.kernels.numerics import activate
from sparseq_kernels.triton.quantize_rows import LONGEST
from sparseq_kernels.triton.runtime.launch import launch, on

ACTIVATIONS = {"none": "gelu", "tanh": "gelu_tanh"}


@triton.jit
def activate_kernel(x, y, n, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = activate(tl.load(x + at, mask=at < n, other=0.0).to(tl.float32), ACTIVATION)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=at < n)


def activated(x: torch.Tensor, approximate: str) -> torch.Tensor:
    """gelu(x) in x's dtype, by the arithmetic of the kernels."""
    x, y = x.contiguous(), torch.empty(x.shape, dtype=x.dtype, device=x.device)
    with on(x):
        grid = (triton.cdiv(x.numel(), 1024), 1, 1)
        launch(activate_kernel, grid, (x, y, x.numel()), (ACTIVATIONS[approximate], 1024), num_warps=4, num_stages=1)
    return y


def check(x: torch.Tensor, approximate: str, bits: int) -> None:
    expected, found = both("gelu_quantize_rows", x, approximate, bits)
    if x.numel() == 0:
        assert all(same(f, e) for f, e in zip(found, expected, strict=True))
        return
    y, right = activated(x, approximate), F.gelu(x.float(), approximate=approximate).to(x.dtype)
    assert all(same(f, q) for f, q in zip(found, quantize_rows(y, bits), strict=True))
    # The last places of y, in which erf, exp and (in the interpreter) bf16 may differ, turn few ties.
    ulp, cancelled = 4 * torch.finfo(x.dtype).eps, 1e-6
    most = ulp * right.abs().float() + cancelled * x.abs().float().clamp_min(1)
    assert ((y.float() - right.float()).abs() <= most).all()
    # Far below zero little is left of 1 + erf: where a row has nothing else, its scale means little.
    sound = right.abs().amax(-1) > 0.1 * x.abs().amax(-1)
    ulp += 10 * cancelled
    torch.testing.assert_close(found[1][sound], expected[1][sound], rtol=ulp, atol=0)
    off = (found[0].int() - expected[0].int()).abs()[sound]
    assert off.numel() == 0 or off.max() <= 1 + int(ulp * 2**bits)


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (3, 577), (2, 3, 63), (859,), (0, 4), (4, 0)])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_quantizes_gelu_as_it_would_be_stored(shape, dtype, approximate):
    check(randn(*shape, dtype=dtype) * 3, approximate, 8)


@pytest.mark.parametrize("bits", [2, 5, 9, 16])
def test_other_widths(bits):
    check(randn(6, 40), "none", bits)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_against_fp64(approximate):
    near = torch.linspace(-8, 8, 40_001, dtype=torch.float64)
    y = torch.cat([near, near * 1e-3, near * 1e3]).float().to(DEVICE)
    found, exact = activated(y, approximate).double(), F.gelu(y.double(), approximate=approximate)
    assert ((found - exact).abs() <= 1e-6 * y.abs().clamp_min(1)).all()
    # Where it is half of y or so it is right to some of fp32's last places.
    small = y.abs() < 0.5
    torch.testing.assert_close(found[small], exact[small], rtol=3e-6, atol=0)
    strange = torch.tensor([float("nan"), float("inf"), float("-inf")], device=DEVICE)
    found = activated(strange, approximate)
    assert found.isnan().tolist() == [True, False, True] and found[1] == float("inf")


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_levels_against_fp64(approximate):
    x = randn(4, 300) * 4
    y = F.gelu(x.double(), approximate=approximate)
    _, (q, scale) = both("gelu_quantize_rows", x, approximate, 8)
    torch.testing.assert_close(scale.double(), y.abs().amax(1) / 127, rtol=1e-6, atol=0)
    # Half a step, and what fp32 may add to it.
    assert (q * scale.double().unsqueeze(1) - y).abs().div(scale.unsqueeze(1)).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("place", [3, LONGEST])
def test_a_row_longer_than_a_program_holds(place):
    x = randn(2, LONGEST + 5)
    x[1, place] = 30.0
    check(x, "tanh", 8)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_far_from_zero_and_not_finite(approximate):
    x = torch.tensor([[-1e30, -200.0, -30.0, -0.0], [1e30, 2.0, 1.0, 0.0], [-300.0] * 4], device=DEVICE)
    check(x, approximate, 8)
    x = torch.cat([x, torch.tensor([[float("inf"), 1, 1, 1], [float("nan"), 1, 1, 1]], device=DEVICE)])
    _, (q, scale) = both("gelu_quantize_rows", x, approximate, 8)
    assert scale.isnan().tolist() == [False] * 3 + [True] * 2 and not q[3:].any() and q[1].tolist() == [127, 0, 0, 0]


@pytest.mark.memcheck
def test_other_layouts():
    x = randn(6, 5, 14)
    for view in (x[0].t(), x[:, :, :9], x[:, 2], x.permute(2, 0, 1)):
        check(view, "none", 8)


@settings(deadline=None, max_examples=15)
@given(
    st.integers(0, 9),
    st.integers(0, 70),
    st.integers(2, 16),
    st.integers(0, 2**31),
    st.sampled_from(FLOATS),
    st.sampled_from(["none", "tanh"]),
)
def test_any_shape_and_bits(rows, columns, bits, seed, dtype, approximate):
    check((randn(rows, columns, seed=seed) * 10.0 ** (seed % 5 - 3)).to(dtype), approximate, bits)
