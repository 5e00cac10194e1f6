"""Linear layers in one call of native code each."""

import ctypes

from torch import Tensor

from ..encoder import EncoderLinear
from ..instruction_sets import instruction_set
from . import native
from .int8_matmul import way
from .native_weight import NativeWeight, check_linear, is_wanted

# For fewer rows, packing a weight for one product costs more time than the product gains by it.
PACKED_FROM = 512


class NativeLinear:
    """y = act(x weight^T + bias) of a weight that is packed for this processor when this is made (`NativeWeight`).

    Results are those of `int8_linear`, to the bit. Calls may run in several threads at once. Raises InputError for a
    layer that native code cannot run.
    """

    def __init__(self, linear: EncoderLinear) -> None:
        N, K = linear.weight.shape
        check_linear("linear", linear, (N, K))
        way(native=True)  # Says, once, where this is slower than fp32.
        self.outputs, self.inputs = N, K
        # Asked for once: another thread may set another.
        self.instruction_set = instruction_set()
        library = native.library_of(self.instruction_set)
        self.weight = NativeWeight(linear, library)
        self._run, self._run_rows = library.sparseq_linear, library.sparseq_linear_of_rows
        self._at = ctypes.addressof(self.weight.linear)

    def __call__(self, x: Tensor) -> Tensor:
        """[..., N] for x [..., K], fp32 on the CPU: not checked.

        Raises:
            MemoryError: if there is no memory for the quantized rows.
        """
        if not x.is_contiguous():
            x = x.contiguous()
        rows, shape = x.numel() // self.inputs, x.shape
        # To slice a shape, or to read one from a tuple, takes as long as to make a tensor.
        y = x.new_empty(rows, self.outputs) if len(shape) == 2 else x.new_empty(*shape[:-1], self.outputs)
        if self._run(self._at, x.data_ptr(), rows, y.data_ptr(), native.threads()):
            raise MemoryError(f"no memory for the {x.numel()} integers of a quantized input")
        return y

    def of_rows(self, q: Tensor, scale: Tensor) -> Tensor:
        """fp32 [M, N] for rows that are quantized already: int8 [M, K] and fp32 [M], on the CPU: not checked.

        Raises:
            MemoryError: as a call.
        """
        q, scale = q.contiguous(), scale.contiguous()
        y = scale.new_empty(q.shape[0], self.outputs)
        if self._run_rows(self._at, q.data_ptr(), scale.data_ptr(), q.shape[0], y.data_ptr(), native.threads()):
            raise MemoryError(f"no memory for the {q.numel()} integers of a quantized input")
        return y


def packs_for(rows: int, weight: Tensor) -> bool:
    """Whether native code runs `packed_product` for so many rows, and it is the faster way to them."""
    return rows >= PACKED_FROM and weight.numel() > 0 and is_wanted(rows)


def packed_product(x: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    """`int8_linear.scaled_product`, to the bit, of a weight that is packed for this product alone.

    int8 [M, K], fp32 [M or 1], int8 [N, K], fp32 [N], fp32 [N] or None -> fp32 [M, N]. InputError for a weight that is
    empty or too deep.
    """
    return NativeLinear(EncoderLinear(weight, weight_scale, bias)).of_rows(x, scale.expand(x.shape[0]))
