"""The packed linear layer, and how it multiplies."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseq_kernels import InputError, backend, int8_linear, qat_linear
from sparseq_kernels.dtypes import FLOAT_DTYPES, dtype_name
from sparseq_kernels.formats import FLOAT_BITS, PackedWeight
from sparseq_kernels.numerics import compute_dtype, positive
from sparseq_kernels.products import LEAST_ROWS, operands, pays
from sparseq_kernels.registry import OPS
from sparseq_kernels.torch_internals import has_values

from .attached import carry_to_packed, check_attached
from .carried import normal
from .inputs import check_floating, recorded
from .linear import QuantSparseLinear
from .pack_weight import Stored, pack_weight
from .packed import Packed, new_scale


class PackedLinear(Packed):
    """The inference form of a `QuantSparseLinear`: x [..., in_features] -> [..., out_features], in x's dtype.

    On a GPU a sparse weight of 8 bits can be multiplied as it is stored, without the expanded copy. as_stored None does
    so where it was measured to be the faster way (`sparseq_kernels.products.pays`) and holds both; True does so always,
    which saves the copy's memory; False never. `multiply_as_stored` sets it for a whole model.
    """

    bias: Tensor | None
    input_scale: Tensor | None
    as_stored: bool | None = None
    # The names and shapes of the tensors of `_op`, and from how many rows of x it is taken.
    _operands: tuple[tuple[str, tuple[int, ...]], ...] = ()
    _least_rows: int = 0

    def __init__(
        self,
        weight: PackedWeight,
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

    @classmethod
    def from_layer(
        cls,
        layer: QuantSparseLinear,
        format: str | None = None,
        stored: Stored | None = None,
        bias: Tensor | None = None,
    ) -> "PackedLinear":
        """`stored`, `bias`: the weight and the bias as packed already for a layer that this one is tied to."""
        check_attached(layer, takes_mask=False)
        weight, scale = stored or pack_weight(layer, format)
        input_scale = None
        if layer.input_scale is not None:
            if not layer.calibrated:
                raise InputError("a layer with static activations has no scale yet: call sparseq.calibrate first")
            input_scale = positive(layer.input_scale.detach().to(torch.float32))
        if bias is None and layer.bias is not None:
            bias = layer.bias.detach().clone()
        packed = cls(weight, scale, bias, input_scale, layer.weight.dtype)
        packed.expand()
        carry_to_packed(layer, packed)
        return packed.eval()

    def expand(self) -> None:
        """As in `Packed`, unless the weight is multiplied as it is stored."""
        weight, values = self.stored_weight(), self.values
        self.check()
        wanted = pays(weight) if self.as_stored is None else self.as_stored
        found = operands(weight) if wanted and has_values(values) and backend(values.device.type) == "triton" else None
        self._op, tensors = found or (None, ())
        self._least_rows = LEAST_ROWS if self.as_stored is None else 0
        # What is stored is not held twice: torch.export loses count of buffers that share memory.
        kept = weight.tensors().items() if tensors else ()
        stored = {tensor.data_ptr(): name for name, tensor in kept if tensor.numel()}
        for name, _ in self._operands:
            if name.startswith("_operand"):
                delattr(self, name)
        self._operands = ()
        for number, tensor in enumerate(tensors):
            name = stored.get(tensor.data_ptr(), f"_operand{number}")
            if name.startswith("_operand"):
                self.register_buffer(name, normal(tensor), persistent=False)
            self._operands += ((name, tuple(tensor.shape)),)
        expanded = self.is_expanded and (found is None or self._least_rows > 0)
        self._replace_expanded(expanded and not values.is_meta)

    def levels(self) -> Tensor:
        return super().levels() if self._op is None or self._least_rows else self.stored_weight().to_dense()

    def _stored_operands(self) -> tuple[Tensor, ...]:
        """What `_op` takes between x and the weight's scale."""
        if self._is_current(self._sources()):
            return tuple([getattr(self, name).view(shape) for name, shape in self._operands])
        weight = self.stored_weight()
        if has_values(weight.values):
            weight.validate()
        found = operands(weight)
        assert found is not None
        return found[1]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PackedLinear":
        before, loaded = self.values.device.type, self._op is not None or self._expanded is not None
        loaded = loaded and not self.values.is_meta
        super()._apply(fn, recurse)
        # A layer whose weight is still to be loaded has nothing to expand.
        if loaded and self.values.device.type != before and has_values(self.values):
            self.expand()
        return self

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_op": None, "_operands": ()}

    def _replicate_for_data_parallel(self) -> "PackedLinear":
        replica: PackedLinear = super()._replicate_for_data_parallel()
        return replica

    def forward(self, input: Tensor) -> Tensor:
        if not isinstance(input, Tensor):
            return recorded(self, input)
        if self._buffers.get("input_scale") is not None:
            check_floating(input)  # The op would take int8 for levels of that scale.
        if self._op is not None and input.numel() >= self._least_rows * self.in_features:
            operands = self._stored_operands()
            return OPS[self._op](input, *operands, self.scale, self.bias, self.input_scale, "none", None)
        if self._layout["bits"] <= 8:
            # Straight from the buffers: on a GPU a small layer takes as long as its call takes on the host.
            own = self._buffers
            levels = self.levels() if self._expands else own["values"]
            # They may have been made Parameters; and a look-up by attribute takes long.
            scale = own["scale"] if "scale" in own else self.scale  # noqa: SIM401
            bias = own["bias"] if "bias" in own else self.bias  # noqa: SIM401
            static = own["input_scale"] if "input_scale" in own else self.input_scale  # noqa: SIM401
            return int8_linear(input, levels, scale, bias, static)
        if self.bits == FLOAT_BITS:
            return F.linear(input, self.levels(), self.bias)
        assert self.scale is not None
        dtype = compute_dtype(input)
        scale, weight = self.scale.to(dtype), self._dequantized(dtype)
        static = None if self.input_scale is None else self.input_scale.to(dtype)
        return qat_linear(input, weight, self.bias, None, scale, static, self.bits, 16, None, False)

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


def multiply_as_stored(model: nn.Module, on: bool | None = True) -> nn.Module:
    """Sets `PackedLinear.as_stored` throughout a packed model, and returns it."""
    for module in model.modules():
        if isinstance(module, PackedLinear):
            module.as_stored = on
            module.expand()
    return model
