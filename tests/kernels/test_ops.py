"""What holds for every op: PyTorch's own check of schema, fake version, autograd and compiled dispatch; backends."""

import pytest
import torch
from torch.utils._pytree import tree_map_only

from sparseq_kernels import InputError, backend, set_backend, use_backend
from sparseq_kernels.backends import runnable, table
from sparseq_kernels.ops import SCHEMAS
from sparseq_kernels.tiles import TileLists

OPS = torch.ops.sparseq


def leaf(*shape, dtype=torch.float32):
    return torch.randn(shape).to(dtype).requires_grad_()


def levels(*shape):
    return torch.randint(-127, 128, shape, dtype=torch.int8)


def positive(*shape):
    return (torch.rand(shape) + 0.1).requires_grad_()


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
TILES = TileLists.from_mask(MASK).tensors()
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
    ],
    "fake_quant_backward": lambda dtype: [
        (torch.randn(3, 6).to(dtype), torch.randn(3, 6).to(dtype), torch.rand(3, 1) + 0.1, 8),
        (torch.randn(2, 3, 6).to(dtype), torch.randn(2, 3, 6).to(dtype), torch.rand(2, 3, 1) + 0.1, 4),
    ],
    "qat_linear": lambda dtype: [
        (leaf(2, 3, 6, dtype=dtype), leaf(4, 6, dtype=dtype)),
        (leaf(3, 6, dtype=dtype), leaf(4, 6, dtype=dtype), leaf(4, dtype=dtype), MASK),
        (leaf(3, 6, dtype=dtype), leaf(4, 6, dtype=dtype), None, None, positive(4), positive(1), 4, 8),
        (leaf(3, 6, dtype=dtype), leaf(4, 6, dtype=dtype), None, MASK, None, None, 16, 16),
        (leaf(3, 6, dtype=dtype), leaf(4, 6, dtype=dtype), None, MASK, None, None, 8, 8, None, False, TILES),
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
        (torch.randn(2, 3, 6).to(dtype), levels(4, 6), torch.rand(4), torch.randn(4), None, "gelu"),
        (torch.randn(3, 6).to(dtype), levels(4, 6), torch.rand(4), None, torch.rand(1), "none", torch.float32),
        (levels(3, 6), levels(4, 6), torch.rand(4), None, torch.rand(3), "relu", None, torch.rand(1)),
    ],
    "block_sparse_int8_linear": lambda dtype: [
        (torch.randn(3, 32).to(dtype), *BLOCKS, torch.rand(32), torch.randn(32))
    ],
    "bitmask_int8_linear": lambda dtype: [(torch.randn(3, 6).to(dtype), *BITMASK, torch.rand(2), None, torch.rand(1))],
    "semi_structured_int8_linear": lambda dtype: [(torch.randn(3, 8).to(dtype), *PAIRS, torch.rand(2), None, None)],
    "int8_embedding": lambda dtype: [(torch.tensor([[1, 0]]), levels(4, 6), torch.rand(4), dtype)],
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


@pytest.mark.parametrize("op", SCHEMAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", runnable())
def test_opcheck(op, dtype, name):
    with use_backend(name):
        for args in SAMPLES[op](dtype):
            torch.library.opcheck(getattr(OPS, op).default, args, atol=1e-2, rtol=1e-2)


def turned(tensor):
    """The same values with the first dimension the innermost in memory."""
    if tensor.dim() < 2:
        return tensor
    laid = tensor.detach().transpose(0, -1).contiguous().transpose(0, -1)
    return laid.requires_grad_(tensor.requires_grad)


@pytest.mark.parametrize("op", SCHEMAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", runnable())
def test_opcheck_of_transposed_arguments(op, dtype, name):
    """Compiled code relies on the strides of the fake version's results."""
    with use_backend(name):
        for args in tree_map_only(torch.Tensor, turned, SAMPLES[op](dtype)):
            torch.library.opcheck(getattr(OPS, op).default, args, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("dtypes", [(torch.float64, torch.float32), (torch.float32, torch.float64)], ids=str)
@pytest.mark.parametrize("name", runnable())
def test_opcheck_of_a_layer_of_two_dtypes(dtypes, name):
    x, weight = leaf(3, 6, dtype=dtypes[0]), leaf(4, 6, dtype=dtypes[1])
    for learned in (None, positive(4)):
        with use_backend(name):
            torch.library.opcheck(OPS.qat_linear.default, (x, weight, leaf(4), MASK, learned), atol=1e-2, rtol=1e-2)


def test_every_op_has_every_backend():
    assert all(set(table(name)) == set(SCHEMAS) == set(SAMPLES) for name in runnable())


def test_the_backend_is_visible_and_forceable():
    assert backend() == "native" and backend("cuda") == "triton"
    with use_backend("reference"):
        assert backend() == "reference"
    assert backend() == "native"
    with pytest.raises(InputError, match="unknown backend 'fast': available are reference, cpu, native, triton"):
        set_backend("fast")


def test_a_forced_backend_that_cannot_run_says_why():
    from sparseq_kernels.backends import implementation

    sentence = "is forced, but it runs on cpu tensors only, and int8_linear got cuda ones"
    with use_backend("cpu"), pytest.raises(InputError, match=sentence):
        implementation("int8_linear", "cuda")
