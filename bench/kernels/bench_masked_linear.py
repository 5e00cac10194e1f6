"""masked_linear: a linear layer with a pruned weight in training, forward and backward."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.clock import Call
from bench.kernels.cases import LAYERS, Benchmark, Case, Compare, Trial, layer_case
from bench.kernels.training import Operands, ours
from bench.packages import Libraries
from bench.roofline import Work, joined, work
from bench.target import Target
from sparseq.nn.masking import MOST_BLOCKS
from sparseq_kernels import Pattern
from sparseq_kernels.block_index import BlockIndex

# (pattern, share of weights that are masked). What a CPU leaves out no pattern changes: there one is enough.
MASKS = {True: (("64x64", 0.9), ("unstructured", 0.9)), False: (("unstructured", 0.6),)}
OP = "masked_linear"
DENSE, MULTIPLIED = "dense nn.Linear", "weight * mask, nn.Linear"


def make_mask(target: Target, outputs: int, inputs: int, pattern: str, sparsity: float) -> Tensor:
    """bool [outputs, inputs]: so many blocks of the pattern are masked, of which the last of a row or column may be
    smaller."""
    rows, columns = Pattern.parse(pattern).block
    blocks = -(-outputs // rows), -(-inputs // columns)
    order = torch.rand(blocks[0] * blocks[1], device=target.device).argsort()
    keep = (order >= round(sparsity * order.numel())).reshape(blocks)
    mask = keep.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    return mask[:outputs, :inputs].contiguous()


def make_trial(
    target: Target, libraries: Libraries, M: int, outputs: int, inputs: int, pattern: str, sparsity: float
) -> Trial:
    operands = Operands(target, M, outputs, inputs)
    dtype = target.dtype
    mask = make_mask(target, outputs, inputs, pattern, sparsity)
    factor = mask.to(dtype)
    # As a layer has them: made once a mask, so no part of the step.
    index = BlockIndex.from_mask(mask)
    tiles = index.tensors() if index.density <= MOST_BLOCKS else None

    def multiplied(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x, weight * factor, bias)

    candidates = {
        name: operands.step(ours(library, OP, (mask,), (False, tiles)), dtype) for name, library in libraries.items()
    }
    candidates |= {MULTIPLIED: operands.step(multiplied, dtype), DENSE: operands.step(F.linear, dtype)}

    def check(present: Mapping[str, Call]) -> None:
        x, grad = operands.x.detach().double(), operands.grad.double()
        weight = operands.weight.detach().to(dtype).double() * mask
        output = x @ weight.t() + operands.bias.detach().to(dtype)
        expected = (output, grad @ weight, grad.t() @ x * mask, grad.sum(0))
        for name in [name for name in present if name != DENSE]:
            operands.require(name, candidates[name], expected, 1e-5 if dtype == torch.float32 else 1e-2)

    return Trial(dict(candidates), check)


def least(target: Target, M: int, outputs: int, inputs: int, sparsity: float) -> Work:
    """Of the weights only those that are kept are read and multiplied; the gradient has zeros for the others. The mask
    comes as a bit each."""
    dtype, kept = target.dtype, round((1 - sparsity) * outputs * inputs)
    x, y, bias, mask = (M * inputs, dtype), (M * outputs, dtype), (outputs, dtype), (outputs * inputs // 8, torch.uint8)
    forward = work([x, (kept, dtype), mask, bias, y], (dtype, M * kept))
    gradients = [x, (outputs * inputs, dtype), bias]
    return joined(forward, work([y, x, (kept, dtype), mask, *gradients], (dtype, 2.0 * M * kept)))


def build(target: Target, M: int, inputs: int, outputs: int, pattern: str, sparsity: float) -> Case:
    described = layer_case(outputs, inputs, M, "forward + backward")
    described["layer"] += f", {pattern} {sparsity:.0%}"
    return Case(
        described,
        lambda libraries: make_trial(target, libraries, M, outputs, inputs, pattern, sparsity),
        least(target, M, outputs, inputs, sparsity),
        memory=True,
        inference=False,
    )


BENCHMARK = Benchmark(
    OP,
    "a pruned layer's training step",
    ("M", "K", "N"),
    LAYERS,
    build,
    variants=lambda target: [{"pattern": pattern, "sparsity": sparsity} for pattern, sparsity in MASKS[target.gpu]],
)


def test_masked_linear(compare: Compare, case: Case) -> None:
    compare(case)
