"""`GemmConfig`: the tile sizes, warps and pipeline depth that a matrix product's kernels run with."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class GemmConfig:
    """How a matrix product [M, K] x [K, N] is divided among programs and warps.

    A program computes a tile of `block_m` x `block_n` outputs, in steps of `block_k` along K.

    num_warps: warps of a program.
    num_stages: how many steps' loads are in flight at once.
    group_m: rows of tiles that run together, so that they share the second operand in the cache.
    split_k: programs that share one tile's depth K; their sums go to a workspace, which a second kernel adds up.
    quantize_inside: whether `qat_linear` quantizes its operands in the product's kernel; else `quantize_rows` does
        before.
    programs_per_sm: programs that share a streaming multiprocessor (SM), so that one computes while another loads,
        quantizes or stores.
    descriptors: whether the hardware copies tiles by tensor descriptors. Both operands must be int8.
    """

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int
    group_m: int = 8
    split_k: int = 1
    quantize_inside: bool = False
    programs_per_sm: int = 1
    descriptors: bool = False

    @property
    def sums(self) -> int:
        """How many sums of the tile each thread holds, in a register each."""
        return self.block_m * self.block_n // (32 * self.num_warps)

    @property
    def gradient_parts(self) -> int:
        """In how many parts of its columns `gradient_kernel` stores a tile.

        Two where each thread holds 64 sums or more: the epilogue of a whole tile would then need too many registers.
        """
        return 2 if self.sums >= 64 else 1

    def output_parts(self, out_bytes: int) -> int:
        """In how many parts of its columns an int8 product stores a tile, a power of two. out_bytes: of one output.

        A part takes registers for its outputs and their addresses, beside the sums that are still to be stored. With
        128 sums a thread, two parts spill in some variant, and with outputs of four bytes four parts do. So a part has
        at most 32 outputs a thread, 16 if they have four bytes, and at least 16 columns, which is one access to memory.
        """
        most = 16 if out_bytes == 4 else 32
        return max(1, min(self.sums // most, self.block_n // 16)) if self.sums >= 64 else 1


_forced: ContextVar[GemmConfig | None] = ContextVar("sparseq_gemm_config", default=None)


@contextmanager
def use_config(config: GemmConfig | None) -> Iterator[None]:
    """Makes every product of this thread use this config within a `with` block; for tests and tuning."""
    token = _forced.set(config)
    try:
        yield
    finally:
        _forced.reset(token)


def forced_config() -> GemmConfig | None:
    """The config that `use_config` set, None outside of it."""
    return _forced.get()
