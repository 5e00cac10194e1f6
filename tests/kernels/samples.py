"""Arguments of each op, by which tests that hold for every op call it."""

import importlib

import pytest
import torch
from torch import Tensor

from sparseq_kernels import registry
from sparseq_kernels.block_index import BlockIndex

OPS = torch.ops.sparseq
DIFFERENTIABLE = [op.name for op in registry.OPS.values() if op.differentiable]
CONSTANT = [op.name for op in registry.OPS.values() if not op.differentiable and op.no_gradient is None]


def leaf(*shape, dtype=torch.float32):
    return torch.randn(shape).to(dtype).requires_grad_()


def values(*shape):
    return torch.randint(-127, 128, shape, dtype=torch.int8)


def positive(*shape):
    return (torch.rand(shape) + 0.1).requires_grad_()


def given_quantized(x, weight, bias):
    """The arguments of `qat_linear` with x's integers beside it."""
    return x, weight, bias, None, None, None, 8, 8, None, False, None, *registry.OPS["quantize_rows"](x.detach(), 8)


MASK = torch.rand(4, 6) > 0.5
I32 = torch.int32
# Sparse weights as their ops take them: a block of two in a row of blocks and none in another; 4 values of 2 x 6; 2:4.
BLOCKS = (
    torch.ones(1, 16, 16, dtype=torch.int8),
    torch.ones(1, dtype=I32),
    torch.tensor([0, 1, 1], dtype=I32),
    torch.arange(2, dtype=I32),
)
BITMASK = (
    torch.arange(4, dtype=torch.int8),
    torch.tensor([[0b100110], [0b000001]], dtype=torch.uint8),
    torch.tensor([[0], [3]], dtype=I32),
)
PAIRS = (torch.ones(2, 4, dtype=torch.int8), torch.full((2, 1), 0b11100100, dtype=torch.uint8))
BOTH = [True, True]
TILES = BlockIndex.from_mask(MASK).tensors()
SAMPLES = {
    "quantize_rows": lambda dtype: [(torch.randn(3, 6).to(dtype),), (torch.randn(0, 6).to(dtype), 4)],
    "layer_norm_quantize_rows": lambda dtype: [
        (torch.randn(2, 3, 6).to(dtype), torch.randn(2, 3, 6).to(dtype), torch.rand(6), torch.randn(6)),
        (torch.randn(3, 6).to(dtype), None, torch.rand(6), torch.randn(6), 1e-5, 4),
    ],
    "gelu_quantize_rows": lambda dtype: [(torch.randn(2, 3, 6).to(dtype),), (torch.randn(3, 6).to(dtype), "tanh", 16)],
    "fake_quant": lambda dtype: [
        (leaf(3, 6, dtype=dtype), positive(), 8),
        (leaf(3, 6, dtype=dtype), positive(3, 1), 4),
        (leaf(2, 3, 6, dtype=dtype), None, 8),
    ],
    "fake_quant_backward": lambda dtype: [
        (torch.randn(3, 6).to(dtype), torch.randn(3, 6).to(dtype), torch.rand(3, 1) + 0.1, 8),
        (torch.randn(2, 3, 6).to(dtype), torch.randn(2, 3, 6).to(dtype), torch.rand(2, 3, 1) + 0.1, 4),
        (torch.randn(2, 3, 6).to(dtype), None, None, 8),
    ],
    "qat_linear": lambda dtype: [
        (leaf(2, 3, 6, dtype=dtype), leaf(4, 6, dtype=dtype)),
        (leaf(3, 6, dtype=dtype), leaf(4, 6, dtype=dtype), leaf(4, dtype=dtype), MASK),
        (leaf(3, 6, dtype=dtype), leaf(4, 6, dtype=dtype), None, None, positive(4), positive(1), 4, 8),
        (leaf(3, 6, dtype=dtype), leaf(4, 6, dtype=dtype), None, MASK, None, None, 16, 16),
        (leaf(3, 6, dtype=dtype), leaf(4, 6, dtype=dtype), None, MASK, None, None, 8, 8, None, False, TILES),
        given_quantized(leaf(2, 3, 6, dtype=dtype), leaf(4, 6, dtype=dtype), leaf(4)),
    ],
    "qat_linear_backward": lambda dtype: [
        (
            torch.randn(3, 4).to(dtype),
            torch.randn(3, 6).to(dtype),
            torch.randn(4, 6).to(dtype),
            MASK,
            torch.rand(4) + 0.1,
            torch.rand(1) + 0.1,
            [],
            8,
            8,
            dtype,
            False,
            [True] * 5,
            TILES,
        )
    ],
    "int8_linear": lambda dtype: [
        (leaf(2, 3, 6, dtype=dtype), values(4, 6), torch.rand(4), leaf(4), None, "gelu"),
        (torch.randn(3, 6).to(dtype), values(4, 6), torch.rand(4), None, torch.rand(1), "none", torch.float32),
        (values(3, 6), values(4, 6), torch.rand(4), None, torch.rand(3), "relu", None, torch.rand(1)),
    ],
    "block_sparse_int8_linear": lambda dtype: [(leaf(3, 32, dtype=dtype), *BLOCKS, torch.rand(32), leaf(32))],
    "bitmask_int8_linear": lambda dtype: [(leaf(3, 6, dtype=dtype), *BITMASK, torch.rand(2), None, torch.rand(1))],
    "semi_structured_int8_linear": lambda dtype: [(leaf(3, 8, dtype=dtype), *PAIRS, torch.rand(2), None, None)],
    "int8_linear_backward": lambda dtype: [
        (
            torch.randn(2, 3, 4).to(dtype),
            torch.randn(2, 3, 6).to(dtype),
            values(4, 6),
            torch.rand(4),
            torch.randn(4),
            torch.rand(1),
            "gelu",
            6,
            dtype,
            [True] * 2,
        )
    ],
    "block_sparse_int8_linear_backward": lambda dtype: [
        (torch.randn(3, 32).to(dtype), None, *BLOCKS, torch.rand(32), None, None, "none", 32, dtype, [True, False])
    ],
    "bitmask_int8_linear_backward": lambda dtype: [
        (torch.randn(3, 2).to(dtype), None, *BITMASK, torch.rand(2), None, None, "none", 6, dtype, [True, True])
    ],
    "semi_structured_int8_linear_backward": lambda dtype: [
        (torch.randn(3, 2).to(dtype), None, *PAIRS, torch.rand(2), None, None, "none", 8, dtype, [False, True])
    ],
    "int8_embedding": lambda dtype: [(torch.tensor([[1, 0]]), values(4, 6), torch.rand(4), dtype)],
    "masked_linear": lambda dtype: [
        (leaf(2, 3, 6, dtype=dtype), leaf(4, 6, dtype=dtype), MASK, leaf(4, dtype=dtype)),
        (leaf(3, 6, dtype=dtype), leaf(4, 6, dtype=dtype), MASK, None, True),
        (leaf(3, 6, dtype=dtype), leaf(4, 6), MASK, leaf(4), False, TILES),
    ],
    "masked_linear_backward": lambda dtype: [
        (
            torch.randn(3, 4).to(dtype),
            torch.randn(3, 6).to(dtype),
            torch.randn(4, 6).to(dtype),
            MASK,
            False,
            [True] * 3,
        ),
        (torch.randn(3, 4).to(dtype), torch.randn(3, 6).to(dtype), torch.randn(4, 6), MASK, False, [True] * 3, TILES),
    ],
    "magnitude_mask": lambda dtype: [([torch.randn(4, 8).to(dtype), torch.randn(8, 8).to(dtype)], 0.5, "2:4")],
}


