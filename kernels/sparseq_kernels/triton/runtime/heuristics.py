"""Chooses the `GemmConfig` of a product: a measured one if there is one (`tuned`), else by rules.

A product has M rows (tokens), N outputs and K inputs. With few rows it is bound by reading the weight once, and
many programs should read at once. With many rows it is bound by arithmetic, and tiles should be as large as registers
and shared memory allow.
"""

import functools
from typing import NamedTuple

from ...block_index import BLOCK as TILE
from . import tuned
from .device import INTERPRETER, Device
from .gemm_config import GemmConfig
from .grid import cdiv

SKINNY_ROWS = 32
# What Triton knows of where rows begin: whether a multiple of so many bytes lies between them, and else nothing.
ALIGNED_BYTES = 16
# Inputs from which programs of a product of few rows share the depth.
SKINNY_SHARED_FROM = 3072
# From so many multiplications on, making descriptors takes less than they save.
DESCRIPTORS_FROM = 1 << 32


@functools.lru_cache(maxsize=4096)
def int8_config(M: int, N: int, K: int, x_bytes: int, activation: str, device: Device) -> GemmConfig:
    """For the int8 product of `int8_linear` and of `qat_linear`'s forward.

    x_bytes: of a value of x, 1 where it comes to the product quantized. More than 1 only where `may_quantize_inside`.
    """
    if (measured := tuned.find("int8", M, N, K, x_bytes, device)) is not None:
        return measured
    if M <= SKINNY_ROWS:
        return _skinny(M, N, K, device)
    tiles = _int8_tiles(device, busy=activation in ("gelu", "gelu_tanh"))
    if K % ALIGNED_BYTES:
        # Each value is loaded by itself, through a register, and none ahead: larger tiles spill.
        tile = tiles[-1]
        return GemmConfig(
            tile.m,
            tile.n,
            min(tile.k, 32),
            tile.num_warps,
            num_stages=1,
            quantize_inside=False,
            programs_per_sm=tile.programs_per_sm,
        )
    # Tiles for all processors, or nearly so.
    tile = next((t for t in tiles if 10 * cdiv(M, t.m) * cdiv(N, t.n) >= 9 * device.processors), tiles[-1])
    room = device.shared_bytes // tile.programs_per_sm
    k = next((k for k in (tile.k, tile.k // 2) if room // (k * (tile.m + tile.n)) >= 2), tile.k // 2)
    stages = 2 if device.amd else min(4, room // (k * (tile.m + tile.n)))
    descriptors = device.arch == "sm_90" and M * N * K >= DESCRIPTORS_FROM
    return GemmConfig(
        tile.m,
        tile.n,
        k,
        tile.num_warps,
        stages,
        quantize_inside=False,
        programs_per_sm=tile.programs_per_sm,
        descriptors=descriptors,
    )


class Tile(NamedTuple):
    """Of m x n outputs, k deep; `programs_per_sm` as in GemmConfig. num_stages: the most that registers allow."""

    m: int
    n: int
    k: int
    num_warps: int
    programs_per_sm: int = 1
    num_stages: int = 4


def _int8_tiles(device: Device, busy: bool) -> list[Tile]:
    """Tiles of an int8 product, the most efficient first.

    busy: a tile ends with more work than its product's scales and bias, which needs registers. Those for sm_90 were the
    fastest of many on an H100, where two programs a processor fill each other's gaps; the others are the largest that
    the compiler does not spill.
    """
    if device.arch == INTERPRETER:
        return [Tile(32, 32, 64, 4)]
    if device.arch == "sm_90":
        return [Tile(128, 128, 128, 4, programs_per_sm=2), Tile(64, 64, 128, 4, programs_per_sm=2)]
    wide = device.shared_bytes > 128 * 1024 and not busy
    return [Tile(128, 256, 64, 8) if wide else Tile(128, 128, 64, 8), Tile(64, 128, 64, 4), Tile(64, 64, 64, 4)]


@functools.lru_cache(maxsize=4096)
def gradient_config(
    M: int, N: int, K: int, a_bytes: int, b_bytes: int, device: Device, learned: bool = False
) -> GemmConfig:
    """For a floating product [M, K] x [K, N] of the backward, whose second operand is fake-quantized, inside or before.

    a_bytes, b_bytes: of one value of each operand as it comes, of the second with its mask. learned: whether a tile
    ends with a learned scale's gradient, which needs registers.
    """
    tiles = _gradient_tiles(device, a_bytes, learned)
    choices = [(tile, split) for tile in tiles for split in _splits(M, N, K, tile, device)]
    tile, split = min(choices, key=lambda choice: _gradient_time(M, N, K, choice[0], choice[1], device))
    # One load fewer of the second operand is under way: it goes through registers to a buffer of its own.
    first, second, quantized = (tile.k * size for size in (tile.m * a_bytes, tile.n * b_bytes, tile.n * a_bytes))
    stages = min(tile.num_stages, (device.shared_bytes - quantized + second - 1024) // (first + second))
    return GemmConfig(tile.m, tile.n, tile.k, tile.num_warps, 2 if device.amd else stages, split_k=split)


def _gradient_tiles(device: Device, a_bytes: int, learned: bool) -> list[Tile]:
    """Tiles that do not spill. The taller a tile is, the fewer times the second operand is quantized."""
    if device.arch == INTERPRETER:
        return [Tile(32, 32, 64, 4)]
    from_shared_memory = device.arch in ("sm_90", "sm_100")  # Where matrix units need no registers for an operand.
    if a_bytes == 4:
        tiles = [Tile(64, 128, 32, 8), Tile(64, 64, 16, 4)]
        return [Tile(128, 128, 32, 8), *tiles] if from_shared_memory or device.amd else tiles
    if not from_shared_memory:
        return [Tile(128, 128, 32, 8), Tile(64, 128, 32, 4, num_stages=3), Tile(64, 64, 32, 8)]
    large, small = Tile(128, 128, 64, 8), Tile(64, 64, 64, 4)
    if device.arch == "sm_100":
        return [large, small]
    tiles = [large, Tile(64, 128, 64, 8), small]
    return tiles if learned else [Tile(256, 128, 64, 8), *tiles]


def _splits(M: int, N: int, K: int, tile: Tile, device: Device) -> range:
    """Among how many programs a tile's depth may be shared.

    One if there are tiles for all SMs, else at most as many as have four steps each.
    """
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
def block_product_config(M: int, C: int, value_bytes: int, device: Device) -> GemmConfig:
    """For a product [M, ...] x [..., C] by a mask's block index: a program computes one column of blocks, TILE wide.

    Two programs share an SM: one whose column has few blocks does little but begin and end.
    """
    if device.arch == INTERPRETER:
        return GemmConfig(32, TILE, TILE, num_warps=4, num_stages=2)
    enough = cdiv(M, 128) * cdiv(C, TILE) >= device.processors
    block_m = 128 if enough and value_bytes < 4 else 64
    # Products of fp32 may be three of TF32 each, which takes registers.
    block_k = 16 if value_bytes == 4 else TILE
    room = (device.shared_bytes // 2 - 1024) // ((block_m + TILE) * block_k * value_bytes)
    # Of two bytes: of many columns each has few blocks, and more programs in an SM are worth more than deep pipelines.
    many = cdiv(M, block_m) * cdiv(C, TILE) >= 16 * device.processors
    most = 4 if value_bytes != 2 else 2 if many else 3
    return GemmConfig(block_m, TILE, block_k, num_warps=4, num_stages=2 if device.amd else max(2, min(most, room)))


@functools.lru_cache(maxsize=4096)
def block_gradient_config(M: int, value_bytes: int, device: Device) -> GemmConfig:
    """For the gradient of a masked weight, block by block, M deep.

    split_k: programs that may share one block's depth, of four steps each at least.
    """
    if device.arch == INTERPRETER:
        return GemmConfig(TILE, TILE, 32, num_warps=4, num_stages=2, split_k=max(1, min(4, M // 64)), programs_per_sm=2)
    block_k = 64 if value_bytes == 2 else 32
    stages = 2 if device.amd else 3
    loads = stages * 2 * TILE * block_k * value_bytes
    resident = max(1, min(4, device.shared_bytes // (loads + 1024)))
    warps, split = 8 if value_bytes == 4 else 4, max(1, min(16, M // (4 * block_k)))
    return GemmConfig(TILE, TILE, block_k, warps, stages, split_k=split, programs_per_sm=resident)


def may_quantize_inside(M: int) -> bool:
    """Whether the config of an int8 product decides where a floating x [M, K] is quantized: inside, or before."""
    return M <= SKINNY_ROWS


def skinny_search(K: int, mode: str, config: GemmConfig, x_bytes: int, device: Device) -> int:
    """How much of each row is searched for its maximum at once: all of it, or 32 KiB of all rows, which registers hold.

    0 where the mode is not "max".
    """
    held = 1 << (14 if device.arch == "sm_100" else 15)  # There the compiler spills more.
    return min(1 << max(K - 1, 15).bit_length(), held // (x_bytes * config.block_m)) if mode == "max" else 0


def _skinny(M: int, N: int, K: int, device: Device) -> GemmConfig:
    """For few rows: the narrowest columns that give no SM a second program, for as many loads in flight as possible.

    Programs share the depth only where it is so long that this makes up for the kernel that adds up. A floating x is
    quantized before: on an H200 that was faster for every number of rows and every depth, even with the second launch.
    """
    block_m = 16 if M <= 16 else 32
    block_n = next((n for n in (16, 32) if cdiv(N, n) <= device.processors), 64)
    deepest, shared_from = (64, 128) if device.arch == INTERPRETER else (256, SKINNY_SHARED_FROM)
    split_k = min(4, device.processors // cdiv(N, 32)) if shared_from <= K else 1
    if split_k > 1:
        block_n = max(block_n, 32)
    choices = [deepest, deepest // 2, deepest // 4]
    block_k = next((k for k in choices if K % k == 0), choices[-1])
    num_stages = 1 if K % ALIGNED_BYTES else 2 if device.amd else 5 if block_n == 16 else 4  # 1 as in `int8_config`.
    return GemmConfig(block_m, block_n, block_k, 4, num_stages, split_k=max(1, split_k), quantize_inside=False)
