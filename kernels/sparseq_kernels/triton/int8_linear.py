"""Host code of `int8_linear`, and of the int8 product that other ops end in."""

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from ..numerics import as_rows, check_depth, given_scale, qmax, result_dtype
from ..registry import implementation, shortcut
from .kernels.int8_linear import int8_descriptor_kernel, int8_skinny_kernel, int8_sum_kernel, int8_tile_kernel
from .operands import contiguous_rows, optional_vector, scale_stride, vector
from .quantize_rows import quantized_rows
from .runtime.device import current
from .runtime.gemm_config import GemmConfig, forced_config
from .runtime.grid import cdiv, run_length
from .runtime.heuristics import SKINNY_ROWS, int8_config
from .runtime.launch import empty, launch, on
from .runtime.launch_cache import LaunchCache

# (weight int8 [N, K], its scale [N], bias [N], out [M, N], output scale)
Operands = tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor | None]


@implementation("int8_linear", "triton")
def int8_linear(
    x: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    input_scale: Tensor | None,
    activation: str,
    out_dtype: torch.dtype | None,
    output_scale: Tensor | None,
) -> Tensor:
    rows = contiguous_rows(as_rows(x))
    (M, K), N = rows.shape, weight.shape[0]
    check_depth(K)
    out = empty((*x.shape[:-1], N), result_dtype(x, out_dtype, output_scale), x.device)
    if M and N:
        config = forced_config() or int8_config(M, N, K, activation, current())
        bias = None if bias is None else bias.contiguous()
        with on(x):
            if x.dtype == torch.int8:
                scale = vector(given_scale(input_scale))
            else:
                # Before the product: a kernel of its own takes less time than quantizing x in every program.
                rows, scale = quantized_rows(rows, None, optional_vector(input_scale), 8)
            operands = (contiguous_rows(weight), vector(weight_scale), bias, out, output_scale)
            launch_product(rows, scale, operands, activation, config)
    return out


