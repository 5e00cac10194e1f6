"""The exact int8 product on the CPU, by the fastest way that is exact on this machine.

- "int_mm": `torch._int_mm`. On a processor with AVX-512 VNNI it is oneDNN's; on others, and where oneDNN is turned
  off, a plain loop, some 30 times slower than fp32. Held to older instructions (ONEDNN_MAX_CPU_ISA) oneDNN saturates.
  So the processor and torch are asked, and products that would saturate are tried once.
- "native": native/int8_matmul.c.
- "fp32": fp32 products, where there is no native code. Exact, but slower than an fp32 layer by the conversions.
"""

import functools
import warnings

import torch
from torch import Tensor

from ..instruction_sets import instruction_set
from ..numerics import check_depth
from ..torch_internals import has_vnni, int_mm, mkldnn_enabled
from . import native as compiled

CPU = torch.device("cpu")
# Sums of so many products are at most 2^24 = 1024 * 128 * 128, up to where fp32 has every integer. The operands are
# exact in bf16 and TF32 too, in which torch may multiply fp32 matrices if it is allowed to.
FP32_DEPTH = 1024


def int8_matmul(x: Tensor, weight: Tensor, *, native: bool = False) -> Tensor:
    """int8 [M, K] times int8 [N, K] transposed: int32 [M, N], exact for every int8 value.

    native: whether the native code may be used.
    """
    check_depth(x.shape[1])
    return WAYS[way(native)](x, weight)


def way(native: bool) -> str:
    """The name in WAYS of what `int8_matmul` does now; warns, once, where int8 layers may be slower than fp32 ones."""
    if (reason := why_not_int_mm()) is None:
        return "int_mm"
    chosen = "native" if native else "fp32"
    _warn_if_slow(chosen, reason)
    return chosen


def why_not_int_mm() -> str | None:
    """None if `torch._int_mm` is fast and exact here and now, otherwise why it is not."""
    if not mkldnn_enabled():  # may change from call to call
        return "oneDNN is turned off (torch.backends.mkldnn)"
    return why_not_this_processor()


@functools.cache
def why_not_this_processor() -> str | None:
    """As `why_not_int_mm`, without what may change from call to call."""
    if not torch.backends.mkldnn.is_available():
        return "this torch has no oneDNN"
    if not has_vnni():
        return "torch has a fast int8 product only for processors with AVX-512 VNNI"
    if not int_mm_is_exact():
        return (
            "torch's int8 product is wrong here: oneDNN saturates, as it does where ONEDNN_MAX_CPU_ISA holds it to AVX2"
        )
    return None


# (M, K, N) of the products that are tried: oneDNN has code of its own for one row and for what is no whole block.
_TRIED = (
    (1, 64, 64),
    (1, 257, 16),
    (2, 2, 2),
    (3, 65, 7),
    (16, 128, 32),
    (33, 512, 48),
    (64, 1023, 65),
    (130, 64, 130),
)


def int_mm_is_exact() -> bool:
    """Whether `torch._int_mm` gives the exact sums of operands that make code for older processors saturate: there, two
    neighbouring products are added in int16."""
    for M, K, N in _TRIED:
        random = torch.Generator(CPU).manual_seed(K)
        signs = torch.randint(0, 2, (M, K), generator=random, dtype=torch.int8, device=CPU) * 2 - 1
        for x in (signs.new_full((M, K), 127), signs.new_full((M, K), -128), signs * 127):
            for value in (127, -127, -128):
                w = signs.new_full((N, K), value)
                if not torch.equal(_int_mm(x, w), x.to(torch.int32).sum(1, True, dtype=torch.int32) * w[:, 0]):
                    return False
    return True


@functools.cache
def _warn_if_slow(chosen: str, reason: str) -> None:
    if chosen == "fp32":
        remedy = "sparseq's native code, which needs a C compiler (gcc or clang), has a fast one"
    elif instruction_set() == "portable":
        remedy = "sparseq's native code has vector instructions of its own only for x86 processors with AVX2"
    else:
        return
    warnings.warn(
        f"int8 layers may be slower than fp32 ones here, though their results are exact: {reason}; {remedy}",
        stacklevel=2,
    )


def _int_mm(x: Tensor, weight: Tensor) -> Tensor:
    if 0 in (*x.shape, weight.shape[0]):
        return torch.zeros((x.shape[0], weight.shape[0]), dtype=torch.int32, device=CPU)
    if x.shape[1] == 1:
        # oneDNN cannot tell a [1, N] operand's layout and returns uninitialized memory (torch 2.13).
        return x.to(torch.int32) * weight.to(torch.int32).t()
    return int_mm(_row_major(x), _row_major(weight).t())


def _row_major(matrix: Tensor) -> Tensor:
    """Contiguous, with the strides that say so: where a dimension is 1 others would pass, and oneDNN misreads them."""
    if matrix.stride() == (matrix.shape[1], 1):
        return matrix
    return matrix.contiguous().view(-1).view(matrix.shape)


def _by_fp32(x: Tensor, weight: Tensor) -> Tensor:
    sums = torch.zeros((x.shape[0], weight.shape[0]), dtype=torch.int32, device=CPU)
    part = torch.empty(sums.shape, dtype=torch.float32, device=CPU)
    for a, b in zip(x.split(FP32_DEPTH, 1), weight.split(FP32_DEPTH, 1), strict=True):
        # With `out`, for autocast leaves such a product in fp32.
        sums += torch.mm(a.to(torch.float32), b.to(torch.float32).t(), out=part).to(torch.int32)
    return sums


WAYS = {"int_mm": _int_mm, "native": compiled.int8_matmul, "fp32": _by_fp32}
