"""A quantization-aware layer: its integers to the bit, in any shape and layout, and nothing quantized in memory."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from far_memory import far_rows
from gpu_or_interpreter import DEVICE, FLOATS, TOLERANCE, both, integers, randn, same
from hypothesis import given, settings
from hypothesis import strategies as st
from qat_layer import BITS, WHAT, Layer, What, assert_gradients
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import sparseq_kernels
from sparseq_kernels import use_backend
from sparseq_kernels.numerics import masked
from sparseq_kernels.reference.quantize_rows import quantize_rows
from sparseq_kernels.triton.qat_linear import qat_linear, qat_linear_backward
from sparseq_kernels.triton.runtime.gemm_config import GemmConfig, use_config

OPS = torch.ops.sparseq


@pytest.fixture(autouse=True)
def _triton() -> Iterator[None]:
    with use_backend("triton"):
        yield


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("bits", BITS)
def test_the_forward_is_the_references_to_the_bit(bits: tuple[int, int], what: What) -> None:
    layer = Layer(17, 9, 21, bits, what)
    (expected, *_), (y, no_x, x_scale, no_w, w_scale) = both("qat_linear", *layer.forward())
    if max(bits) <= 8:
        assert same(y, expected)
    else:
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    assert no_x.numel() == no_w.numel() == 0 and no_x.dtype == no_w.dtype == torch.int8
    nothing = torch.empty(0, device=DEVICE)
    kept = masked(layer.weight, layer.mask)
    assert same(x_scale, nothing if what[2] else quantize_rows(layer.x, bits[1])[1])
    assert same(w_scale, nothing if what[1] else quantize_rows(kept, bits[0])[1])


@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("out_dtype", [None, *FLOATS])
def test_the_forward_in_every_dtype(dtype: torch.dtype, weight_dtype: torch.dtype, out_dtype: Any) -> None:
    layer = Layer(5, 7, 63, dtype=dtype, weight_dtype=weight_dtype)
    (expected, *_), (y, *_) = both("qat_linear", *layer.forward(out_dtype))
    assert y.dtype == expected.dtype == (out_dtype or dtype)
    if y.dtype == torch.bfloat16:
        torch.testing.assert_close(y, expected, rtol=TOLERANCE[y.dtype], atol=0)
    else:
        assert same(y, expected)


def test_ties_round_to_even() -> None:
    """Operands of scale 1 whose other values all lie in the middle of two levels."""
    x, weight = (integers(8, 16, seed=seed).float().clamp(-100, 100) + 0.5 for seed in (0, 1))
    x[:, 3], weight[:, 5] = 127, -127
    (expected, *_), (y, *_) = both("qat_linear", x, weight)
    assert same(y, expected) and torch.equal(y, torch.round(x) @ torch.round(weight).t())


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    M=st.sampled_from([1, 5, 7, 32, 63]),
    N=st.sampled_from([1, 5, 7, 33]),
    K=st.sampled_from([1, 5, 7, 32, 63, 65]),
    bits=st.sampled_from([(2, 8), (4, 4), (8, 8)]),
    what=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_any_size(M: int, N: int, K: int, bits: tuple[int, int], what: What) -> None:
    layer = Layer(M, N, K, bits, what)
    (expected, *_), (y, *saved) = both("qat_linear", *layer.forward())
    assert same(y, expected)
    assert_gradients(layer.backward(saved), layer)


def test_a_depth_and_a_width_beyond_many_tiles() -> None:
    layer = Layer(65, 33, 577, what=(True, True, True))
    with use_config(GemmConfig(64, 128, 128, 4, 2, quantize_inside=True)):
        (expected, *_), (y, *saved) = both("qat_linear", *layer.forward())
        assert same(y, expected)
        assert_gradients(layer.backward(saved), layer)


@pytest.mark.parametrize("M,N,K", [(0, 4, 5), (3, 0, 5), (3, 4, 0), (0, 0, 0)])
@pytest.mark.parametrize("what", [(False, False, False), (True, True, True)])
def test_empty(M: int, N: int, K: int, what: What) -> None:
    layer = Layer(M, N, K, what=what)
    (expected, *_), (y, *saved) = both("qat_linear", *layer.forward())
    assert same(y, expected)
    assert [r.numel() for r in saved] == [0, 0 if what[2] else M, 0, 0 if what[1] else N]
    found = layer.backward(saved)
    with use_backend("reference"):
        assert all(same(value, wanted) for value, wanted in zip(found, layer.backward(), strict=True))


@pytest.mark.memcheck
def test_any_layout_in_memory() -> None:
    layer = Layer(18, 10, 12, what=(True, True, True))
    y, *_ = OPS.qat_linear(*layer.forward())
    x, weight, grad = layer.x, layer.weight, layer.grad
    every_second = torch.stack([randn(10), layer.weight_scale], dim=1)[:, 1]
    for laid in (lambda t: t.t().contiguous().t(), lambda t: torch.cat([t, t], 1)[:, : t.shape[1]]):
        layer.x, layer.weight, layer.grad, layer.mask = laid(x), laid(weight), laid(grad), laid(layer.mask)
        layer.weight_scale, layer.bias = every_second, laid(layer.bias[None])[0]
        assert same(OPS.qat_linear(*layer.forward())[0], y)
        assert_gradients(layer.backward(), layer)
    layer.x = x.reshape(3, 6, 12).transpose(0, 1)
    assert same(OPS.qat_linear(*layer.forward())[0], y.reshape(3, 6, 10).transpose(0, 1))


def test_rows_far_apart() -> None:
    """Offsets of rows beyond 2^31 values."""
    layer = Layer(3, 3, 40, what=(True, True, True), dtype=torch.float16, weight_dtype=torch.float16)
    saved, expected = OPS.qat_linear(*layer.forward()), layer.backward()
    for name in ("x", "weight", "grad"):
        value = getattr(layer, name)
        setattr(layer, name, far_rows(value.shape[1], torch.float16).copy_(value))
        assert all(same(a, b) for a, b in zip(OPS.qat_linear(*layer.forward()), saved, strict=True))
        # On a GPU another product of torch's may serve such rows, which sums in another order.
        for a, b in zip(layer.backward(), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=4e-3, atol=4e-3)
        setattr(layer, name, value)


@pytest.mark.parametrize("tile", [(16, 128, 32), (32, 16, 64), (64, 32, 32)])
@pytest.mark.parametrize("inside", [True, False])
def test_any_tile_gives_the_same_integers_and_gradients(tile: tuple[int, int, int], inside: bool) -> None:
    layer = Layer(35, 20, 70, what=(True, True, True))
    with use_config(GemmConfig(*tile, 4, 2, quantize_inside=inside)):
        (expected, *_), (y, *_) = both("qat_linear", *layer.forward())
        assert same(y, expected)
        assert_gradients(layer.backward(), layer)


class Allocations(TorchDispatchMode):
    """Notes the storages that torch's operators make of `least` bytes or more."""

    def __init__(self, known: list[Tensor], least: int) -> None:
        super().__init__()
        self.known, self.least = {t.untyped_storage().data_ptr() for t in known}, least
        self.kept: dict[int, Tensor] = {}

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = op(*args, **(kwargs or {}))
        for result in results if isinstance(results, tuple | list) else [results]:
            if isinstance(result, Tensor) and result.untyped_storage().nbytes() >= self.least:
                self.kept[result.untyped_storage().data_ptr()] = result
        return results

    @property
    def new(self) -> set[int]:
        return set(self.kept) - self.known


