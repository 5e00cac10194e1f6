"""fake_quant in Triton: the reference's values and gradients to the bit, and the scale's gradient as fp64 has it."""

import pytest
import torch
from far_memory import far_rows
from gpu_or_interpreter import DEVICE, FLOATS, TOLERANCE, both, randn, same
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import sparseq_kernels
from sparseq_kernels import use_backend
from sparseq_kernels.numerics import CLIP_TOLERANCE
from sparseq_kernels.reference.fake_quant import clip_and_slope, lsq_gradient_scale, sum_to
from sparseq_kernels.triton.fake_quant import _tiling, fake_quant

OPS = torch.ops.sparseq
SHAPES = [
    ((), ()),
    ((1,), (1,)),
    ((5, 7), ()),
    ((5, 577), (5, 1)),
    ((63, 9), (9,)),
    ((6, 9), (6, 9)),
    ((9, 1), (9, 1)),
    ((3, 2500), (3, 1)),
    ((2, 3, 4, 5), (3, 1, 1)),
    ((2, 3, 4, 5), (1, 3, 4, 1)),
    ((2, 3, 4, 5), (4, 5)),
    ((2, 3, 4, 5), (2, 1, 4, 1)),
    ((2, 3, 1, 5), (2, 1, 1, 5)),
    ((0, 4), (4,)),
    ((4, 0), (4, 1)),
    ((0, 3), ()),
]


def positive(*shape, seed=5):
    return randn(*shape, seed=seed).abs() * 0.2 + 0.05


def values_agree(found, expected):
    if found.dtype is torch.bfloat16 and DEVICE == "cpu":
        torch.testing.assert_close(found, expected, rtol=TOLERANCE[found.dtype], atol=0, equal_nan=True)
        return True
    # Adding to a number tells 0 from -0.
    return same(found, expected) and same(found.signbit() & ~found.isnan(), expected.signbit() & ~expected.isnan())


def check_backward(grad, x, scale, bits):
    (expected_x, expected_scale), (grad_x, grad_scale) = both("fake_quant_backward", grad, x, scale, bits)
    assert values_agree(grad_x, expected_x)
    terms = grad.double() * clip_and_slope(x, scale, bits)[1].double()
    factor = lsq_gradient_scale(x.numel(), scale.numel(), bits)
    wanted, size = sum_to(terms, scale) * factor, sum_to(terms.abs(), scale) * factor
    assert grad_scale.dtype == scale.dtype and grad_scale.shape == scale.shape == expected_scale.shape
    known = wanted.isfinite()
    assert torch.equal(grad_scale.isfinite(), known)
    off = (grad_scale.double() - wanted).abs()[known]
    assert off.le(size[known] * 1e-6 + wanted.abs()[known] * TOLERANCE[scale.dtype]).all()


def check(x, scale, bits, grad=None):
    expected, found = both("fake_quant", x, scale, bits)
    assert values_agree(found, expected)
    check_backward(randn(*x.shape, seed=7, dtype=x.dtype) if grad is None else grad, x, scale, bits)


@pytest.mark.parametrize("shape,scale_shape", SHAPES)
def test_scales_of_any_shape(shape, scale_shape):
    check(randn(*shape), positive(*scale_shape), 4)


def test_rows_without_end_are_not_counted_in_32_bits():
    assert [_tiling((n, 2**12, 2), (2**12, 1), True).by for n in (2**18, 2**19)] == ["cycle", "column"]
    assert _tiling((2**19, 2**12, 2), (2**12, 1), True).expanded and _tiling((2**20, 2**12, 2), (), False).B == 1


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("scale_dtype", FLOATS)
def test_types(dtype, scale_dtype):
    check(randn(5, 70, dtype=dtype), positive(5, 1).to(scale_dtype), 4)
    # The gradient has its own type.
    check(randn(5, 70, dtype=dtype), positive(70).to(scale_dtype), 4, randn(5, 70, seed=3))


@pytest.mark.parametrize("bits", range(2, 17))
def test_every_width(bits):
    check(randn(5, 40) * 3, positive(5, 1) * 8 / 2**bits, bits)


def test_doubles_are_the_references():
    x, scale = randn(5, 7), positive(7)
    for args in ((x.double(), scale), (x, scale.double())):
        expected, found = both("fake_quant", *args, 8)
        assert torch.equal(found, expected) and found.dtype == args[0].dtype


@pytest.mark.parametrize("step", [1.0, 2.0**-20, -(2.0**-3)])
def test_ties_round_to_even(step):
    x = (torch.arange(-260, 261) / 2 * step).to(DEVICE)
    check(x, torch.tensor([step], device=DEVICE), 8)
    with use_backend("triton"):
        y = OPS.fake_quant(x, torch.tensor(step, device=DEVICE), 8)
    # Python's round() is to even.
    assert (y / step).tolist() == [max(-127, min(127, round(i / 2))) for i in range(-260, 261)]


def test_the_edge_of_the_clip_range():
    edge = torch.tensor([7.0 * CLIP_TOLERANCE])
    around = [edge.nextafter(torch.tensor([9.0 * side])) for side in (-1, 1)]
    x = torch.cat([torch.tensor([6.5, 7.0, 7.4, 7.5]), edge, *around]).to(DEVICE)
    check(torch.cat([x, -x]), torch.ones((), device=DEVICE), 4)


