"""int8 products with sparse weights as stored: the dense product's bits, for any shape, pattern and density."""

import dataclasses

import pytest
import torch
from gpu_or_interpreter import DEVICE, FLOATS, both, integers, randn, same
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseq_kernels.formats import BitmaskWeight, BlockSparseWeight, SemiStructuredWeight, WeightFormat
from sparseq_kernels.sparse_dispatch import operands
from sparseq_kernels.triton.runtime.gemm_config import GemmConfig, use_config

OPS = torch.ops.sparseq


def stored(N: int, K: int, block: tuple[int, int], density: float, seed: int = 0) -> tuple[WeightFormat, torch.Tensor]:
    """(a weight in blocks of that size, or (0, 0) for 2:4, and the same dense)"""
    levels, generator = integers(N, K, seed=seed), torch.Generator().manual_seed(seed)
    if block == (0, 0):
        chosen = torch.rand(N, K // 4, 4, generator=generator).argsort(-1) < round(2 * density)
        mask = chosen.flatten(1).to(DEVICE)
        return SemiStructuredWeight.from_dense(levels, 8, mask), levels * mask
    keep = (torch.rand(N // block[0], K // block[1], generator=generator) < density).to(DEVICE)
    mask = keep.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    format = BitmaskWeight if block == (1, 1) else BlockSparseWeight
    return format.from_dense(levels, 8, mask, block), levels * mask


def check(
    M: int, weight: WeightFormat, dense: torch.Tensor, x: torch.Tensor | None = None, static: bool = False
) -> None:
    N, K = dense.shape
    found = operands(weight)
    assert found is not None
    op, tensors = found
    x = randn(M, K) if x is None else x
    scale, bias = randn(N, seed=2).abs() * 0.01, randn(N, seed=3)
    given = (torch.tensor([0.02], device=DEVICE) if static else None, "relu", torch.float32)
    expected, y = both(op.__name__, x, *tensors, scale, bias, *given)
    assert same(y, expected)
    assert same(OPS.int8_linear(x, dense, scale, bias, *given), expected)


@pytest.mark.parametrize("block", [(1, 1), (0, 0), (16, 16), (16, 32), (32, 16), (64, 64), (128, 128), (32, 128)])
@pytest.mark.parametrize("M", [1, 5, 17, pytest.param(33, marks=pytest.mark.memcheck), 70])
def test_equals_the_dense_product(M: int, block: tuple[int, int]) -> None:
    check(M, *stored(128, 384, block, 0.4))


@pytest.mark.parametrize("density", [0.0, 1.0])
@pytest.mark.parametrize("block", [(1, 1), (0, 0), (16, 64)])
def test_nothing_kept_and_nothing_dropped(block: tuple[int, int], density: float) -> None:
    for M in (3, 40):
        check(M, *stored(32, 192, block, density))


@pytest.mark.parametrize(
    ("N", "K"), [(1, 1), (5, 7), (7, 63), pytest.param(33, 577, marks=pytest.mark.memcheck), (3, 256), (2, 257)]
)
def test_bitmasks_of_odd_sizes(N: int, K: int) -> None:
    for M in (1, 40):
        check(M, *stored(N, K, (1, 1), 0.5))


@settings(deadline=None, max_examples=15)
@given(
    M=st.integers(1, 50),
    rows=st.integers(1, 3),
    columns=st.integers(1, 5),
    block=st.sampled_from([(0, 0), (1, 1), (16, 16), (32, 64), (64, 32)]),
    density=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
    seed=st.integers(0, 99),
)
def test_any_shape_pattern_and_density(
    M: int, rows: int, columns: int, block: tuple[int, int], density: float, seed: int
) -> None:
    unit = {(0, 0): (5, 4), (1, 1): (7, 63)}.get(block, block)
    check(M, *stored(rows * unit[0], columns * unit[1], block, density, seed))


@pytest.mark.parametrize("block", [(1, 1), (0, 0), (16, 16)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_inputs_of_every_kind(dtype: torch.dtype, block: tuple[int, int]) -> None:
    weight, dense = stored(48, 64, block, 0.4)
    for M in (3, 40):
        check(M, weight, dense, randn(M, 64, dtype=dtype))
        check(M, weight, dense, randn(64, M, dtype=dtype).t(), static=True)
        check(M, weight, dense, randn(2, M, 64, dtype=dtype))


@pytest.mark.parametrize("block", [(1, 1), (0, 0), (16, 16)])
def test_empty(block: tuple[int, int]) -> None:
    check(0, *stored(32, 64, block, 0.5))


def test_rows_of_blocks_of_very_different_length() -> None:
    levels = integers(64, 256)
    mask = torch.zeros(64, 256, dtype=torch.bool, device=DEVICE)
    mask[16:32], mask[48:, :16] = True, True
    weight = BlockSparseWeight.from_dense(levels, 8, mask, (16, 16))
    order = operands(weight)[1][3]  # type: ignore[index]
    assert order.tolist() == [1, 3, 0, 2]
    check(40, weight, levels * mask)


@pytest.mark.parametrize("config", [GemmConfig(64, 32, 256, 4, 2, split_k=1), GemmConfig(16, 16, 256, 4, 2, split_k=2)])
@pytest.mark.parametrize("block", [(1, 1), (0, 0)])
def test_every_way_to_share_the_depth(config: GemmConfig, block: tuple[int, int]) -> None:
    with use_config(config):
        check(20, *stored(40, 600, block, 0.5))


@pytest.mark.parametrize("block", [(1, 1), (0, 0), (16, 16)])
@pytest.mark.parametrize("M", [3, 40])
def test_a_weight_anywhere_in_memory(M: int, block: tuple[int, int]) -> None:
    weight, dense = stored(32, 64, block, 0.5)
    moved = torch.zeros(weight.values.numel() + 1, dtype=torch.int8, device=DEVICE)[1:].view_as(weight.values)
    moved.copy_(weight.values)
    check(M, dataclasses.replace(weight, values=moved), dense)


def test_not_finite() -> None:
    x = randn(3, 64)
    x[0, 0], x[1, 0] = float("nan"), float("inf")
    for block in ((1, 1), (0, 0), (16, 16)):
        check(3, *stored(32, 64, block, 0.5), x=x)
