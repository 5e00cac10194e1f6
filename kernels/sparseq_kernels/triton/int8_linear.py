import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from ..numerics import as_rows, check_depth, given_scale, qmax, result_dtype
from .device import current
from .int8_gemm import int8_descriptor_kernel, int8_skinny_kernel, int8_sum_kernel, int8_tile_kernel
from .launch import empty, launch, on
from .plans import SKINNY_ROWS, Plan, forced, int8_plan, quantizes_inside, skinny_search
from .quantize_rows import row_levels, row_scales
from .runtime import cdiv, run_length


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
    rows = rowwise(as_rows(x))
    (M, K), N = rows.shape, weight.shape[0]
    check_depth(K)
    out = empty((*x.shape[:-1], N), result_dtype(x, out_dtype, output_scale), x.device)
    if M and N:
        scale = vector(given_scale(input_scale)) if x.dtype == torch.int8 else _given(input_scale)
        inside = x.dtype != torch.int8 and quantizes_inside(M, K, scale is not None)
        plan = forced() or int8_plan(M, N, K, x.element_size() if inside else 1, activation, current())
        bias = None if bias is None else bias.contiguous()
        with on(x):
            mode = "levels"
            if x.dtype != torch.int8 and plan.inside:
                mode = "max" if scale is None else "given"
            elif x.dtype != torch.int8:
                rows, scale = row_levels(rows, None, scale, 8)
            operands = (rowwise(weight), vector(weight_scale), bias, out, output_scale)
            launch_product(rows, scale, mode, operands, activation, plan)
    return out


Operands = tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor | None]


def _given(scale: Tensor | None) -> Tensor | None:
    return None if scale is None else vector(scale)


def launch_product(x: Tensor, scale: Tensor | None, mode: str, operands: Operands, activation: str, plan: Plan) -> None:
    """x [M, K], whose scale may be missing in the mode "max" alone, times `operands` (weight [N, K] int8, its scale,
    bias, out [M, N], output scale), by the kernel that suits the number of rows."""
    if len(x) <= SKINNY_ROWS:
        _skinny(x, scale, mode, operands, activation, plan)
        return
    if scale is None:
        scale = row_scales(x, 8)
    weight, weight_scale, bias, out, output_scale = operands
    if plan.descriptors and mode == "levels" and _describable(x) and _describable(weight):
        _descriptors(x, scale, operands, activation, plan)
        return
    launch_tiles(x, scale, mode, 8, weight, weight_scale, "levels", 8, None, bias, out, output_scale, activation, plan)


def _describable(x: Tensor) -> bool:
    """Whether the hardware can copy tiles of x by itself."""
    return x.data_ptr() % 16 == 0 and x.stride(0) % 16 == 0 and x.shape[1] > 0


def _descriptors(x: Tensor, scale: Tensor, operands: Operands, activation: str, plan: Plan) -> None:
    weight, weight_scale, bias, out, output_scale = operands
    (M, K), N = x.shape, weight.shape[0]
    blocks = (plan.block_m, plan.block_n, plan.block_k)
    x_tiles = TensorDescriptor(x, [M, K], [x.stride(0), 1], [blocks[0], blocks[2]])
    w_tiles = TensorDescriptor(weight, [N, K], [weight.stride(0), 1], [blocks[1], blocks[2]])
    tiles = cdiv(M, plan.block_m) * cdiv(N, plan.block_n)
    launch(
        int8_descriptor_kernel,
        (min(tiles, plan.resident * current().processors), 1, 1),
        (x_tiles, scale, w_tiles, weight_scale, bias, out, output_scale, M, N, K),
        (int(scale.numel() > 1 or M == 1), activation, *blocks, plan.group_m, plan.output_parts(out.element_size())),
        plan.warps,
        plan.stages,
    )


def launch_tiles(
    x: Tensor,
    x_scale: Tensor,
    x_mode: str,
    x_bits: int,
    weight: Tensor,
    weight_scale: Tensor,
    weight_mode: str,
    weight_bits: int,
    mask: Tensor | None,
    bias: Tensor | None,
    out: Tensor,
    output_scale: Tensor | None,
    activation: str,
    plan: Plan,
    precision: str = "ieee",
) -> None:
    """One `int8_tile_kernel`: x [M, K] and weight [N, K], both with their values side by side in a row."""
    (M, K), N = x.shape, weight.shape[0]
    tiles = cdiv(M, plan.block_m) * cdiv(N, plan.block_n)
    constants = (
        x_mode,
        int(x_scale.numel() > 1 or M == 1),
        qmax(x_bits),
        weight_mode,
        qmax(weight_bits),
        x_bits <= 8 and weight_bits <= 8,
        precision,
        activation,
        K % plan.block_k == 0,
        plan.block_m,
        plan.block_n,
        plan.block_k,
        plan.group_m,
        plan.output_parts(out.element_size()),
    )
    args = (x, x_scale, weight, weight_scale, mask, bias, out, output_scale, M, N, K, x.stride(0), weight.stride(0))
    grid = (min(tiles, plan.resident * current().processors), 1, 1)
    launch(int8_tile_kernel, grid, args, constants, plan.warps, plan.stages)


def _skinny(x: Tensor, scale: Tensor | None, mode: str, operands: Operands, activation: str, plan: Plan) -> None:
    weight, weight_scale, bias, out, output_scale = operands
    (M, K), N = x.shape, weight.shape[0]
    if scale is None and plan.split > 1:
        scale = empty((M,), torch.float32, x.device)
    stride = int(scale is None or scale.numel() > 1 or M == 1)
    sums = out if plan.split == 1 else empty((plan.split, M, N), torch.int32, x.device)
    columns, row_blocks = cdiv(N, plan.block_n), cdiv(M, plan.block_m)
    tile = (plan.split, plan.block_m, plan.block_n)
    search = skinny_search(K, mode, plan, x.element_size(), current())
    launch(
        int8_skinny_kernel,
        (columns, plan.split, row_blocks),
        (x, scale, weight, weight_scale, bias, sums, output_scale, M, N, K, x.stride(0), weight.stride(0)),
        (mode, stride, activation, K % plan.block_k == 0, *tile, plan.block_k, search),
        plan.warps,
        plan.stages,
    )
    if plan.split > 1:
        launch(
            int8_sum_kernel,
            (columns, row_blocks, 1),
            (sums, scale, weight_scale, bias, out, output_scale, M, N),
            (stride, activation, run_length(N), *tile),
            plan.warps,
            1,
        )


def rowwise(x: Tensor) -> Tensor:
    """x [M, K] with each row's values side by side; a copy only if they are not."""
    return x if x.stride(1) == 1 else x.contiguous()


def vector(scale: Tensor) -> Tensor:
    """Scales as kernels read them: fp32, side by side. What is so already passes untouched, for each call into torch
    takes a microsecond."""
    if scale.dtype is torch.float32 and scale.dim() == 1 and scale.is_contiguous():
        return scale
    return scale.reshape(-1).float().contiguous()
