"""The launch cache of ops with several inputs or results: an int8 x with its scales, a norm of x and its residual."""

import pytest
import torch
from fused_models import base, batch, both, close, packed
from gpu_or_interpreter import DEVICE, FLOATS, integers, randn, same
from launch_cache_calls import Counted, constants

from sparseq_kernels.ops.int8_linear import OP as INT8_LINEAR
from sparseq_kernels.ops.layer_norm_quantize_rows import OP as NORM
from sparseq_kernels.triton.int8_linear import CACHE

OPS = torch.ops.sparseq
BITS, EPS = 8, 1e-5

pytestmark = pytest.mark.usefixtures("on_triton")


@pytest.fixture(autouse=True)
def in_inference():
    with torch.inference_mode():
        yield


def norm(x, residual, weight, bias):
    return NORM(x, residual, weight, bias, EPS, BITS)


def all_same(found, expected):
    return len(found) == len(expected) and all(map(same, found, expected))


@pytest.mark.parametrize("M", [1, 7, 40])
def test_an_int8_x_comes_with_its_scales(M, monkeypatch):
    counted, (weight, scale, bias, *_) = Counted(monkeypatch), constants(12, 32)
    for seed in range(3):
        x, scales = integers(M, 32, seed=seed), randn(M, seed=seed).abs() + 0.1
        given = (x, weight, scale, bias, scales, "relu", torch.float32)
        assert same(INT8_LINEAR(*given), OPS.int8_linear(*given))
    assert counted.replays == 2
    # A floating x of the same weight has captures of its own.
    assert CACHE.captured_shapes(weight) == 0
    x = randn(M, 32)
    for _ in range(2):
        assert same(INT8_LINEAR(x, weight, scale, bias), OPS.int8_linear(x, weight, scale, bias))
    assert counted.replays == 3 and CACHE.captured_shapes(weight) == 1


def test_one_scale_and_one_a_row_are_different_calls(monkeypatch):
    counted, (weight, scale, bias, *_) = Counted(monkeypatch), constants(12, 32)
    x = integers(5, 32)
    for scales in (randn(1).abs(), randn(5).abs(), randn(1).abs(), randn(5).abs()):
        given = (x, weight, scale, bias, scales, "none", torch.float32)
        assert same(INT8_LINEAR(*given), OPS.int8_linear(*given))
    assert counted.replays == 2


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(5, 24), (2, 3, 24), (1, 130)], ids=str)
def test_a_norm_of_x_and_its_residual(shape, dtype, monkeypatch):
    counted, weight, bias = Counted(monkeypatch), randn(shape[-1], seed=1), randn(shape[-1], seed=2)
    for seed in range(3):
        x, residual = randn(*shape, seed=seed, dtype=dtype), randn(*shape, seed=9 + seed, dtype=dtype)
        found = norm(x, residual, weight, bias)
        assert all_same(found, OPS.layer_norm_quantize_rows(x, residual, weight, bias, EPS, BITS))
    assert counted.replays == 2


def test_a_norm_without_a_residual_takes_the_usual_way(monkeypatch):
    counted, weight, bias = Counted(monkeypatch), randn(24, seed=1), randn(24, seed=2)
    for seed in range(2):
        x = randn(5, 24, seed=seed)
        found = norm(x, None, weight, bias)
        assert all_same(found, OPS.layer_norm_quantize_rows(x, None, weight, bias, EPS, BITS))
    assert counted.replays == 0


def test_inputs_in_the_same_memory_are_not_captured(monkeypatch):
    counted, weight, bias = Counted(monkeypatch), randn(24, seed=1), randn(24, seed=2)
    x, residual = randn(5, 24), randn(5, 24, seed=3)
    norm(x, x, weight, bias)
    found = norm(x, residual, weight, bias)
    assert all_same(found, OPS.layer_norm_quantize_rows(x, residual, weight, bias, EPS, BITS))
    assert counted.replays == 0
    # Which of the two a kernel got is known by now.
    assert all_same(norm(x, x, weight, bias), OPS.layer_norm_quantize_rows(x, x, weight, bias, EPS, BITS))
    assert counted.replays == 1


class Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize(
    "other",
    [
        lambda residual: residual.t().contiguous().t(),
        lambda residual: torch.cat([residual.flatten(), residual.flatten()])[1 : 1 + residual.numel()].view(5, 24),
        lambda residual: torch._neg_view(residual),
        lambda residual: residual.as_subclass(Subclass),
    ],
    ids=["with gaps", "not aligned", "negated", "a subclass"],
)
def test_an_input_of_another_kind_is_not_replayed(other, monkeypatch):
    counted, weight, bias = Counted(monkeypatch), randn(24, seed=1), randn(24, seed=2)
    x, residual = randn(5, 24), randn(5, 24, seed=3)
    norm(x, residual, weight, bias)
    residual = other(residual)
    found = norm(x, residual, weight, bias)
    plain = residual.as_subclass(torch.Tensor).clone()
    assert all_same(found, OPS.layer_norm_quantize_rows(x, plain, weight, bias, EPS, BITS))
    assert counted.replays == 0


def test_another_norms_values_are_seen(monkeypatch):
    counted, weight, bias = Counted(monkeypatch), randn(24, seed=1), randn(24, seed=2)
    x, residual = randn(5, 24), randn(5, 24, seed=3)
    norm(x, residual, weight, bias)
    weight += 1
    found = norm(x, residual, weight, bias)
    assert all_same(found, OPS.layer_norm_quantize_rows(x, residual, weight, bias, EPS, BITS))
    assert counted.replays == 1
    for given in ((weight, bias.clone(), EPS, BITS), (weight, bias, 0.5, BITS), (weight, bias, EPS, 4)):
        found = NORM(x, residual, *given)
        assert all_same(found, OPS.layer_norm_quantize_rows(x, residual, *given))
    assert counted.replays == 1


def test_a_fused_encoders_further_call_replays_all_of_it(monkeypatch):
    layers, products, norms = 2, 4, 2
    model = base(packed(config={"num_hidden_layers": layers}).to(DEVICE))
    given = {name: tensor.to(DEVICE) for name, tensor in batch(2).items()}
    found, expected = both(model, **given)
    close(found[0], expected[0])
    first = model(**given)[0]
    counted = Counted(monkeypatch)
    assert same(model(**given)[0], first)
    # The last norm is of no product, and the pooler's rows lie apart.
    assert counted.replays == layers * (products + norms) - 1
