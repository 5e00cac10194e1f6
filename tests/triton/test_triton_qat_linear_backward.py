"""The gradients of a quantization-aware layer against their formulas in fp64, and the configs of their products."""

import itertools
from collections.abc import Iterator

import pytest
import torch
from gpu_or_interpreter import DEVICE, FLOATS, both, randn, same
from qat_layer import BITS, WHAT, Layer, What, assert_gradients

from sparseq_kernels import use_backend
from sparseq_kernels.triton.runtime.device import Device
from sparseq_kernels.triton.runtime.gemm_config import GemmConfig, use_config
from sparseq_kernels.triton.runtime.heuristics import gradient_config

OPS = torch.ops.sparseq


@pytest.fixture(autouse=True)
def _triton() -> Iterator[None]:
    with use_backend("triton"):
        yield


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("bits", BITS[:-1])
def test_every_gradient_by_its_formula(bits: tuple[int, int], what: What, dtype: torch.dtype) -> None:
    layer = Layer(13, 9, 21, bits, what, dtype)
    saved = list(OPS.qat_linear(*layer.forward())[1:])
    found = layer.backward(saved)
    assert_gradients(found, layer)
    assert [grad.dtype for grad in found[:3]] == [dtype, torch.float32, torch.float32]
    if what[0]:
        assert not found[1][~layer.mask].any()


@pytest.mark.parametrize("learned", [False, pytest.param(True, marks=pytest.mark.memcheck)])
@pytest.mark.parametrize("split", [1, 3])
def test_regrow_gives_masked_weights_the_dense_gradient(learned: bool, split: int) -> None:
    layer = Layer(33, 11, 20, what=(True, learned, False))
    with use_config(GemmConfig(32, 32, 16, 4, 2, split_k=split)):
        found = layer.backward(regrow=True)
    assert_gradients(found, layer, regrow=True)
    assert found[1][~layer.mask].any()


@pytest.mark.parametrize("needs", ["10000", "01000", "00100", "00010", "00001", "01110", "10001"])
@pytest.mark.parametrize("what", [(True, True, True), (False, False, False)])
def test_only_the_gradients_that_are_needed(needs: str, what: What) -> None:
    layer = Layer(9, 7, 20, what=what)
    every = layer.backward()
    found = layer.backward(needs=needs)
    with use_backend("reference"):
        expected = layer.backward(needs=needs)
    for value, wanted, whole in zip(found, expected, every, strict=True):
        assert value.shape == wanted.shape and value.dtype == wanted.dtype
        assert not value.numel() or same(value, whole)


@pytest.mark.parametrize("what", [(True, False, False), (False, True, True)])
def test_nan_and_inf_end_where_the_reference_has_them(what: What) -> None:
    layer = Layer(9, 7, 20, what=what)
    layer.x[2, 3], layer.x[5, 0], layer.weight[4, 1] = float("nan"), float("inf"), float("nan")
    (expected, *_), (y, *_) = both("qat_linear", *layer.forward())
    assert same(y, expected)
    found = layer.backward()
    with use_backend("reference"):
        expected = layer.backward()
    for value, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_the_gradient_of_a_gradient_that_is_no_number() -> None:
    layer = Layer(9, 7, 20, what=(True, True, True))
    layer.grad[3, 2] = float("nan")
    found = layer.backward()
    assert found[0][3].isnan().all() and not found[0][:3].isnan().any()
    assert torch.equal(found[1][2].isnan(), layer.mask[2]) and not found[1][3:].isnan().any()


@pytest.mark.memcheck
def test_an_expanded_gradient() -> None:
    layer = Layer(18, 10, 12)
    layer.grad = torch.ones((), device=DEVICE).expand(18, 10)
    assert_gradients(layer.backward(), layer)
    layer.grad = randn(1, 10).expand(18, 10)
    assert_gradients(layer.backward(), layer)


@pytest.mark.parametrize("what", [(False, False, False), (True, True, True)])
def test_a_shared_depth_changes_no_more_than_rounding(what: What) -> None:
    layer = Layer(45, 17, 30, what=what)
    with use_config(GemmConfig(32, 32, 32, 4, 2)):
        whole = layer.backward()
    for split in (2, 5):
        with use_config(GemmConfig(32, 32, 16, 4, 2, split_k=split)):
            found, again = layer.backward(), layer.backward()
        assert_gradients(found, layer)
        assert all(same(a, b) for a, b in zip(found, again, strict=True))
        for a, b in zip(found, whole, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("forward", ["reference", "cpu", "native"])
@pytest.mark.parametrize("what", [(True, False, False), (True, True, True)])
def test_a_backward_after_another_backends_forward(forward: str, what: What) -> None:
    if DEVICE != "cpu" and forward != "reference":
        pytest.skip("that backend runs on CPU tensors")
    layer = Layer(18, 10, 12, what=what)
    x = layer.x
    with use_backend(forward):
        _, *saved = OPS.qat_linear(*layer.forward())
    found = layer.backward(saved)
    if saved[0].numel():
        layer.x = None
        found = OPS.qat_linear_backward(layer.grad, *layer.operands, saved, 8, 8, x.dtype, False, [True] * 5)
        layer.x = x
    assert_gradients(found, layer)


def test_a_bfloat16_gradient_of_a_float32_input() -> None:
    """As under autocast, where a layer's input may come from a LayerNorm in fp32."""
    layer = Layer(33, 21, 65, what=(False, True, True))
    layer.grad = layer.grad.bfloat16()
    found = layer.backward()
    assert_gradients(found, layer)
    assert found[0].dtype == found[1].dtype == torch.float32


H100 = {"arch": "sm_90", "processors": 132, "shared_bytes": 227 * 1024}


@pytest.mark.parametrize("a_bytes", [2, 4])
@pytest.mark.parametrize("b_bytes", [2, 3, 4, 5])
def test_a_config_fills_the_processors_and_fits_the_shared_memory(a_bytes: int, b_bytes: int) -> None:
    device = Device(**H100)
    for M, N, K in itertools.product([16, 128, 768, 1024, 8192], [128, 768, 1024, 4096], [128, 768, 4096, 8192]):
        config = gradient_config(M, N, K, a_bytes, b_bytes, device)
        tiles = -(-M // config.block_m) * -(-N // config.block_n)
        assert config.split_k == 1 or (tiles < 132 and config.split_k * 4 * config.block_k <= K)
        loads = config.block_k * (
            config.num_stages * config.block_m * a_bytes + (config.num_stages - 1) * config.block_n * b_bytes
        )
        assert loads + config.block_k * config.block_n * a_bytes <= device.shared_bytes
    assert gradient_config(768, 768, 8192, a_bytes, b_bytes, device).split_k > 1
