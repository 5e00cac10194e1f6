"""Names of the last release work, and warn of what to use."""

import pytest
import torch
from torch import nn

import sparseq_kernels

X = torch.randn(3, 8)


def test_call_is_the_typed_function():
    weight, mask = nn.Parameter(torch.randn(4, 8)), torch.rand(4, 8) > 0.5
    with pytest.warns(DeprecationWarning, match=r"use sparseq_kernels\.masked_linear\(\.\.\.\)"):
        y = sparseq_kernels.call("masked_linear", X, weight, mask)
    assert torch.equal(y, sparseq_kernels.masked_linear(X, weight, mask)) and y.requires_grad
    with pytest.warns(DeprecationWarning, match=r"use torch\.ops\.sparseq\.fake_quant_backward"):
        sparseq_kernels.call("fake_quant_backward", X, X, torch.ones(()), 8)


def test_the_first_of_several_results_is_given():
    with pytest.warns(DeprecationWarning):
        q = sparseq_kernels.call("quantize_rows", X, 8)
    assert torch.equal(q, sparseq_kernels.quantize_rows(X)[0])


def test_repeated_calls_the_op():
    with pytest.warns(DeprecationWarning, match="call the typed functions"):
        run = sparseq_kernels.Repeated()
    q, scale = sparseq_kernels.quantize_rows(torch.randn(4, 8))
    y = run("int8_linear", X, q, scale, None, None, "none", None, None)
    assert torch.equal(y, sparseq_kernels.int8_linear(X, q, scale))
