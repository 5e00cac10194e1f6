"""Which of this package's functions implements which op. What is missing here the reference implements.

fp64, which only tests use, is the reference's too: no kernel has it.
"""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ..numerics import any_fp64
from ..reference import fake_quant as reference_fake_quant
from ..reference import gelu_quantize_rows as reference_gelu
from ..reference import int8_embedding as reference_int8_embedding
from ..reference import int8_linear as reference_int8_linear
from ..reference import layer_norm_quantize_rows as reference_layer_norm
from ..reference import masked_linear as reference_masked_linear
from ..reference import qat_linear as reference_qat_linear
from ..reference import quantize_rows as reference_quantize_rows
from ..reference import sparse_int8_linear as reference_sparse
from . import (
    bitmask_int8_linear,
    block_sparse_int8_linear,
    fake_quant,
    gelu_quantize_rows,
    int8_embedding,
    int8_linear,
    layer_norm_quantize_rows,
    magnitude_mask,
    masked_linear,
    qat_linear,
    quantize_rows,
    semi_structured_int8_linear,
)

# (op, its module here, its module in the reference)
_OPS: tuple[tuple[str, ModuleType, ModuleType], ...] = (
    ("quantize_rows", quantize_rows, reference_quantize_rows),
    ("layer_norm_quantize_rows", layer_norm_quantize_rows, reference_layer_norm),
    ("gelu_quantize_rows", gelu_quantize_rows, reference_gelu),
    ("fake_quant", fake_quant, reference_fake_quant),
    ("fake_quant_backward", fake_quant, reference_fake_quant),
    ("int8_embedding", int8_embedding, reference_int8_embedding),
    ("int8_linear", int8_linear, reference_int8_linear),
    ("block_sparse_int8_linear", block_sparse_int8_linear, reference_sparse),
    ("bitmask_int8_linear", bitmask_int8_linear, reference_sparse),
    ("semi_structured_int8_linear", semi_structured_int8_linear, reference_sparse),
    ("masked_linear", masked_linear, reference_masked_linear),
    ("masked_linear_backward", masked_linear, reference_masked_linear),
    ("qat_linear", qat_linear, reference_qat_linear),
    ("qat_linear_backward", qat_linear, reference_qat_linear),
)


def _unless_fp64(run: Callable[..., Any], reference: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(run)
    def choose(*args: Any) -> Any:
        return (reference if any_fp64(args) else run)(*args)

    return choose


TRITON: dict[str, Callable[..., Any]] = {
    op: _unless_fp64(getattr(module, op), getattr(reference, op)) for op, module, reference in _OPS
}
# The reference too ranks fp64 in fp32.
TRITON["magnitude_mask"] = magnitude_mask.magnitude_mask