@pytest.mark.parametrize("what", [(False, False, False), (True, False, False), (True, True, True)])
@pytest.mark.parametrize("bits", [(8, 8), (16, 16)])
def test_what_is_quantized_inside_is_never_in_memory(bits: tuple[int, int], what: What) -> None:
    """By a config that says so, nothing as large as an int8 operand is made but the output and the gradients."""
    layer = Layer(48, 40, 64, bits, what)
    inputs = [t for t in (layer.grad, layer.bias, *layer.operands) if t is not None]
    with use_config(GemmConfig(64, 64, 64, 4, 2, quantize_inside=True)), Allocations(inputs, 40 * 64) as made:
        y, *saved = qat_linear(*layer.forward())
    assert made.new == {y.untyped_storage().data_ptr()}
    settings = (*bits, torch.float32, False, [True] * 5)
    with use_config(GemmConfig(64, 64, 64, 4, 2, quantize_inside=True)), Allocations(inputs, 40 * 64) as made:
        grads = qat_linear_backward(layer.grad, *layer.operands, saved, *settings)
    assert made.new == {grad.untyped_storage().data_ptr() for grad in grads[:2]}


def test_autograd_keeps_the_inputs_and_scales_alone() -> None:
    layer = Layer(18, 10, 12, what=(True, False, False))
    x, weight = layer.x.requires_grad_(), layer.weight.requires_grad_()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        sparseq_kernels.qat_linear(x, weight, layer.bias, layer.mask)
    own = {t.data_ptr() for t in (x, weight, layer.mask)}
    assert sorted(t.numel() for t in kept if t.data_ptr() not in own) == [0, 0, 10, 18]


FLOATING = ("x", "weight", "bias", "weight_scale", "input_scale")


@pytest.mark.parametrize("names", [FLOATING, *((name,) for name in FLOATING)], ids=" ".join)
@pytest.mark.parametrize("learned", [False, True])
def test_fp64_anywhere_is_the_references(names: tuple[str, ...], learned: bool) -> None:
    """And all that comes back has the fake version's shapes and dtypes: so it compiles, and its backward too."""
    layer = Layer(5, 4, 6, what=(True, learned, learned))
    given = [name for name in FLOATING if getattr(layer, name) is not None]
    for name in given:
        value = getattr(layer, name)
        setattr(layer, name, (value.double() if name in names else value).requires_grad_())
    torch.library.opcheck(OPS.qat_linear.default, layer.forward(), rtol=1e-4, atol=1e-5)
    if set(names) & set(given):
        expected, found = both("qat_linear", *layer.forward())
        assert all(same(*pair) for pair in zip(found, expected, strict=True))
