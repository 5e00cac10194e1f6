"""A packed layer's product in one call of native code, on a CPU."""

import torch
from torch import Tensor

from sparseq_kernels import InputError, instruction_set
from sparseq_kernels.backends import in_use
from sparseq_kernels.cpu.linear import NativeLinear
from sparseq_kernels.cpu.native_weight import MOST_TOKENS_BESIDE_AMX, is_wanted
from sparseq_kernels.encoder import EncoderLinear
from sparseq_kernels.torch_internals import any_autocast, any_requires_grad, is_observed, is_zerotensor

from .derived import Derived
from .packed import Packed

# Bound once: a look-up takes as long as the call.
_grad_enabled = torch.is_grad_enabled
_FP32 = torch.float32
_FLOATS = ("scale", "bias", "input_scale")


class NativeProduct:
    """x weight^T * scales + bias by native code, of a packed linear layer's tensors as they were when this was made.

    The weight is packed for the processor in the first call that is `run`: the layers of a fused encoder, which has
    packed their weights itself, are rarely called.
    """

    def __init__(self, layer: Packed) -> None:
        held, names = layer._buffers, (*layer._names, *_FLOATS)
        present = {name: tensor for name in names if (tensor := held[name]) is not None}
        made = self._derived = Derived.of(tuple(present.values()))
        watched = zip(present, made.sources, made.addresses, made.versions, strict=False)
        absent = [name for name in names if name not in present]
        self._entries: list[tuple[str, Tensor | None, int, int]] = [*watched, *((name, None, 0, 0) for name in absent)]
        self.outputs, self.inputs = layer._layout["shape"]
        self._native: NativeLinear | None = None
        self._refused = False

    @classmethod
    def of(cls, layer: Packed) -> "NativeProduct | None":
        """None for a layer that has none: elsewhere than on a CPU, of more than 8 bits, or with a bias not in fp32."""
        held = layer._buffers
        if layer.bits > 8 or not all(layer._layout["shape"]) or not all(n in held for n in (*layer._names, *_FLOATS)):
            return None
        made = cls(layer)
        fits = all(tensor.is_cpu for tensor in made._derived.sources) and held["scale"] is not None
        fits = fits and all(one is None or one.dtype is _FP32 for one in map(held.__getitem__, _FLOATS))
        return made if fits and made._derived.watched else None

    @property
    def nbytes(self) -> int:
        """Of the packed weight, if there is one yet."""
        return 0 if self._native is None else self._native.weight.nbytes

    def takes(self, x: Tensor) -> bool:
        """Whether the call is the common one, which native code runs: of an fp32 x [..., inputs], in inference, which
        nothing observes."""
        if x.__class__ is not Tensor or x.layout is not torch.strided or x.dtype is not _FP32 or not x.is_cpu:
            return False
        if x.is_neg() or is_zerotensor(x):
            return False
        if any_autocast() or is_observed() or (_grad_enabled() and any_requires_grad(x, *self._derived.sources)):
            return False
        shape = x.shape
        if not shape or shape[-1] != self.inputs or in_use("cpu") != "native":
            return False
        rows = x.numel() // self.inputs
        # Of a weight that is packed for the set in use it is known that so few rows are wanted.
        return (rows <= MOST_TOKENS_BESIDE_AMX and self._is_packed()) or is_wanted(rows)

    def holds(self, layer: Packed) -> bool:
        """Whether the layer's tensors are those of which this was made, unchanged as far as `Derived` sees it.

        Of so few tensors a loop is faster than `Derived.holds`, and a small layer's product takes no longer.
        """
        held = layer._buffers
        for name, tensor, address, version in self._entries:
            # One that was made a Parameter is no buffer any more; `layer` is what no entry has.
            if held.get(name, layer) is not tensor:
                return False
            if tensor is not None and (tensor.data_ptr() != address or tensor._version != version):
                return False
        return True

    def run(self, layer: Packed, x: Tensor) -> Tensor | None:
        """[..., outputs], for an x that it takes and the layer that it holds; None if native code refuses the layer."""
        native = self._native
        if native is None or native.instruction_set != instruction_set():
            native = self._native = self._pack(layer)
        return None if native is None else native(x)

    def _is_packed(self) -> bool:
        native = self._native
        return native is not None and native.instruction_set == instruction_set()

    def _pack(self, layer: Packed) -> NativeLinear | None:
        """For the instruction set in use."""
        if self._refused:
            return None
        scale, bias, static = map(layer._buffers.__getitem__, _FLOATS)
        assert scale is not None
        with torch.inference_mode(False), torch.no_grad():
            try:
                return NativeLinear(EncoderLinear(layer.quantized_values(), scale, bias, static))
            except InputError:  # The op says what is wrong.
                self._refused = True
                return None
