"""Arguments that do not fit one another are refused before any backend, native code above all, gets them."""

import pytest
import torch
from samples import call

from sparseq_kernels import InputError, use_backend
from sparseq_kernels.backends import runnable
from sparseq_kernels.block_index import BlockIndex

OPS = torch.ops.sparseq
X, W8, W, ONES = torch.randn(3, 8), torch.ones(64, 8, dtype=torch.int8), torch.randn(64, 8), torch.ones(64)
MASK = torch.ones(64, 8, dtype=torch.bool)
GRAD = torch.randn(3, 64)
TILES = BlockIndex.from_mask(MASK).tensors()
WIDE = [tensor.long() for tensor in TILES[1:]]
TOKENS = torch.tensor([3, 0])
I32, X16, BLOCKS = torch.zeros(2, dtype=torch.int32), torch.randn(3, 16), torch.ones(2, 16, 16, dtype=torch.int8)


@pytest.mark.parametrize("backend", runnable())
@pytest.mark.parametrize(
    "run,sentence",
    [
        (lambda: OPS.int8_linear(X, W8, ONES[:1]), r"weight_scale must have the shape \(64,\), not \(1,\)"),
        (lambda: OPS.int8_linear(X, W8, ONES, ONES[:1]), r"bias must have the shape \(64,\)"),
        (lambda: OPS.int8_linear(X[:, :7], W8, ONES), "does not fit a weight"),
        (lambda: OPS.int8_linear(X, W, ONES), r"weight must be int8, not torch\.float32"),
        (lambda: OPS.int8_linear(X.to(torch.int8), W8, ONES, None, ONES[:2]), "one value or one for each of 3 rows"),
        (lambda: OPS.int8_linear(X, W8, ONES, None, ONES[:3]), "input_scale must be one value, not 3"),
        (lambda: OPS.qat_linear(X, W, None, torch.ones(1, 8, dtype=torch.bool)), r"mask must have the shape \(64, 8\)"),
        (lambda: OPS.qat_linear(X, W, None, torch.ones(64, 8)), "mask must be bool"),
        (lambda: OPS.qat_linear(X, W, None, None, ONES[:2]), "weight_scale must have the shape"),
        (lambda: OPS.masked_linear(X, W, torch.ones(8, dtype=torch.bool)), "mask must have the shape"),
        (
            lambda: OPS.masked_linear(X, W, MASK, block_index=TILES[:6]),
            r"7 tensors of BlockIndex\.tensors\(\), not 6",
        ),
        (
            lambda: OPS.masked_linear(X, W[:5], MASK[:5], block_index=TILES),
            r"bits must be torch.uint8, .* shape \(5, 1\), not",
        ),
        (
            lambda: OPS.masked_linear(X, W, MASK, block_index=[TILES[0], *WIDE]),
            r"rows must be torch.int32, .* not torch.int64",
        ),
        (lambda: OPS.qat_linear(X, W, block_index=TILES), "give the mask, too"),
        (lambda: OPS.masked_linear_backward(GRAD, X, W, MASK, False, [True] * 3, TILES[:6]), "not 6"),
        (
            lambda: OPS.qat_linear_backward(GRAD, X, W, None, None, None, [], 8, 8, X.dtype, False, [True] * 5, TILES),
            "give the mask, too",
        ),
        (lambda: OPS.fake_quant_backward(X[:2], X, ONES[0], 8), r"grad must have the shape \(3, 8\), not \(2, 8\)"),
        (lambda: OPS.fake_quant_backward(X, X, ONES[:2, None], 8), r"\(2, 1\) does not broadcast to x's, \(3, 8\)"),
        (lambda: OPS.fake_quant_backward(X, None, ONES[0], 8), "x and scale belong together"),
        (lambda: OPS.fake_quant_backward(X, X, None, 8), "x and scale belong together"),
        (lambda: OPS.fake_quant_backward(X, X, ONES[:7], 8), r"a scale of shape \(7,\) does not broadcast"),
        (lambda: OPS.fake_quant_backward(X, X, X[None], 8), r"a scale of shape \(1, 3, 8\) does not broadcast"),
        (lambda: OPS.int8_embedding(TOKENS, W8, ONES[:63]), r"scale must have the shape \(64,\), not \(63,\)"),
        (lambda: OPS.int8_embedding(TOKENS, W8, ONES[:, None]), r"scale must have the shape \(64,\), not \(64, 1\)"),
        (lambda: OPS.int8_embedding(TOKENS, W, ONES), r"weight must be int8 or int16, not torch\.float32"),
        (lambda: OPS.int8_embedding(TOKENS, W8[0], ONES[:8]), r"weight must be a matrix.*, not of shape \(8,\)"),
        (lambda: OPS.int8_embedding(TOKENS.float(), W8, ONES), r"indices must be integers, not torch\.float32"),
        (lambda: OPS.block_sparse_int8_linear(X, W8, I32, I32, I32, ONES), r"\[blocks, R, C\] with R and C of 16, 32"),
        (lambda: OPS.block_sparse_int8_linear(X, BLOCKS, I32, I32, I32, ONES), "do not divide a weight of 64 x 8"),
        (lambda: OPS.block_sparse_int8_linear(X16, BLOCKS, I32, I32, I32, ONES), r"offsets must have the shape \(5,\)"),
        (lambda: OPS.block_sparse_int8_linear(X16, BLOCKS, TOKENS, I32, I32, ONES), "block_columns must be int32"),
        (lambda: OPS.bitmask_int8_linear(X, W8[0], W8.byte(), I32, ONES), r"bits must have the shape \(64, 1\)"),
        (lambda: OPS.bitmask_int8_linear(X, W[0], W8[:, :1].byte(), I32[:1].expand(64, 1), ONES), "must be int8"),
        (lambda: OPS.semi_structured_int8_linear(X, W8, W8.byte(), ONES), r"values must have the shape \(64, 4\)"),
        (lambda: OPS.semi_structured_int8_linear(X[:, :6], W8, W8.byte(), ONES), "must be a multiple of 4, not 6"),
        (lambda: OPS.int8_embedding(TOKENS > 0, W8, ONES), r"indices must be integers, not torch\.bool"),
    ],
)
def test_refused(backend, run, sentence):
    with use_backend(backend), pytest.raises(InputError, match=sentence):
        run()


