"""Which of this package's functions runs for which op. What is missing here the reference does.

fp64, which only tests use, is the reference's too: no kernel has it.
"""

import functools
from collections.abc import Callable
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
    fake_quant,
    gelu_quantize_rows,
    int8_embedding,
    int8_linear,
    layer_norm_quantize_rows,
    magnitude_mask,
    masked_linear,
    qat_linear,
    quantize_rows,
    sparse_int8_linear,
)


def _unless_fp64(run: Callable[..., Any], reference: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(run)
    def choose(*args: Any) -> Any:
        return (reference if any_fp64(args) else run)(*args)

    return choose


TRITON: dict[str, Callable[..., Any]] = {
    "quantize_rows": _unless_fp64(quantize_rows.quantize_rows, reference_quantize_rows.quantize_rows),
    "layer_norm_quantize_rows": _unless_fp64(
        layer_norm_quantize_rows.layer_norm_quantize_rows, reference_layer_norm.layer_norm_quantize_rows
    ),
    "gelu_quantize_rows": _unless_fp64(gelu_quantize_rows.gelu_quantize_rows, reference_gelu.gelu_quantize_rows),
    "fake_quant": _unless_fp64(fake_quant.fake_quant, reference_fake_quant.fake_quant),
    "fake_quant_backward": _unless_fp64(fake_quant.fake_quant_backward, reference_fake_quant.fake_quant_backward),
    "int8_embedding": _unless_fp64(int8_embedding.int8_embedding, reference_int8_embedding.int8_embedding),
    **{
        op: _unless_fp64(getattr(sparse_int8_linear, op), getattr(reference_sparse, op))
        for op in ("block_sparse_int8_linear", "bitmask_int8_linear", "semi_structured_int8_linear")
    },
    "int8_linear": _unless_fp64(int8_linear.int8_linear, reference_int8_linear.int8_linear),
    "masked_linear": _unless_fp64(masked_linear.masked_linear, reference_masked_linear.masked_linear),
    "masked_linear_backward": _unless_fp64(
        masked_linear.masked_linear_backward, reference_masked_linear.masked_linear_backward
    ),
    "qat_linear": _unless_fp64(qat_linear.qat_linear, reference_qat_linear.qat_linear),
    "qat_linear_backward": _unless_fp64(qat_linear.qat_linear_backward, reference_qat_linear.qat_linear_backward),
    # fp64 too is ranked in fp32, by the reference as well.
    "magnitude_mask": magnitude_mask.magnitude_mask,
}
