"""A masked layer that leaves out the empty tiles of its mask: all three products, in any shape, by any mask."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from far_memory import far_rows
from gpu_or_interpreter import DEVICE, FLOATS, TOLERANCE, both, randn, same
from hypothesis import given, settings
from hypothesis import strategies as st
from masks import PATTERNS, lists, make_mask
from qat_layer import Layer, assert_gradients
from rounding import assert_within_rounding
from torch import Tensor

from sparseq_kernels import masked_linear, use_backend
from sparseq_kernels.block_index import BLOCK as TILE
from sparseq_kernels.reference.qat_linear import masked
from sparseq_kernels.reference.quantize_rows import quantize_rows
from sparseq_kernels.triton.block_products import masked_values
from sparseq_kernels.triton.runtime.gemm_config import GemmConfig, use_config

OPS = torch.ops.sparseq
SIZES = [1, 5, 7, 63, 64, 65, 130]


@pytest.fixture(autouse=True)
def _triton() -> Iterator[None]:
    with use_backend("triton"):
        yield


class Masked:
    """The inputs of one masked layer, with what is not to be seen where it is masked."""

    def __init__(
        self,
        M: int,
        N: int,
        K: int,
        mask: Tensor,
        dtype: torch.dtype = torch.float32,
        weight_dtype: torch.dtype | None = None,
    ) -> None:
        self.x, self.grad = randn(M, K, dtype=dtype), randn(M, N, seed=3, dtype=dtype)
        self.weight = randn(N, K, seed=1, dtype=weight_dtype or dtype)
        self.weight[~mask] = float("nan")
        self.bias, self.mask = randn(N, seed=2, dtype=dtype), mask

    def forward(self, tiles: list[Tensor] | None) -> Tensor:
        y: Tensor = OPS.masked_linear(self.x, self.weight, self.mask, self.bias, False, tiles)
        return y

    def backward(self, tiles: list[Tensor] | None, regrow: bool = False, needs: str = "111") -> Any:
        wanted = [need == "1" for need in needs]
        return OPS.masked_linear_backward(self.grad, self.x, self.weight, self.mask, regrow, wanted, tiles)

    def check(self, y: Tensor, grads: Any, regrow: bool = False) -> None:
        """Against fp64, by the sum of the magnitudes that were added up."""
        dtype = self.x.dtype
        weight = torch.where(self.mask, self.weight, 0).to(dtype).double()
        x, g, bias = self.x.double(), self.grad.double(), self.bias.double()
        kept = torch.ones_like(self.mask) if regrow else self.mask
        expected = (x @ weight.t() + bias, g @ weight, g.t() @ x * kept, g.sum(0))
        sizes = (x.abs() @ weight.abs().t() + bias.abs(), g.abs() @ weight.abs(), g.abs().t() @ x.abs(), g.abs().sum(0))
        for name, found, wanted, size in zip(("y", "x", "weight", "bias"), (y, *grads), expected, sizes, strict=True):
            assert found.shape == wanted.shape, name
            assert found.dtype == (self.weight.dtype if name == "weight" else dtype), name
            tolerance = max(TOLERANCE[dtype], TOLERANCE[found.dtype])
            assert ((found.double() - wanted).abs() <= tolerance * size + 1e-6).all(), name
        assert regrow or not grads[1][~self.mask].any()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    M=st.sampled_from(SIZES),
    N=st.sampled_from(SIZES),
    K=st.sampled_from(SIZES),
    pattern=st.sampled_from(PATTERNS),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    listed=st.booleans(),
)
def test_any_size_and_mask(M: int, N: int, K: int, pattern: str, density: float, listed: bool) -> None:
    mask = make_mask(N, K, pattern, density)
    layer, tiles = Masked(M, N, K, mask), lists(mask) if listed else None
    layer.check(layer.forward(tiles), layer.backward(tiles))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("weight_dtype", FLOATS)
@pytest.mark.parametrize("listed", [True, False])
def test_every_dtype(dtype: torch.dtype, weight_dtype: torch.dtype, listed: bool) -> None:
    mask = make_mask(70, 130, "thin")
    layer, tiles = Masked(33, 70, 130, mask, dtype, weight_dtype), lists(mask) if listed else None
    layer.check(layer.forward(tiles), layer.backward(tiles))


def test_a_depth_and_a_width_of_many_tiles() -> None:
    mask = make_mask(577, 320, "tiles", 0.3)
    layer, tiles = Masked(130, 577, 320, mask), lists(mask)
    layer.check(layer.forward(tiles), layer.backward(tiles))


@pytest.mark.parametrize(
    "config",
    [GemmConfig(16, 64, 64, 4, 2), GemmConfig(128, 64, 32, 4, 2, split_k=2), GemmConfig(64, 64, 16, 4, 2, split_k=9)],
)
@pytest.mark.parametrize("density", [0.1, 0.6])
def test_any_config(config: GemmConfig, density: float) -> None:
    """Of few tiles the depth is shared, of many not."""
    mask = make_mask(200, 200, "tiles", density)
    layer, tiles = Masked(150, 200, 200, mask), lists(mask)
    with use_config(config):
        layer.check(layer.forward(tiles), layer.backward(tiles))
        assert all(same(a, b) for a, b in zip(layer.backward(tiles), layer.backward(tiles), strict=True))


@pytest.mark.parametrize("regrow", [False, pytest.param(True, marks=pytest.mark.memcheck)])
@pytest.mark.parametrize("listed", [False, True])
def test_regrow_gives_masked_weights_the_dense_gradient(regrow: bool, listed: bool) -> None:
    mask = make_mask(70, 130)
    layer, tiles = Masked(40, 70, 130, mask), lists(mask) if listed else None
    layer.check(layer.forward(tiles), layer.backward(tiles, regrow), regrow)


@pytest.mark.parametrize("needs", ["100", "010", "001", "011"])
def test_only_the_gradients_that_are_needed(needs: str) -> None:
    mask = make_mask(70, 66)
    layer, tiles = Masked(9, 70, 66, mask), lists(mask)
    for found, whole, need in zip(layer.backward(tiles, False, needs), layer.backward(tiles), needs, strict=True):
        assert same(found, whole) if need == "1" else found.numel() == 0


@pytest.mark.parametrize("M,N,K", [(0, 4, 5), (3, 0, 5), (3, 4, 0), (0, 0, 0)])
def test_empty(M: int, N: int, K: int) -> None:
    mask = torch.ones(N, K, dtype=torch.bool, device=DEVICE)
    layer = Masked(M, N, K, mask)
    for tiles in (None, lists(mask)):
        layer.check(layer.forward(tiles), layer.backward(tiles))


@pytest.mark.memcheck
def test_any_layout_in_memory() -> None:
    mask = make_mask(70, 130, "thin")
    layer, tiles = Masked(20, 70, 130, mask), lists(mask)
    expected = layer.forward(tiles)
    plain = layer.x, layer.weight, layer.grad, layer.mask
    for laid in (lambda t: t.t().contiguous().t(), lambda t: torch.cat([t, t], 1)[:, : t.shape[1]]):
        layer.x, layer.weight, layer.grad, layer.mask = map(laid, plain)
        layer.check(layer.forward(tiles), layer.backward(tiles))
        layer.check(layer.forward(None), layer.backward(None))
    layer.grad = torch.ones((), device=DEVICE).expand(20, 70)
    layer.check(layer.forward(tiles), layer.backward(tiles))
    layer.x = layer.x.reshape(4, 5, 130).transpose(0, 1)
    assert_within_rounding(layer.forward(tiles), expected.reshape(4, 5, 70).transpose(0, 1), 130)


def test_rows_far_apart() -> None:
    """Offsets of rows beyond 2^31 values."""
    mask = make_mask(3, 70, "unstructured")
    layer, tiles = Masked(3, 3, 70, mask, torch.float16), lists(mask)
    for name in ("x", "weight", "grad"):
        value = getattr(layer, name)
        setattr(layer, name, far_rows(value.shape[1], torch.float16).copy_(value))
        layer.check(layer.forward(tiles), layer.backward(tiles))
        setattr(layer, name, value)


def test_what_meets_an_empty_tile_has_no_part_in_the_result() -> None:
    """NaN where every weight is masked and its tile empty stays there; where any is kept it is seen."""
    mask = torch.zeros(2 * TILE, 2 * TILE, dtype=torch.bool, device=DEVICE)
    mask[0, 0] = True
    layer, tiles = Masked(3, 2 * TILE, 2 * TILE, mask), lists(mask)
    layer.x[1, TILE:], layer.grad[1, TILE:] = float("nan"), float("inf")
    assert layer.forward(tiles).isfinite().all()
    assert layer.backward(tiles)[0].isfinite().all() and layer.backward(tiles)[1].isfinite().all()
    layer.x[2, 0] = float("nan")
    assert layer.forward(tiles)[2, 0].isnan() and layer.forward(tiles)[:2].isfinite().all()


def test_values_of_empty_tiles_are_not_written() -> None:
    mask = make_mask(3 * TILE, 2 * TILE, "thin")
    whole = make_mask(3 * TILE, 2 * TILE, "tiles")
    weight = randn(*mask.shape)
    values = masked_values(weight, None, lists(mask), torch.float32)
    assert same(values[whole], torch.where(mask, weight, 0)[whole])
    assert values[~whole].isnan().all()  # As torch.empty fills it in these tests.


@pytest.mark.parametrize("listed", [True, False])
def test_autograd_is_the_references(listed: bool) -> None:
    mask = make_mask(70, 130)
    x, weight, bias = (t.requires_grad_() for t in (randn(2, 5, 130), randn(70, 130, seed=1), randn(70, seed=2)))
    results = []
    for backend in ("reference", "triton"):
        with use_backend(backend), torch.autocast(DEVICE, dtype=torch.bfloat16):
            y = masked_linear(x, weight, mask, bias, False, lists(mask) if listed else None)
            results.append((y, *torch.autograd.grad(y.float().square().sum(), (x, weight, bias))))
    for expected, found in zip(*results, strict=True):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=0.1, atol=0.02 * float(expected.detach().abs().max()))


@pytest.mark.parametrize("name", ["x", "weight", "bias"])
def test_fp64_anywhere_is_the_references(name: str) -> None:
    mask = make_mask(70, 66)
    layer = Masked(5, 70, 66, mask)
    setattr(layer, name, getattr(layer, name).double())
    expected, found = both("masked_linear", layer.x, layer.weight, mask, layer.bias, False, lists(mask))
    assert same(found, expected)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    M=st.sampled_from(SIZES),
    N=st.sampled_from(SIZES),
    K=st.sampled_from(SIZES),
    pattern=st.sampled_from(PATTERNS),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    bits=st.sampled_from([(2, 8), (4, 8), (8, 8)]),
    learned=st.booleans(),
    static=st.booleans(),
)
def test_a_quantized_layer_of_any_size_and_mask(
    M: int, N: int, K: int, pattern: str, density: float, bits: tuple[int, int], learned: bool, static: bool
) -> None:
    """Its output is the reference's to the bit."""
    layer = Layer(M, N, K, bits, (True, learned, static)).masked_by(make_mask(N, K, pattern, density))
    (expected, *_), (y, *saved) = both("qat_linear", *layer.forward())
    assert same(y, expected)
    if not learned:
        with use_backend("reference"):
            assert same(saved[3], quantize_rows(masked(layer.weight, layer.mask), bits[0])[1])
    assert_gradients(layer.backward(saved), layer)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", [(8, 8), (16, 16)])