def test_numbers_that_are_none_and_scales_that_are_odd():
    inf, nan = float("inf"), float("nan")
    x = torch.tensor([0.0, -0.0, -1e-9, 1e-45, -1e-40, 0.3, -77.0, 1e30, inf, -inf, nan], device=DEVICE)
    scales = torch.tensor([0.0, -0.1, 0.1, 1e-45, 1e-38, 3e38, inf, nan], device=DEVICE)
    check(x.expand(8, -1), scales.unsqueeze(1), 8)
    check(x.unsqueeze(1).expand(-1, 8), scales, 8)
    # Outside the range a gradient is multiplied by zero.
    grad = torch.tensor([inf, -inf, nan, -2.0, inf], device=DEVICE)
    check(torch.tensor([9.0, -9.0, 9.0, 9.0, 0.1], device=DEVICE), torch.tensor(0.5, device=DEVICE), 4, grad)


def test_nothing_beyond_the_last_row_or_column_is_summed():
    # 0 * (1 / 0) is NaN, in the lanes without a value too.
    x, scale = torch.ones(3, 5, device=DEVICE), torch.zeros(5, device=DEVICE)
    for s in (scale, scale[:3].unsqueeze(1), scale[0]):
        check(x, s, 8)


@pytest.mark.memcheck
def test_other_layouts():
    x, grad = randn(6, 5, 14), randn(6, 5, 14, seed=1)
    views = [
        lambda t: t[0].t(),
        lambda t: t[:, 1],
        lambda t: t[::2, :, 3],
        lambda t: t[:, 0, :9],
        lambda t: t[0, :, 1::2],
    ]
    for view in views:
        M, K = view(x).shape
        for scale in (positive(), positive(M, 1), positive(K), positive(K, M).t(), positive(1).expand(M, 1)):
            check(view(x), scale, 4, view(grad))
            check(view(x), scale, 4, view(grad).contiguous())
            check(view(x).contiguous(), scale, 4, grad[:1, :1, :1].view(1, 1).expand(M, K))
    moved = x.permute(2, 0, 1)
    check(moved, positive(6, 1), 4, grad.permute(2, 0, 1))
    check(moved, positive(14, 1, 5), 4, grad[0].expand(6, 5, 14).permute(2, 0, 1))
    check(x[:, :1].expand(6, 5, 14), positive(14), 4)


@pytest.mark.parametrize("columns", [1, pytest.param(3, marks=pytest.mark.memcheck), 130])
def test_a_column_longer_than_its_programs_share(columns):
    x, scale = randn(5000 if columns < 9 else 389, columns), positive(columns)
    check(x, scale, 4)
    with use_backend("triton"):
        first, second = (OPS.fake_quant_backward(x, x, scale, 4)[1] for _ in range(2))
    assert torch.equal(first, second)


def test_rows_and_columns_far_apart():
    memory = far_rows(40, torch.float16)
    memory.copy_(randn(3, 40))
    for x, scale in ((memory, positive(3, 1)), (memory.t(), positive(3)), (memory.t(), positive(40, 1))):
        check(x, scale, 4, x)
        check(x, scale, 4)


class _Storages(TorchDispatchMode):
    """The bytes of each storage that appears while it is on."""

    def __init__(self, *known):
        super().__init__()
        self.known, self.new = {t.untyped_storage().data_ptr() for t in known}, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for t in result if isinstance(result, tuple | list) else [result]:
            if isinstance(t, torch.Tensor) and t.untyped_storage().data_ptr() not in self.known:
                self.new[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return result


def test_the_forward_allocates_its_output_alone():
    x = randn(64, 80)
    for view in (x, x.t(), x[:, :50], x[::2], x[:, :1].expand(64, 80)):
        for scale in (positive(), positive(len(view), 1), positive(view.shape[1])):
            # Not through the op, inside which a dispatch mode sees nothing.
            with _Storages(x, scale) as seen:
                y = fake_quant(view, scale, 8)
            assert sum(seen.new.values()) == y.untyped_storage().nbytes() == 4 * view.numel()


def test_through_autograd():
    x, scale = randn(5, 12).requires_grad_(), positive(5, 1).requires_grad_()
    with use_backend("triton"):
        sparseq_kernels.fake_quant(x, scale, 4).sum().backward()
    found = x.grad, scale.grad
    with use_backend("reference"):
        expected = torch.autograd.grad(sparseq_kernels.fake_quant(x, scale, 4).sum(), (x, scale))
    assert same(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_shape_layout_and_bits(data):
    shape = data.draw(st.lists(st.integers(0, 6), max_size=4))
    scale_shape = [data.draw(st.sampled_from((1, n))) for n in shape[data.draw(st.integers(0, len(shape))) :]]
    order = data.draw(st.permutations(range(len(shape))))
    seed, bits = data.draw(st.integers(0, 2**31)), data.draw(st.integers(2, 16))
    dtype, back = data.draw(st.sampled_from(FLOATS)), sorted(range(len(shape)), key=order.__getitem__)
    # Dimensions in memory in another order than in the shape.
    x = randn(*(shape[i] for i in order), seed=seed, dtype=dtype).permute(back)
    assert list(x.shape) == shape
    check(x, positive(*scale_shape, seed=seed), bits)
