"""The packed linear layer, and how it multiplies."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.compiler import is_compiling

from sparseq_kernels import InputError, Repeated, backend, call
from sparseq_kernels.formats import FLOAT_BITS, PackedWeight
from sparseq_kernels.products import LEAST_ROWS, operands, pays
from sparseq_kernels.untrusted import FLOAT_DTYPES, dtype_name

from .linear import QuantSparseLinear
from .packed import Packed, Stored, pack_weight


class PackedLinear(Packed):
    """The inference form of a `QuantSparseLinear`: x [..., in_features] -> [..., out_features], in x's dtype.

    On a GPU a sparse weight of 8 bits can be multiplied as it is stored, without the expanded copy. as_stored None does
    so where it was measured to be the faster way (`sparseq_kernels.products.pays`) and holds both; True does so always,
    which saves the copy's memory; False never. `multiply_as_stored` sets it for a whole model.
    """

    bias: Tensor | None
    input_scale: Tensor | None
    as_stored: bool | None = None
    # The op that multiplies by what is stored, its tensors' names and shapes, and from how many rows of x it does.
    _op: str | None = None
    _operands: tuple[tuple[str, tuple[int, ...]], ...] = ()
    _least_rows: int = 0

    def __init__(
        self, weight: PackedWeight, scale: Tensor | None, bias: Tensor | None, input_scale: Tensor | None
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._repeated = Repeated()
        self._hold(weight, scale)
        # The buffer that int8_linear multiplies by; None where there are more than 8 bits.
        self._integers = ("_expanded" if self.is_expanded else "values") if weight.bits <= 8 else None
        self.register_buffer("bias", bias)
        self.register_buffer("input_scale", input_scale)

    @classmethod
    def from_layer(
        cls, layer: QuantSparseLinear, format: str | None = None, stored: Stored | None = None
    ) -> "PackedLinear":
        """`stored`: the weight as packed already for a layer that this one is tied to."""
        weight, scale = stored or pack_weight(layer, format)
        input_scale = None
        if layer.input_scale is not None:
            if not layer.calibrated:
                raise InputError("a layer with static activations has no scale yet: call sparseq.calibrate first")
            input_scale = layer.input_scale.detach().abs().clone()
        bias = None if layer.bias is None else layer.bias.detach().clone()
        packed = cls(weight, scale, bias, input_scale)
        packed.expand()
        return packed.eval()

    def expand(self) -> None:
        """As in `Packed`, unless the weight is multiplied as it is stored."""
        self._repeated = Repeated()  # What was recorded keeps the weights that it is for.
        weight, values = self.stored_weight(), self.values
        wanted = pays(weight) if self.as_stored is None else self.as_stored
        there = not values.is_meta and not isinstance(values, FakeTensor)
        found = operands(weight) if wanted and there and backend(values.device.type) == "triton" else None
        self._op, tensors = found or (None, ())
        self._least_rows = LEAST_ROWS if self.as_stored is None else 0
        # What is stored is not held twice: torch.export loses count of buffers that share memory.
        stored = {tensor.data_ptr(): name for name, tensor in weight.tensors().items() if tensor.numel()}
        for name, _ in self._operands:
            if name.startswith("_operand"):
                delattr(self, name)
        self._operands = ()
        for number, tensor in enumerate(tensors):
            name = stored.get(tensor.data_ptr(), f"_operand{number}")
            if name.startswith("_operand"):
                self.register_buffer(name, tensor, persistent=False)
            self._operands += ((name, tuple(tensor.shape)),)
        if found is None or self._least_rows:
            super().expand()
        else:
            weight.validate()
            # Behind the buffers that hold something: torch.export miscounts those that follow an empty one.
            del self._expanded
            self.register_buffer("_expanded", None, persistent=False)

    def levels(self) -> Tensor:
        return super().levels() if self._op is None or self._least_rows else self.stored_weight().to_dense()

    def _apply(self, fn: Any, recurse: bool = True) -> "PackedLinear":
        before, loaded = self.values.device.type, self._op is not None or self._expanded is not None
        super()._apply(fn, recurse)
        self._repeated = Repeated()
        # A layer whose weight is still to be loaded has nothing to expand.
        if loaded and self.values.device.type != before and not isinstance(self.values, FakeTensor):
            self.expand()
        return self

    def _replicate_for_data_parallel(self) -> "PackedLinear":
        replica: PackedLinear = super()._replicate_for_data_parallel()
        replica._repeated = Repeated()  # Its weights are its own.
        return replica

    def forward(self, input: Tensor) -> Tensor:
        if self._op is not None and input.numel() >= self._least_rows * self.in_features:
            stored = (getattr(self, name).view(shape) for name, shape in self._operands)
            return call(self._op, input, *stored, self.scale, self.bias, self.input_scale, "none", None)
        if self._integers is not None:
            # Straight from the buffers: on a GPU a small layer takes as long as its call takes on the host.
            own = self._buffers
            levels = own[self._integers]
            levels = self.levels() if levels is None else levels
            run = call if is_compiling() else self._repeated
            return run("int8_linear", input, levels, own["scale"], own["bias"], own["input_scale"], "none", None, None)
        if self.bits == FLOAT_BITS:
            return F.linear(input, self.levels(), self.bias)
        return call(
            "qat_linear", input, self.weight, self.bias, None, self.scale, self.input_scale, self.bits, 16, None, False
        )

    def settings(self) -> dict[str, Any]:
        """What `from_settings` needs to make the empty layer, as JSON."""
        dtype = self.values.dtype if self.bits == FLOAT_BITS else torch.float32
        return {
            "weight": self._layout,
            "bias": None if self.bias is None else dtype_name(self.bias.dtype),
            "static": self.input_scale is not None,
            "dtype": dtype_name(dtype),
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "PackedLinear":
        weight, scale = cls._empty(settings)
        bias = None
        if settings["bias"] is not None:
            bias = torch.empty(weight.shape[0], dtype=FLOAT_DTYPES[settings["bias"]])
        return cls(weight, scale, bias, torch.ones(1) if settings["static"] else None).eval()

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bits={self.bits}, format={self.format}"


def multiply_as_stored(model: nn.Module, on: bool | None = True) -> nn.Module:
    """Sets `PackedLinear.as_stored` throughout a packed model, and returns it."""
    for module in model.modules():
        if isinstance(module, PackedLinear):
            module.as_stored = on
            module.expand()
    return model
