"""The native code, which a wheel brings (`prebuilt`) or which is built when it is first needed (`build`), called
through ctypes.

Each function trusts its caller: tensors are on the CPU, of the dtypes and shapes that it says. Native code runs on as
many threads as torch does, which are torch's own.
"""

import ctypes
import functools
import math

import torch
from torch import Tensor

from ...instruction_sets import SETS, ask_builder, instruction_set, why_none
from ...numerics import qmax
from . import openmp, prebuilt
from .build import load
from .compiler import HEADERS, SOURCES, CompileError, UnavailableError
from .openmp import threads as threads

CPU = torch.device("cpu")
_P, _I64, _I32, _F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_float
_SIGNATURES = {
    "sparseq_quantize_rows": (_P, _P, _I64, _I64, _I32, _P, _P, _I32),
    "sparseq_scale_sums": (_P, _I64, _I64, _P, _I64, _P, _P, _P, _I32),
    "sparseq_dequantize_rows": (_P, _I64, _I64, _P, _P, _I32),
    "sparseq_mask": (_P, _P, _I64, _P, _I32),
    "sparseq_int8_matmul": (_P, _P, _I64, _I64, _I64, _P, _I32),
    "sparseq_int8_linear": (_P, _P, _I64, _I64, _I64, _P, _I64, _P, _P, _P, _I32),
    "sparseq_quantized_linear": (_P, _P, _I64, _I64, _I64, _I32, _P, _P, _P, _I32),
    "sparseq_layer_norm_quantize_rows": (_P, _P, _P, _P, _F, _I64, _I64, _I32, _P, _P, _P, _I32),
    "sparseq_gelu_quantize_rows": (_P, _I64, _I64, _I32, _P, _P, _P, _I32),
    "sparseq_scaled_product": (_P, _I64, _I64, _P, _P, _I64, _I64, _I64, _P, _P, _I32),
    "sparseq_pack_panels": (_P, _I64, _I64, _P, _I32),
    "sparseq_count_blocks": (_P, _I64, _I64, _P, _I32),
    "sparseq_pack_blocks": (_P, _I64, _I64, _P, _P, _P, _P, _I32),
    "sparseq_panel_bytes": (_I64, _I64),
    "sparseq_panel_columns": (),
    "sparseq_block_size": (),
    "sparseq_block_bytes": (),
    "sparseq_blocks_past": (),
    "sparseq_has_bf16_attention": (),
    "sparseq_encode": (_P, _P, _P, _I64, _P, _I32),
    "sparseq_list_tokens": (_P, _I32, _I64, _I64, _P, _P),
    "sparseq_embed": (_P, _P, _P, _I64, _I64, _P, _I64, _P, _P, _I32),
    "sparseq_spread": (_P, _P, _I64, _I64, _I64, _P),
    "sparseq_linear": (_P, _P, _I64, _P, _I32),
    "sparseq_linear_of_rows": (_P, _P, _P, _I64, _P, _I32),
}
_RESULTS = {
    "sparseq_quantized_linear": ctypes.c_int,
    "sparseq_encode": ctypes.c_int,
    "sparseq_embed": ctypes.c_int,
    "sparseq_list_tokens": _I64,
    "sparseq_linear": ctypes.c_int,
    "sparseq_linear_of_rows": ctypes.c_int,
    "sparseq_scaled_product": ctypes.c_int,
    "sparseq_count_blocks": _I64,
    "sparseq_panel_bytes": _I64,
    "sparseq_panel_columns": _I64,
    "sparseq_block_size": _I64,
    "sparseq_block_bytes": _I64,
    "sparseq_blocks_past": _I64,
    "sparseq_has_bf16_attention": ctypes.c_int32,
}


def why_not() -> str | None:
    """None if the native code runs here, otherwise why it does not. InputError for a wrong set that is forced."""
    if (reason := why_none()) is not None:
        return reason
    return None if (error := failure(instruction_set())) is None else str(error)


