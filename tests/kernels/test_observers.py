"""What observes ops while they run: the FLOP counter and torch.fx; and tensors that are lazily negated or zero."""

import subprocess
import sys

import pytest
import torch
from samples import TYPED, cases, of_leaves
from torch import nn

import sparseq
from sparseq.nn import QuantSparseLinear
from sparseq_kernels import int8_linear, masked_linear, qat_linear


@pytest.mark.parametrize("op,args,places", cases())
def test_the_flop_counter_counts_every_product(op, args, places):
    from torch.utils.flop_counter import FlopCounterMode

    function, leaves = of_leaves(TYPED, op, args, places)
    held = [leaf.clone().requires_grad_() for leaf in leaves]
    with FlopCounterMode(display=False) as counter:
        y = function(*held)
    rows = args[0].shape[:-1].numel()
    # A dense weight, or the values that are stored.
    stored = 0 if op == "fake_quant" else args[1].numel()
    forward = counter.get_total_flops()
    assert forward == 2 * rows * stored
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    trained = 2 if op in ("qat_linear", "masked_linear") else 1
    activated = op == "int8_linear" and args[5] != "none"
    assert counter.get_total_flops() == forward * (trained + activated)


def test_the_flop_counter_counts_where_it_was_imported_first():
    code = """
import sys, torch
from torch.utils.flop_counter import FlopCounterMode
import sparseq_kernels
with FlopCounterMode(display=False) as counter:
    w = torch.ones(4, 6)
    sparseq_kernels.masked_linear(torch.ones(3, 6), w, w.bool(), None, False, None)
print(counter.get_total_flops())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(2 * 3 * 4 * 6)


class Calls(nn.Module):
    """As the layers call the ops."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6))
        self.register_buffer("mask", torch.rand(4, 6) > 0.5)
        self.register_buffer("weight_q", torch.randint(-127, 128, (4, 6), dtype=torch.int8))
        self.register_buffer("scale", torch.rand(4))

    def forward(self, x):
        y = masked_linear(x, self.weight, self.mask)
        return y + qat_linear(x, self.weight, None, self.mask) + int8_linear(x, self.weight_q, self.scale)


def test_torch_fx_traces_calls():
    module, x = Calls(), torch.randn(3, 6)
    traced = torch.fx.symbolic_trace(module)
    assert [node.target.name for node in traced.graph.nodes if hasattr(node.target, "schema")] == [
        "masked_linear",
        "qat_linear",
        "int8_linear",
    ]
    assert torch.equal(traced(x), module(x))
    traced(x).sum().backward()
    assert module.weight.grad is not None


def test_views_that_negate_are_read_as_what_they_are():
    packed = sparseq.pack(sparseq.convert(nn.Sequential(nn.Linear(8, 4))))
    layer, x = QuantSparseLinear(8, 4), torch.randn(3, 8)
    for module in (packed, layer):
        with torch.no_grad():
            assert torch.equal(module(torch._neg_view(x)), module(-x))
            assert torch.equal(module(torch._efficientzerotensor(x.shape)), module(torch.zeros(3, 8)))
        held = torch._neg_view(x).requires_grad_()
        plain = (-x).requires_grad_()
        (found,), (expected,) = (torch.autograd.grad(module(one).square().sum(), one) for one in (held, plain))
        assert torch.equal(found, expected)