@pytest.mark.parametrize("first,second", [("native", "reference"), ("reference", "native"), ("cpu", "native")])
def test_the_backend_may_change_between_forward_and_backward(first, second):
    w = W.clone().requires_grad_()
    with use_backend(first):
        y = call("qat_linear", X, w, None, None, None, None, 8, 8, None, False)
    with use_backend(second):
        (got,) = torch.autograd.grad(y.sum(), w)
    (expected,) = torch.autograd.grad(call("qat_linear", X, w, None, None, None, None, 8, 8, None, False).sum(), w)
    torch.testing.assert_close(got, expected)


def test_second_derivatives_are_refused_and_not_wrong():
    x, w = X.clone().requires_grad_(), W.clone().requires_grad_()
    y = call("qat_linear", x, w, None, None, None, None, 8, 8, None, False)
    (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.square().sum().backward()


@pytest.mark.parametrize("backend", runnable())
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("shape", [(4, 0), (0, 4)])
def test_layers_without_inputs_or_outputs(backend, bits, shape):
    x, w = torch.randn(3, shape[0], requires_grad=True), torch.randn(shape[1], shape[0], requires_grad=True)
    with use_backend(backend):
        y = call("qat_linear", x, w, None, None, None, None, bits, bits, None, False)
        y.sum().backward()
    assert y.shape == (3, shape[1]) and not y.any() and x.grad.shape == x.shape
