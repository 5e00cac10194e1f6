"""Native code's products of gradients with integers against fp64: for every shape, instruction set and team."""

import pytest
import torch
from cpu_backends import NATIVE

from sparseq_kernels.cpu import native

pytestmark = [
    pytest.mark.skipif(not NATIVE, reason="there is no native code here"),
    pytest.mark.usefixtures("every_set", "threads"),
]
# Rows, outputs and inputs: few and many, no whole tiles or panels, more than one part of the depth.
SHAPES = [
    *[(1, 1, 1), (1, 40, 70), (2, 3, 1), (3, 1, 5), (7, 16, 32), (13, 6, 33), (33, 17, 65), (100, 97, 16)],
    *[(1030, 1, 6), (1500, 7, 20), (5, 1100, 40), (600, 130, 3)],
]
# Of sums of so many fp32 products.
TOLERANCE = 2e-6


def operands(rows, outputs, inputs):
    random = torch.Generator().manual_seed(rows * outputs + inputs)
    grad = torch.randn(rows, outputs, generator=random)
    x, w = (torch.randint(-128, 128, (n, inputs), dtype=torch.int8, generator=random) for n in (rows, outputs))
    return grad, x, torch.rand(rows, generator=random), w, torch.rand(outputs, generator=random)


def products(grad, x, x_scale, w, w_scale):
    return native.product_with_weight(grad, w, w_scale), *native.product_with_inputs(grad, x, x_scale)


def in_fp64(grad, x, x_scale, w, w_scale):
    g = grad.double()
    of_x = (w_scale.double().unsqueeze(1) * w, x_scale.double().unsqueeze(1) * x)
    return g @ of_x[0], g.t() @ of_x[1], g.sum(0)


def magnitudes(grad, x, x_scale, w, w_scale):
    """The sums of magnitudes, to which an error of rounding is proportional."""
    return in_fp64(grad.abs(), x.int().abs(), x_scale, w.int().abs(), w_scale)


@pytest.mark.parametrize("shape", SHAPES)
def test_products_are_those_of_fp64(shape):
    given = operands(*shape)
    for found, expected, size in zip(products(*given), in_fp64(*given), magnitudes(*given), strict=True):
        assert found.dtype == torch.float32 and found.shape == expected.shape
        assert ((found - expected).abs() <= TOLERANCE * size).all()


@pytest.mark.parametrize("shape", [(700, 96, 130), (40, 400, 64), (1200, 2, 200), (64, 1200, 20)])
def test_threads_give_the_same_bits(shape):
    given = operands(*shape)
    torch.set_num_threads(1)
    expected = products(*given)
    for count in (2, 3, 5):
        torch.set_num_threads(count)
        assert all(map(torch.equal, products(*given), expected)), count


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0)])
def test_without_rows_outputs_or_inputs(shape):
    given = operands(*shape)
    for found, expected in zip(products(*given), in_fp64(*given), strict=True):
        torch.testing.assert_close(found, expected.float())


def test_other_strides():
    grad, x, x_scale, w, w_scale = operands(20, 12, 30)
    expected = products(grad, x, x_scale, w, w_scale)
    found = products(grad.t().contiguous().t(), x.t().contiguous().t(), x_scale, w.t().contiguous().t(), w_scale)
    assert all(map(torch.equal, found, expected))


def test_what_is_not_finite_reaches_only_what_it_is_part_of():
    grad, x, x_scale, w, w_scale = operands(9, 40, 33)
    grad[2, 7], x_scale[5], w_scale[:] = float("inf"), float("nan"), 1.0
    of_x, of_w, of_bias = products(grad, x, x_scale, w, w_scale)
    assert of_x.isfinite().all(1).tolist() == [row != 2 for row in range(9)]
    assert of_w.isnan().all()
    assert of_bias.isinf().tolist() == [column == 7 for column in range(40)]