def quantized_input(
    x: Tensor, N: int, input_scale: Tensor | None, out_dtype: torch.dtype | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(the output [..., N], still to be written, x's integers [M, K], their scale [M] or one)."""
    rows = contiguous_rows(as_rows(x))
    check_depth(rows.shape[1])
    out = empty((*x.shape[:-1], N), result_dtype(x, out_dtype), x.device)
    if x.dtype == torch.int8:
        return out, rows, vector(given_scale(input_scale))
    return out, *quantized_rows(rows, None, optional_vector(input_scale), 8)


def launch_product(x: Tensor, scale: Tensor, operands: Operands, activation: str, config: GemmConfig) -> None:
    """Launches x int8 [M, K] times `operands`, by the kernel that suits the number of rows. scale: x's, [M] or one."""
    if len(x) <= SKINNY_ROWS:
        _launch_skinny(x, scale, operands, activation, config)
        return
    weight, weight_scale, bias, out, output_scale = operands
    if config.descriptors and _can_be_described(x) and _can_be_described(weight):
        _launch_descriptors(x, scale, operands, activation, config)
        return
    x_side, w_side = (x, scale, "quantized", 8), (weight, weight_scale, "quantized", 8)
    launch_tiles(x_side, w_side, None, bias, out, output_scale, activation, config)


def _can_be_described(x: Tensor) -> bool:
    """Whether the hardware can copy tiles of x by a descriptor."""
    return x.data_ptr() % 16 == 0 and x.stride(0) % 16 == 0 and x.shape[1] > 0


def _launch_descriptors(x: Tensor, scale: Tensor, operands: Operands, activation: str, config: GemmConfig) -> None:
    weight, weight_scale, bias, out, output_scale = operands
    (M, K), N = x.shape, weight.shape[0]
    blocks = (config.block_m, config.block_n, config.block_k)
    x_tiles = TensorDescriptor(x, [M, K], [x.stride(0), 1], [blocks[0], blocks[2]])
    w_tiles = TensorDescriptor(weight, [N, K], [weight.stride(0), 1], [blocks[1], blocks[2]])
    parts = config.output_parts(out.element_size())
    launch(
        int8_descriptor_kernel,
        _persistent_grid(M, N, config),
        (x_tiles, scale, w_tiles, weight_scale, bias, out, output_scale, M, N, K),
        (scale_stride(scale, M), activation, *blocks, config.group_m, parts),
        config.num_warps,
        config.num_stages,
    )


def _persistent_grid(M: int, N: int, config: GemmConfig) -> tuple[int, int, int]:
    """No more programs than run side by side: each computes one tile after another."""
    tiles = cdiv(M, config.block_m) * cdiv(N, config.block_n)
    return min(tiles, config.programs_per_sm * current().processors), 1, 1


# One side of `launch_tiles`: (values [rows, K], scale [rows] or one, mode as the kernel has it, bits).
Side = tuple[Tensor, Tensor, str, int]


def launch_tiles(
    x_side: Side,
    w_side: Side,
    mask: Tensor | None,
    bias: Tensor | None,
    out: Tensor,
    output_scale: Tensor | None,
    activation: str,
    config: GemmConfig,
    precision: str = "ieee",
) -> None:
    """Launches `int8_tile_kernel` of x [M, K] and weight [N, K], both with their values side by side in a row."""
    (x, x_scale, x_mode, x_bits), (weight, weight_scale, weight_mode, weight_bits) = x_side, w_side
    (M, K), N = x.shape, weight.shape[0]
    constants = (
        x_mode,
        scale_stride(x_scale, M),
        qmax(x_bits),
        weight_mode,
        qmax(weight_bits),
        x_bits <= 8 and weight_bits <= 8,
        precision,
        activation,
        K % config.block_k == 0,
        config.block_m,
        config.block_n,
        config.block_k,
        config.group_m,
        config.output_parts(out.element_size()),
    )
    args = (x, x_scale, weight, weight_scale, mask, bias, out, output_scale, M, N, K, x.stride(0), weight.stride(0))
    grid = _persistent_grid(M, N, config)
    launch(int8_tile_kernel, grid, args, constants, config.num_warps, config.num_stages)


def _launch_skinny(x: Tensor, scale: Tensor, operands: Operands, activation: str, config: GemmConfig) -> None:
    weight, weight_scale, bias, out, output_scale = operands
    (M, K), N = x.shape, weight.shape[0]
    sums = out if config.split_k == 1 else empty((config.split_k, M, N), torch.int32, x.device)
    columns, row_blocks = cdiv(N, config.block_n), cdiv(M, config.block_m)
    tile = (config.split_k, config.block_m, config.block_n)
    dependent = current().dependent_launch
    launch(
        int8_skinny_kernel,
        (columns, config.split_k, row_blocks),
        (x, scale, weight, weight_scale, bias, sums, output_scale, M, N, K, x.stride(0), weight.stride(0)),
        (scale_stride(scale, M), activation, K % config.block_k == 0, *tile, config.block_k, dependent),
        config.num_warps,
        config.num_stages,
        dependent,
    )
    if config.split_k > 1:
        launch_sum(sums, scale, operands, activation, config)


def launch_sum(sums: Tensor, scale: Tensor, operands: Operands, activation: str, config: GemmConfig) -> None:
    """Adds up the int32 `sums` [split_k, M, N] of programs that shared the depth, and stores the output."""
    _, weight_scale, bias, out, output_scale = operands
    _, M, N = sums.shape
    launch(
        int8_sum_kernel,
        (cdiv(N, config.block_n), cdiv(M, config.block_m), 1),
        (sums, scale, weight_scale, bias, out, output_scale, M, N),
        (scale_stride(scale, M), activation, run_length(N), config.split_k, config.block_m, config.block_n),
        config.num_warps,
        1,
    )


# A repeated call of a packed layer is cheap on the host. Sparse weights come as new views in each call. An int8 x
# comes with its scale.
CACHE = LaunchCache(of_int8=LaunchCache(inputs=(0, 4)))
shortcut("int8_linear", "triton")(CACHE)