def of_own_tests():
    """The samples of ops that are not above: what the tests of each, `test_OP.py`, define as SAMPLES."""
    named = {op.removesuffix("_backward") for op in registry.OPS if op not in SAMPLES}
    found = {}
    for op in named:
        found |= importlib.import_module(f"test_{op}").SAMPLES
    return found


SAMPLES |= of_own_tests()

# The two ways to call an op: that of the typed functions, and torch's.
TYPED, TORCH = "typed", "torch.ops"


def call(op, *args):
    """The first result of an op, as its typed function calls it."""
    result = registry.OPS[op](*args)
    return result if isinstance(result, Tensor) else result[0]


def run(way, op, args):
    """The first result of an op, by one of the two ways."""
    if way == TYPED:
        return call(op, *args)
    result = getattr(OPS, op)(*args)
    return result if isinstance(result, Tensor) else result[0]


def cases():
    """(op, sample, the places of what has a gradient) of each op that has one, as pytest's parameters."""
    return list(_cases())


def _cases():
    for op in DIFFERENTIABLE:
        for number, sample in enumerate(SAMPLES[op](torch.float64)):
            places = [i for i, arg in enumerate(sample) if isinstance(arg, Tensor) and arg.requires_grad]
            args = [arg.detach() if isinstance(arg, Tensor) else arg for arg in sample]
            if places:
                yield pytest.param(op, args, places, id=f"{op}-{number}")


def of_leaves(way, op, args, places):
    """The op as a function of what has a gradient alone."""

    def function(*leaves):
        given = list(args)
        for place, leaf in zip(places, leaves, strict=True):
            given[place] = leaf
        return run(way, op, given)

    return function, tuple(args[place] for place in places)


def gradients(function, leaves, weights):
    held = [leaf.clone().requires_grad_() for leaf in leaves]
    return torch.autograd.grad(function(*held), held, weights)
