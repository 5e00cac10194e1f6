"""The packed linear layer, and how it multiplies."""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.compiler import is_compiling

from sparseq_kernels import backend, int8_linear, qat_linear
from sparseq_kernels.backends import in_use
from sparseq_kernels.dtypes import FLOAT_DTYPES, dtype_name
from sparseq_kernels.formats import FLOAT_BITS, Operands, WeightFormat
from sparseq_kernels.numerics import compute_dtype
from sparseq_kernels.sparse_dispatch import LEAST_ROWS, is_faster
from sparseq_kernels.torch_internals import has_values

from .deprecated import renamed_attribute, warn_renamed
from .inference_mode import normal
from .inputs import check_floating, recorded
from .native_product import NativeProduct
from .packed import Packed, new_scale

# So often a weight is packed anew for native code because the layer's tensors have changed, as under
# `torch.func.functional_call` or an offload of buffers. After that every call takes the op, until `expand`.
MOST_CHANGES = 3


class PackedLinear(Packed):
    """The inference form of a `QuantSparseLinear`: x [..., in_features] -> [..., out_features], in x's dtype.

    On a CPU an fp32 call in inference, of up to 8 bits, is one call of native code. The first one packs the weight for
    the processor, beside the stored one: a byte a weight, or the 4x4 blocks that hold values where they are few. Any
    other call, and one that is traced or compiled, runs the op `int8_linear`, with the same results. Changes of the
    layer's tensors are seen, but for those that torch does not count, such as writes through `.data` or
    `.numpy()`: call `expand()` after them.

    On a GPU a sparse weight of 8 bits can be multiplied as it is stored, by a sparse kernel, without the expanded copy.
    sparse_kernels: None does so where it was measured to be faster (`sparseq_kernels.sparse_dispatch.is_faster`) and
    holds both; True does so always, which saves the copy's memory; False never. `use_sparse_kernels` sets it for a
    whole model.
    """

    bias: Tensor | None
    input_scale: Tensor | None
    sparse_kernels: bool | None = None
    as_stored = renamed_attribute("as_stored", "sparse_kernels")
    # The names and shapes of the tensors of `_op`, and from how many rows of x it is taken.
    _operands: tuple[tuple[str, tuple[int, ...]], ...] = ()
    _least_rows: int = 0
    # On a CPU, the product by native code, or True before the first call that may use it. And how often its tensors
    # were found changed.
    _native: NativeProduct | Literal[True] | None = None
    _changes: int = 0

    def __init__(
        self,
        weight: WeightFormat,
        scale: Tensor | None,
        bias: Tensor | None,
        input_scale: Tensor | None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._hold(weight, scale, dtype)
        self.register_buffer("bias", bias if bias is None else normal(bias))
        self.register_buffer("input_scale", input_scale if input_scale is None else normal(input_scale))

    def expand(self) -> None:
        """As in `Packed`, unless the weight is multiplied as it is stored."""
        self.check()
        weight, values = self.stored_weight(), self.values
        wanted = is_faster(weight) if self.sparse_kernels is None else self.sparse_kernels
        wanted = wanted and has_values(values) and backend(values.device.type) == "triton"
        found = weight.operands() if wanted else None
        self._least_rows = LEAST_ROWS if self.sparse_kernels is None else 0
        self._hold_operands(found)
        expanded = self.is_expanded and (found is None or self._least_rows > 0)
        self._replace_expanded(expanded and not values.is_meta)

    def _hold_operands(self, operands: Operands | None) -> None:
        """Holds what `_op` takes: the stored tensors themselves where it takes those, and buffers for derived ones."""
        for name, _ in self._operands:
            if name not in self._names:
                delattr(self, name)
        self._op, self._operands = None, ()
        if operands is None:
            return
        self._op = operands.op
        for number, (tensor, stored) in enumerate(operands.tensors):
            name = stored or f"_operand{number}"
            if stored is None:
                self.register_buffer(name, normal(tensor), persistent=False)
            self._operands += ((name, tuple(tensor.shape)),)

    def quantized_values(self) -> Tensor:
        if self._op is None or self._least_rows:
            return super().quantized_values()
        return self.stored_weight().to_dense()

    def _stored_operands(self) -> tuple[Tensor, ...]:
        """What `_op` takes between x and the weight's scale."""
        if self._is_current(self._sources()):
            return tuple([getattr(self, name).reshape(shape) for name, shape in self._operands])
        weight = self.stored_weight()
        if has_values(weight.values):
            weight.validate()
        found = weight.operands()
        assert found is not None
        return tuple(operand.tensor for operand in found.tensors)

    def _note_sources(self) -> None:
        super()._note_sources()
        self._forget_native()

    def _forget_native(self) -> None:
        self._native, self._changes = True if self.values.is_cpu else None, 0

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PackedLinear":
        before, loaded = self.values.device.type, self._op is not None or self._expanded is not None
        loaded = loaded and not self.values.is_meta
        self._native = None
        super()._apply(fn, recurse)
        self._forget_native()
        # A layer whose weight is still to be loaded has nothing to expand.
        if loaded and self.values.device.type != before and has_values(self.values):
            self.expand()
        return self

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_op": None, "_operands": (), "_native": None}

    def forward(self, input: Tensor) -> Tensor:
        if not isinstance(input, Tensor):
            return recorded(self, input)
        # What is compiled calls the op.
        if input.dtype is torch.float32 and self._native is not None and not is_compiling():
            result = self._by_native(input)
            if result is not None:
                return result
        if self._buffers.get("input_scale") is not None:
            check_floating(input)  # The op would take int8 for values quantized by that scale.
        if self._op is not None and input.numel() >= self._least_rows * self.in_features:
            operands = self._stored_operands()
            return self._op(input, *operands, self.scale, self.bias, self.input_scale)
        if self._layout["bits"] <= 8:
            # Straight from the buffers: in a small layer a look-up by attribute takes as long as its product.
            own: dict[str, Any] = self._buffers
            values = self.quantized_values() if self._expands else own["values"]
            # Scales and biases may have been made Parameters.
            scale: Any = own["scale"] if "scale" in own else self.scale  # noqa: SIM401
            bias = own["bias"] if "bias" in own else self.bias  # noqa: SIM401
            static = own["input_scale"] if "input_scale" in own else self.input_scale  # noqa: SIM401
            return int8_linear(input, values, scale, bias, static)
        if self.bits == FLOAT_BITS:
            return F.linear(input, self.quantized_values(), self.bias)
        assert self.scale is not None
        dtype = compute_dtype(input)
        scale, weight = self.scale.to(dtype), self._dequantized(dtype)
        static = None if self.input_scale is None else self.input_scale.to(dtype)
        return qat_linear(input, weight, self.bias, None, scale, static, self.bits, 16, None, False)

    def _by_native(self, input: Tensor) -> Tensor | None:
        """The result by native code; None for a call that is left to the op."""
        native = self._native
        if native is True:
            # Not made before: it keeps the tensors that it is of, and those may be replaced.
            if in_use("cpu") != "native":
                return None
            native = self._made_native()
        if native is None or self._op is not None or not native.takes(input):
            return None
        if native.holds(self):
            return native.run(self, input)
        # Of the tensors that are there now, from the next call on, unless they change again and again.
        self._changes += 1
        self._native = None
        if self._changes <= MOST_CHANGES:
            self._made_native()
        return None

    def _made_native(self) -> NativeProduct | None:
        """The product of the tensors that are there now; None if they have none, as the inference tensors that
        `torch.func.functional_call` may put there for a call. Others may have one later."""
        native = NativeProduct.of(self)
        self._changes += native is None
        self._native = native or (True if self._changes <= MOST_CHANGES else None)
        return native

    def settings(self) -> dict[str, Any]:
        """What `from_settings` needs to make the empty layer, as JSON."""
        return {
            "weight": self._layout,
            "bias": None if self.bias is None else dtype_name(self.bias.dtype),
            "static": self.input_scale is not None,
            "dtype": dtype_name(self.dtype),
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "PackedLinear":
        weight, scale, dtype = cls._empty(settings)
        bias = None
        if settings["bias"] is not None:
            dtype_of_bias, device = FLOAT_DTYPES[settings["bias"]], torch.get_default_device()
            bias = torch.zeros(weight.shape[0], dtype=dtype_of_bias, device=device)
        return cls(weight, scale, bias, new_scale(1) if settings["static"] else None, dtype).eval()

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bits={self.bits}, format={self.format}"


def use_sparse_kernels(model: nn.Module, on: bool | None = True) -> nn.Module:
    """Sets `PackedLinear.sparse_kernels` throughout a packed model, and returns it."""
    for module in model.modules():
        if isinstance(module, PackedLinear):
            module.sparse_kernels = on
            module.expand()
    return model


def multiply_as_stored(model: nn.Module, on: bool | None = True) -> nn.Module:
    """Deprecated: use `use_sparse_kernels`."""
    warn_renamed("multiply_as_stored", "use_sparse_kernels")
    return use_sparse_kernels(model, on)
