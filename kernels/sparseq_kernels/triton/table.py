"""Registers this package's functions as Triton's implementations of the ops."""

from ..registry import implementation
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

for _function in (
    quantize_rows.quantize_rows,
    layer_norm_quantize_rows.layer_norm_quantize_rows,
    gelu_quantize_rows.gelu_quantize_rows,
    fake_quant.fake_quant,
    fake_quant.fake_quant_backward,
    int8_embedding.int8_embedding,
    sparse_int8_linear.block_sparse_int8_linear,
    sparse_int8_linear.bitmask_int8_linear,
    sparse_int8_linear.semi_structured_int8_linear,
    int8_linear.int8_linear,
    masked_linear.masked_linear,
    masked_linear.masked_linear_backward,
    qat_linear.qat_linear_backward,
    magnitude_mask.magnitude_mask,
):
    implementation(_function.__name__, "triton")(_function)
implementation("qat_linear", "triton", saves="scales")(qat_linear.qat_linear)