def test_a_quantized_layer_of_every_dtype(dtype: torch.dtype, weight_dtype: torch.dtype, bits: tuple[int, int]) -> None:
    layer = Layer(33, 70, 130, bits, (True, False, False), dtype, weight_dtype).masked_by(make_mask(70, 130, "thin"))
    (expected, *_), (y, *saved) = both("qat_linear", *layer.forward())
    if dtype != torch.bfloat16 and bits == (8, 8):
        assert same(y, expected)
    else:
        torch.testing.assert_close(y, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    found = layer.backward(saved)
    assert found[0].dtype == dtype and found[1].dtype == weight_dtype
    assert_gradients(found, layer)
    assert not found[1][~layer.mask].any()


@pytest.mark.parametrize("regrow", [False, True])
def test_a_quantized_layer_of_many_tiles(regrow: bool) -> None:
    layer = Layer(130, 320, 577, what=(True, False, False)).masked_by(make_mask(320, 577, "tiles", 0.3))
    (expected, *_), (y, *saved) = both("qat_linear", *layer.forward())
    assert same(y, expected)
    assert_gradients(layer.backward(saved, regrow), layer, regrow)


def test_the_largest_integers_of_a_depth_of_many_tiles() -> None:
    """Sums beyond what fp32 holds exactly."""
    mask = make_mask(65, 3000, "tiles", 0.9)
    layer = Layer(3, 65, 3000).masked_by(mask)
    layer.x, layer.weight = torch.full_like(layer.x, 127.0), torch.where(mask, 127.0, float("nan"))
    layer.x[:, ::7] = 126.0
    (expected, *_), (y, *_) = both("qat_linear", *layer.forward())
    assert same(y, expected)


def test_a_quantized_layer_of_rows_that_are_no_numbers() -> None:
    layer = Layer(9, 70, 130, what=(True, False, False)).masked_by(make_mask(70, 130, "tiles"))
    row = int(layer.mask.any(1).nonzero()[0])
    layer.x[2, 3], layer.x[5, 0], layer.weight[row] = float("nan"), float("inf"), float("inf")
    (expected, *_), (y, *_) = both("qat_linear", *layer.forward())
    assert same(y, expected)


def test_fp64_in_a_quantized_layer_is_the_references() -> None:
    layer = Layer(5, 70, 66, what=(True, False, False)).masked_by(make_mask(70, 66))
    layer.weight = layer.weight.double()
    expected, found = both("qat_linear", *layer.forward())
    assert all(same(*pair) for pair in zip(found, expected, strict=True))
