"""`fake_quant` on the CPU: by rows, the quantization and the dequantization that the products have."""

from torch import Tensor

from ..numerics import as_rows
from ..reference import fake_quant as reference
from ..registry import implementation
from .qat_linear import dequantize
from .quantize_rows import quantize_rows


@implementation("fake_quant", "cpu", native=False)
@implementation("fake_quant", "native", native=True)
def fake_quant(x: Tensor, scale: Tensor | None, bits: int, *, native: bool) -> Tensor:
    if scale is not None:
        return reference.fake_quant(x, scale, bits)
    q, scale = quantize_rows(as_rows(x), bits, native=native)
    return dequantize(q, scale, x.dtype, native and bits <= 8).reshape(x.shape)