@functools.cache
def failure(name: str) -> UnavailableError | None:
    """Why there is no native code of an instruction set; None if there is."""
    try:
        library_of(name)
    except UnavailableError as error:
        return error
    return None


def _why_not_compiled(name: str) -> str | None:
    error = failure(name)
    return str(error) if isinstance(error, CompileError) else None


ask_builder(_why_not_compiled)


def quantize_rows(x: Tensor, bits: int, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """fp32 [M, K], up to 8 bits -> (int8 [M, K], fp32 [M]); x counts as zero where `mask` (bool [M, K]) is False."""
    x, mask = x.contiguous(), None if mask is None else mask.contiguous()
    q = torch.empty(x.shape, dtype=torch.int8, device=CPU)
    scale = torch.empty(x.shape[:1], dtype=torch.float32, device=CPU)
    kept = None if mask is None else mask.data_ptr()
    library().sparseq_quantize_rows(x.data_ptr(), kept, *x.shape, qmax(bits), q.data_ptr(), scale.data_ptr(), threads())
    return q, scale


def scale_sums(acc: Tensor, input_scale: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    """int32 [M, N], fp32 [M or 1], fp32 [N], fp32 [N] or None -> fp32 [M, N]."""
    y = torch.empty(acc.shape, dtype=torch.float32, device=CPU)
    # Held by name while their addresses are in use.
    acc, rows, columns = acc.contiguous(), input_scale.contiguous(), weight_scale.contiguous()
    added = None if bias is None else bias.contiguous()
    library().sparseq_scale_sums(
        acc.data_ptr(),
        *acc.shape,
        rows.data_ptr(),
        0 if rows.numel() == 1 else 1,
        columns.data_ptr(),
        None if added is None else added.data_ptr(),
        y.data_ptr(),
        threads(),
    )
    return y


def int8_matmul(x: Tensor, weight: Tensor) -> Tensor:
    """int8 [M, K] times int8 [N, K] transposed: int32 [M, N], exact for every int8 value."""
    x, weight = x.contiguous(), weight.contiguous()
    (M, K), N = x.shape, weight.shape[0]
    sums = torch.empty((M, N), dtype=torch.int32, device=CPU)
    library().sparseq_int8_matmul(x.data_ptr(), weight.data_ptr(), M, N, K, sums.data_ptr(), threads())
    return sums


def int8_linear(x: Tensor, weight: Tensor, input_scale: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    """`scale_sums` of `int8_matmul`, to the bit, in one pass.

    int8 [M, K], int8 [N, K], fp32 [M or 1], fp32 [N], fp32 [N] or None -> fp32 [M, N].
    """
    x, weight, rows, columns = x.contiguous(), weight.contiguous(), input_scale.contiguous(), weight_scale.contiguous()
    added = None if bias is None else bias.contiguous()
    (M, K), N = x.shape, weight.shape[0]
    y = torch.empty((M, N), dtype=torch.float32, device=CPU)
    library().sparseq_int8_linear(
        x.data_ptr(),
        weight.data_ptr(),
        M,
        N,
        K,
        rows.data_ptr(),
        0 if rows.numel() == 1 else 1,
        columns.data_ptr(),
        None if added is None else added.data_ptr(),
        y.data_ptr(),
        threads(),
    )
    return y


def quantized_linear(x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, bits: int) -> Tensor:
    """`int8_linear` of `quantize_rows(x, bits)`, to the bit, in one call.

    fp32 [..., K], int8 [N, K], fp32 [N], fp32 [N] or None -> fp32 [..., N].
    """
    x, weight, columns = x.contiguous(), weight.contiguous(), weight_scale.contiguous()
    added = None if bias is None else bias.contiguous()
    N, K = weight.shape
    y = torch.empty((*x.shape[:-1], N), dtype=torch.float32, device=CPU)
    failed = library().sparseq_quantized_linear(
        x.data_ptr(),
        weight.data_ptr(),
        math.prod(x.shape[:-1]),
        N,
        K,
        qmax(bits),
        columns.data_ptr(),
        None if added is None else added.data_ptr(),
        y.data_ptr(),
        threads(),
    )
    if failed:
        raise MemoryError(f"no memory for the {x.numel()} integers of a quantized input")
    return y


def dequantize_rows(q: Tensor, scale: Tensor) -> Tensor:
    """int8 [M, K], fp32 [M] -> fp32 [M, K]."""
    y = torch.empty(q.shape, dtype=torch.float32, device=CPU)
    q, scale = q.contiguous(), scale.contiguous()
    library().sparseq_dequantize_rows(q.data_ptr(), *q.shape, scale.data_ptr(), y.data_ptr(), threads())
    return y


def product_with_inputs(grad: Tensor, q: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """grad^T (q * scale[:, None]) and grad's sums by column: the gradients of a weight and a bias.

    fp32 [M, N], int8 [M, K], fp32 [M] -> fp32 [N, K], fp32 [N].
    """
    grad, sums = grad.contiguous(), torch.empty(grad.shape[1], dtype=torch.float32, device=CPU)
    return _scaled_product(grad, 1, grad.shape[1], grad.shape[1], q, scale, sums), sums


def product_with_weight(grad: Tensor, q: Tensor, scale: Tensor) -> Tensor:
    """grad (q * scale[:, None]): the gradient of an input. fp32 [M, N], int8 [N, K], fp32 [N] -> fp32 [M, K]."""
    grad = grad.contiguous()
    return _scaled_product(grad, grad.shape[1], 1, grad.shape[0], q, scale, None)


def _scaled_product(
    a: Tensor, row: int, step: int, rows: int, q: Tensor, scale: Tensor, totals: Tensor | None
) -> Tensor:
    """`sparseq_scaled_product` of gradients.c."""
    q, scale = q.contiguous(), scale.contiguous()
    y = torch.empty(rows, q.shape[1], dtype=torch.float32, device=CPU)
    failed = library().sparseq_scaled_product(
        a.data_ptr(),
        row,
        step,
        scale.data_ptr(),
        q.data_ptr(),
        rows,
        *q.shape,
        y.data_ptr(),
        None if totals is None else totals.data_ptr(),
        threads(),
    )
    if failed:
        raise MemoryError(f"no memory for the panels of a product with {q.numel()} integers")
    return y


def masked(x: Tensor, mask: Tensor) -> Tensor:
    """fp32 and bool of one shape -> x with zeros where the mask is False."""
    x, mask = x.contiguous(), mask.contiguous()
    y = torch.empty(x.shape, dtype=torch.float32, device=CPU)
    library().sparseq_mask(x.data_ptr(), mask.data_ptr(), x.numel(), y.data_ptr(), threads())
    return y


def mask_(x: Tensor, mask: Tensor) -> Tensor:
    """`masked` in place, for a contiguous x."""
    mask = mask.contiguous()
    library().sparseq_mask(x.data_ptr(), mask.data_ptr(), x.numel(), x.data_ptr(), threads())
    return x


def library() -> ctypes.CDLL:
    """The native code of the instruction set in use, with the types of its functions' arguments. UnavailableError where
    it cannot be built."""
    return library_of(instruction_set())


@functools.cache
def library_of(name: str) -> ctypes.CDLL:
    """`library` of an instruction set."""
    library, _ = loaded(name)
    for name, signature in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = signature, _RESULTS.get(name)
    return library


@functools.cache
def loaded(name: str) -> tuple[ctypes.CDLL, bool]:
    """The library of an instruction set, and whether it came with the package. UnavailableError as `library`."""
    openmp.share()
    if (library := prebuilt.load(name)) is not None:
        return library, True
    return load(SOURCES, SETS[name].flags, HEADERS), False
