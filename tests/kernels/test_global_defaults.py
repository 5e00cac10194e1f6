"""torch's global defaults, which a user's program may change, change nothing in the kernels and the layers."""

import contextlib

import pytest
import torch
from samples import SAMPLES
from torch import nn
from torch.utils._pytree import tree_leaves

from sparseq.nn import QuantSparseLinear, pack
from sparseq_kernels import use_backend
from sparseq_kernels.backends import runnable
from sparseq_kernels.cpu import int8_matmul, native
from sparseq_kernels.cpu.embeddings import NativeEmbeddings
from sparseq_kernels.cpu.encoder import NativeEncoder, why_no_bf16_attention
from sparseq_kernels.cpu.linear import NativeLinear, packed_product
from sparseq_kernels.cpu.tokens import Tokens
from sparseq_kernels.encoder import EmbeddingTable, EncoderEmbeddings, EncoderLayer, EncoderLinear, EncoderNorm
from sparseq_kernels.registry import OPS as REGISTRY

OPS = torch.ops.sparseq


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


DEFAULTS = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "meta": lambda: torch.device("meta"),
    "float64 on meta": lambda: _both(torch.float64),
}


@contextlib.contextmanager
def _both(dtype):
    with default_dtype(dtype), torch.device("meta"):
        yield


def assert_same(found, expected):
    found, expected = tree_leaves(found), tree_leaves(expected)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.device == theirs.device and ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("defaults", DEFAULTS)
@pytest.mark.parametrize("op", REGISTRY)
@pytest.mark.parametrize("name", runnable())
def test_every_op(name, op, defaults):
    for dtype in (torch.float32, torch.bfloat16):
        for args in SAMPLES[op](dtype):
            with use_backend(name), torch.no_grad():
                expected = getattr(OPS, op)(*args)
                with DEFAULTS[defaults]():
                    found = getattr(OPS, op)(*args)
            assert_same(found, expected)


X, Q, W, MASK = torch.randn(5, 17), *(torch.randint(-128, 128, (n, 17), dtype=torch.int8) for n in (5, 6)), None
KEPT, ROWS, COLUMNS = torch.rand(5, 17) > 0.5, torch.rand(5), torch.rand(6)
# Every function of the native code, and the other ways of its product.
CALLS = {
    "quantize_rows": lambda: native.quantize_rows(X, 8, KEPT),
    "scale_sums": lambda: native.scale_sums(torch.ones_like(Q[:, :6], dtype=torch.int32), ROWS, COLUMNS, COLUMNS),
    "dequantize_rows": lambda: native.dequantize_rows(Q, ROWS),
    "masked": lambda: native.masked(X, KEPT),
    "mask_": lambda: native.mask_(X.clone(), KEPT),
    "int8_matmul": lambda: native.int8_matmul(Q, W),
    "int8_linear": lambda: native.int8_linear(Q, W, ROWS, COLUMNS, COLUMNS),
    "quantized_linear": lambda: native.quantized_linear(X, W, COLUMNS, COLUMNS, 8),
    "layer_norm_quantize_rows": lambda: OPS.layer_norm_quantize_rows(X, None, X[0], X[1]),
    "gelu_quantize_rows": lambda: OPS.gelu_quantize_rows(X),
    **dict.fromkeys(
        (
            "encode",
            "has_bf16_attention",
            "pack_panels",
            "panel_bytes",
            "panel_columns",
            "count_blocks",
            "pack_blocks",
            "block_bytes",
            "blocks_past",
            "block_size",
        ),
        lambda: encoded(),
    ),
    **dict.fromkeys(("list_tokens", "embed", "spread"), lambda: embedded()),
    "scaled_product": lambda: (native.product_with_weight(X.t(), Q, ROWS), *native.product_with_inputs(X, Q, ROWS)),
    "linear_of_rows": lambda: packed_product(Q, ROWS, W, COLUMNS, COLUMNS),
    "linear": lambda: NativeLinear(EncoderLinear(W, COLUMNS, COLUMNS))(X),
    "fp32": lambda: int8_matmul.WAYS["fp32"](Q, W),
    "int_mm": lambda: int8_matmul.WAYS["int_mm"](Q, W),
    "int_mm, empty": lambda: int8_matmul.WAYS["int_mm"](Q[:0], W),
    "int_mm_is_exact": lambda: torch.tensor(int8_matmul.int_mm_is_exact(), device="cpu"),
}


def encoded():
    """The result of an encoder of one layer, with a weight in blocks."""
    weights = [torch.ones(N, K, dtype=torch.int8, device="cpu") for N, K in ((12, 4), (4, 4), (8, 4), (4, 8))]
    weights[2][4:] = 0
    ones = torch.ones(12, dtype=torch.float32, device="cpu")
    qkv, out, up, down = (EncoderLinear(weight, ones[: len(weight)], None) for weight in weights)
    norm = EncoderNorm(ones[:4], ones[4:8], 1e-12)
    encoder = NativeEncoder([EncoderLayer(qkv, out, norm, up, down, norm)], 2)
    return encoder(X[:, :4], [2, 3], bf16_attention=why_no_bf16_attention() is None)


def embedded():
    """The embeddings of a batch with padding, spread over its places."""
    tables = EmbeddingTable(Q, ROWS), EmbeddingTable(X), None
    ids = torch.tensor([[1, 2, 0], [4, 0, 0]], device="cpu")
    tokens = Tokens.of(ids > 0, 2, 3)
    found = NativeEmbeddings(EncoderEmbeddings(*tables, EncoderNorm(X[0], X[1], 1e-12)))(ids, None, tokens)
    return tokens.spread(found)


@pytest.mark.parametrize("defaults", DEFAULTS)
@pytest.mark.parametrize("call", CALLS)
def test_every_native_function(call, defaults):
    expected = CALLS[call]()
    with DEFAULTS[defaults]():
        found = CALLS[call]()
    assert_same(found, expected)


def test_every_native_function_is_tried():
    assert {name.removeprefix("sparseq_") for name in native._SIGNATURES} - {"mask"} <= set(CALLS)


SETTINGS = {
    "max": {},
    "lsq": {"scale": "lsq"},
    "static": {"activation": "static"},
    "int4": {"bits": 4},
    "float": {"bits": None},
}


@pytest.mark.parametrize("defaults", DEFAULTS)
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", runnable())
def test_a_layer_trained_and_packed(name, settings, defaults):
    torch.manual_seed(0)
    layer, x = QuantSparseLinear.from_linear(nn.Linear(17, 6), **SETTINGS[settings]), torch.randn(5, 17)
    layer.set_mask(torch.rand(6, 17) > 0.3)
    layer.train()(x)
    layer.eval()
    packed = pack(layer)

    def run():
        layer.zero_grad(set_to_none=True)
        given = x.clone().requires_grad_()
        y = layer(given)
        y.backward(torch.ones_like(y))
        gradients = [parameter.grad for parameter in layer.parameters()]
        return y.detach(), given.grad, gradients, packed(x), pack(layer)(x)

    with use_backend(name):
        expected = run()
        with DEFAULTS[defaults]():
            found = run()
    assert_same(found, expected)
