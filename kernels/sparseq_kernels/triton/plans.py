"""With which tile sizes a matrix product runs: rules that can be read, overruled by what was measured (`tuned`).

A product has M rows (tokens), N outputs and K inputs. Little M is bound by reading the weight once, and wants many
programs to do it; large M by arithmetic, and wants tiles as large as registers and shared memory hold.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple

from ..block_index import BLOCK as TILE
from . import tuned
from .device import INTERPRETER, Device
from .runtime import cdiv

SKINNY_ROWS = 32
# What Triton knows of where rows begin: whether a multiple of so many bytes lies between them, and else nothing.
ALIGNED_BYTES = 16
# Values of x up to which every program of a product of few rows searches all of it for the rows' maxima.
SEARCHED_INSIDE = 1 << 15
# From so many multiplications on, making descriptors takes less than they save.
DESCRIPTORS_FROM = 1 << 32


@dataclass(frozen=True)
class Plan:
    """A tile of block_m x block_n outputs, block_k deep, by `warps` warps with `stages` loads under way.

    group_m: rows of tiles that run together, so that they share the second operand in the cache.
    split: programs that share one tile's depth; their sums meet in a workspace, which a second kernel adds up.
    inside: whether a floating x is quantized in the product itself, or by `quantize_rows` before.
    resident: programs that share a processor, so that one computes while another loads, quantizes or stores.
    descriptors: whether the hardware copies tiles by descriptors, of which operands in int8 can have one each.
    """

    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int
    group_m: int = 8
    split: int = 1
    inside: bool = True
    resident: int = 1
    descriptors: bool = False

    @property
    def sums(self) -> int:
        """How many sums of the tile each thread holds, in a register each."""
        return self.block_m * self.block_n // (32 * self.warps)

    @property
    def gradient_parts(self) -> int:
        """In how many parts of its columns `gradient_kernel` writes a tile: in halves where each thread holds 64 sums
        or more, or registers would not do for what it computes at its end."""
        return 2 if self.sums >= 64 else 1

    def output_parts(self, out_bytes: int) -> int:
        """In how many parts of its columns a tile of an int8 product is written, a power of two. out_bytes: of one
        output.

        A part takes registers for its outputs and for their addresses beside all sums that wait: the compiler spills
        some variant of a tile of 128 sums a thread in two parts, and with outputs of four bytes in four. So a part has
        at most 32 outputs a thread, and 16 of four bytes; but no fewer than 16 columns, which memory takes at once.
        """
        most = 16 if out_bytes == 4 else 32
        return max(1, min(self.sums // most, self.block_n // 16)) if self.sums >= 64 else 1


_forced: ContextVar[Plan | None] = ContextVar("sparseq_plan", default=None)


@contextmanager
def use_plan(plan: Plan | None) -> Iterator[None]:
    """Runs every product of this thread by this plan within a `with` block, for tests and tuning."""
    token = _forced.set(plan)
    try:
        yield
    finally:
        _forced.reset(token)


def forced() -> Plan | None:
    """The plan of `use_plan`, if one is in force."""
    return _forced.get()


@functools.lru_cache(maxsize=4096)
def int8_plan(M: int, N: int, K: int, x_bytes: int, activation: str, device: Device) -> Plan:
    """For the product that `int8_linear` and the forward of `qat_linear` are. x_bytes: of a value of x as it comes to
    the product, 1 of levels; more only where `quantizes_inside`."""
    if (measured := tuned.find("int8", M, N, K, x_bytes, device)) is not None:
        return measured
    if M <= SKINNY_ROWS:
        return _skinny(M, N, K, x_bytes, device)
    tiles = _int8_tiles(device, busy=activation in ("gelu", "gelu_tanh"))
    if K % ALIGNED_BYTES:
        # Each level is loaded by itself, through a register, and none ahead: larger tiles spill.
        tile = tiles[-1]
        return Plan(tile.m, tile.n, min(tile.k, 32), tile.warps, stages=1, inside=False, resident=tile.resident)
    # Tiles for all processors, or nearly so.
    tile = next((t for t in tiles if 10 * cdiv(M, t.m) * cdiv(N, t.n) >= 9 * device.processors), tiles[-1])
    room = device.shared_bytes // tile.resident
    k = next((k for k in (tile.k, tile.k // 2) if room // (k * (tile.m + tile.n)) >= 2), tile.k // 2)
    stages = 2 if device.amd else min(4, room // (k * (tile.m + tile.n)))
    descriptors = device.arch == "sm_90" and M * N * K >= DESCRIPTORS_FROM
    return Plan(tile.m, tile.n, k, tile.warps, stages, inside=False, resident=tile.resident, descriptors=descriptors)


class Tile(NamedTuple):
    """Of m x n outputs, k deep; `resident` as in Plan. stages: the most that are not too many for registers."""

    m: int
    n: int
    k: int
    warps: int
    resident: int = 1
    stages: int = 4


def _int8_tiles(device: Device, busy: bool) -> list[Tile]:
    """Tiles of an int8 product, the most efficient first.

    busy: a tile ends with more work than its product's scales and bias, which needs registers. Those for sm_90 were the
    fastest of many on an H100, where two programs a processor fill each other's gaps; the others are the largest that
    the compiler does not spill.
    """
    if device.arch == INTERPRETER:
        return [Tile(32, 32, 64, 4)]
    if device.arch == "sm_90":
        return [Tile(128, 128, 128, 4, resident=2), Tile(64, 64, 128, 4, resident=2)]
    wide = device.shared_bytes > 128 * 1024 and not busy
    return [Tile(128, 256, 64, 8) if wide else Tile(128, 128, 64, 8), Tile(64, 128, 64, 4), Tile(64, 64, 64, 4)]


@functools.lru_cache(maxsize=4096)
def gradient_plan(M: int, N: int, K: int, a_bytes: int, b_bytes: int, device: Device, learned: bool = False) -> Plan:
    """For a floating product [M, K] x [K, N] of the backward, whose second operand is fake-quantized, inside or before.

    a_bytes, b_bytes: of one value of each operand as it comes, of the second with its mask. learned: whether a tile
    ends with a learned scale's gradient, which needs registers.
    """
    tiles = _gradient_tiles(device, a_bytes, learned)
    choices = [(tile, split) for tile in tiles for split in _splits(M, N, K, tile, device)]
    tile, split = min(choices, key=lambda choice: _gradient_time(M, N, K, choice[0], choice[1], device))
    # One load fewer of the second operand is under way: it goes through registers to a buffer of its own.
    first, second, quantized = (tile.k * size for size in (tile.m * a_bytes, tile.n * b_bytes, tile.n * a_bytes))
    stages = min(tile.stages, (device.shared_bytes - quantized + second - 1024) // (first + second))
    return Plan(tile.m, tile.n, tile.k, tile.warps, 2 if device.amd else stages, split=split)


def _gradient_tiles(device: Device, a_bytes: int, learned: bool) -> list[Tile]:
    """Tiles that the compiler does not spill. The taller they are, the fewer times the second operand is quantized."""
    if device.arch == INTERPRETER:
        return [Tile(32, 32, 64, 4)]
    from_shared_memory = device.arch in ("sm_90", "sm_100")  # Where matrix units need no registers for an operand.
    if a_bytes == 4:
        tiles = [Tile(64, 128, 32, 8), Tile(64, 64, 16, 4)]
        return [Tile(128, 128, 32, 8), *tiles] if from_shared_memory or device.amd else tiles
    if not from_shared_memory:
        return [Tile(128, 128, 32, 8), Tile(64, 128, 32, 4, stages=3), Tile(64, 64, 32, 8)]
    large, small = Tile(128, 128, 64, 8), Tile(64, 64, 64, 4)
    if device.arch == "sm_100":
        return [large, small]
    tiles = [large, Tile(64, 128, 64, 8), small]
    return tiles if learned else [Tile(256, 128, 64, 8), *tiles]


def _splits(M: int, N: int, K: int, tile: Tile, device: Device) -> range:
    """Among how many programs a tile's depth may be shared: one if there are tiles for all processors, else as many as
    have four steps each."""
    busy = cdiv(M, tile.m) * cdiv(N, tile.n) >= device.processors
    return range(1, 2 if busy else max(1, min(16, K // (4 * tile.k))) + 1)


def _gradient_time(M: int, N: int, K: int, tile: Tile, split: int, device: Device) -> int:
    """An estimate of the time that a product takes, in multiplications of one processor.

    The busiest processor runs its programs one after the other. In each step of depth they multiply m * n values and
    load m + n, for 64 multiplications each. Shared depth costs a second kernel's start, and eight bytes of memory for
    each sum that is written and read, at one multiplication a byte.
    """
    rounds = cdiv(cdiv(M, tile.m) * cdiv(N, tile.n) * split, device.processors)
    depth = cdiv(cdiv(K, tile.k), split) * tile.k
    time = rounds * depth * (tile.m * tile.n + 64 * (tile.m + tile.n))
    return time if split == 1 else time + 8 * split * M * N + (1 << 23)


@functools.lru_cache(maxsize=4096)
def tile_plan(M: int, C: int, value_bytes: int, device: Device) -> Plan:
    """For a product [M, ...] x [..., C] over a mask's tiles, of which a program takes one column, TILE wide. Two
    programs share a processor: one of few tiles does little but begin and end."""
    if device.arch == INTERPRETER:
        return Plan(32, TILE, TILE, warps=4, stages=2)
    enough = cdiv(M, 128) * cdiv(C, TILE) >= device.processors
    block_m = 128 if enough and value_bytes < 4 else 64
    # Products of fp32 may be three of TF32 each, which takes registers.
    block_k = 16 if value_bytes == 4 else TILE
    stages = (device.shared_bytes // 2 - 1024) // ((block_m + TILE) * block_k * value_bytes)
    return Plan(block_m, TILE, block_k, warps=4, stages=2 if device.amd else max(2, min(4, stages)))


@functools.lru_cache(maxsize=4096)
def tile_gradient_plan(M: int, value_bytes: int, device: Device) -> Plan:
    """For the gradient of a masked weight, tile by tile, M deep. split: programs that may share one, of four steps each
    at least."""
    if device.arch == INTERPRETER:
        return Plan(TILE, TILE, 32, warps=4, stages=2, split=max(1, min(4, M // 64)), resident=2)
    block_k = 64 if value_bytes == 2 else 32
    stages = 2 if device.amd else 3
    loads = stages * 2 * TILE * block_k * value_bytes
    resident = max(1, min(4, device.shared_bytes // (loads + 1024)))
    warps, split = 8 if value_bytes == 4 else 4, max(1, min(16, M // (4 * block_k)))
    return Plan(TILE, TILE, block_k, warps, stages, split=split, resident=resident)


def quantizes_inside(M: int, K: int, given: bool) -> bool:
    """Whether a floating x [M, K] of `int8_linear` is quantized in the product itself: by every program anew, which
    pays where x is so small that reading it again takes less than another kernel. given: whether its scale is."""
    return M <= SKINNY_ROWS and (given or M * K <= SEARCHED_INSIDE)


def skinny_search(K: int, mode: str, plan: Plan, x_bytes: int, device: Device) -> int:
    """How much of each row is searched for its maximum at once: 32 KiB of all rows, which registers hold, or all of it;
    0 where the mode is not "max"."""
    held = 1 << (14 if device.arch == "sm_100" else 15)  # There the compiler spills more.
    return min(1 << max(K - 1, 15).bit_length(), held // (x_bytes * plan.block_m)) if mode == "max" else 0


def _skinny(M: int, N: int, K: int, x_bytes: int, device: Device) -> Plan:
    """The narrowest columns that give no processor a second program: loads under way are what reads the weight fast.
    Depth is shared only where it is so long that it makes up for the kernel that adds up, and what is quantized inside
    is by twice the warps."""
    block_m = 16 if M <= 16 else 32
    block_n = next((n for n in (16, 32) if cdiv(N, n) <= device.processors), 64)
    deepest, shared = (64, 128) if device.arch == INTERPRETER else ((1 << 14) // (block_m * max(x_bytes, 2)), 8192)
    # What is quantized inside needs room beside what was loaded.
    loads, quantized, room = block_m * x_bytes + block_n, block_m * (x_bytes > 1), device.shared_bytes - 1024
    choices = [deepest, deepest // 2, deepest // 4]
    block_k = next((k for k in choices if K % k == 0 and k * (loads + quantized) <= room), choices[-1])
    split = max(1, min(K // shared, device.processors // cdiv(N, block_n)))
    stages = 2 if device.amd else max(2, min(4, (room - block_k * quantized) // (block_k * loads)))
    stages = 1 if K % ALIGNED_BYTES else stages  # As in `int8_plan`.
    inside = x_bytes > 1
    return Plan(block_m, block_n, block_k, 8 if inside else 4, stages, split=split, inside=inside)
