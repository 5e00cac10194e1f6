"""A BERT encoder in one call of native code."""

import ctypes
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..encoder import EncoderLayer, EncoderLinear, EncoderNorm
from ..errors import InputError
from ..instruction_sets import instruction_set
from ..torch_internals import has_avx512_bf16
from . import native
from .native_weight import Linear, NativeWeight, check_linear
from .tokens import Tokens

_P, _I64, _F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


def why_no_bf16_attention(library: ctypes.CDLL | None = None) -> str | None:
    """None if a `NativeEncoder` can multiply in bf16 in attention here, otherwise why it cannot. library: that
    encoder's; None for the one in use."""
    if library is None and (reason := native.why_not()) is not None:
        return reason
    if not (library or native.library()).sparseq_has_bf16_attention():
        return "the instruction set has no such product, or the compiler is older than GCC 10"
    return None if has_avx512_bf16() else "this processor has no AVX-512 BF16"


class _Norm(ctypes.Structure):
    _fields_ = (("weight", _P), ("bias", _P), ("epsilon", _F))


class _Layer(ctypes.Structure):
    _fields_ = (
        ("qkv", Linear),
        ("out", Linear),
        ("up", Linear),
        ("down", Linear),
        ("after_attention", _Norm),
        ("after_output", _Norm),
    )


class _Encoder(ctypes.Structure):
    _fields_ = (
        ("layers", _P),
        ("count", _I64),
        ("heads", _I64),
        ("head_size", _I64),
        ("intermediate", _I64),
        ("bf16_attention", ctypes.c_int32),
    )


class NativeEncoder:
    """The layers of an encoder, packed for this processor when it is made; what changes in them later is not seen.

    A pruned weight is stored in blocks of 4 x 4 where few enough of them hold values, and then takes time in proportion
    to these. Calls may run in several threads at once.

    Args:
        layers: of one model.
        heads: of attention, in each layer.

    Raises:
        InputError: for layers that do not fit each other.
    """

    def __init__(self, layers: Sequence[EncoderLayer], heads: int) -> None:
        _check_layers(layers, heads)
        self.hidden = layers[0].qkv.weight.shape[1]
        # Asked for once: another thread may set another.
        self.instruction_set = instruction_set()
        self.library = native.library_of(self.instruction_set)
        self._kept: list[Tensor] = []
        self._weights: list[NativeWeight] = []
        self._layers = (_Layer * len(layers))(*map(self._layer, layers))
        sizes = (len(layers), heads, self.hidden // heads, layers[0].up.weight.shape[0])
        # With attention in fp32 and in bf16.
        self._encoders = tuple(_Encoder(ctypes.addressof(self._layers), *sizes, bf16) for bf16 in (0, 1))

    def __call__(
        self, x: Tensor, lengths: Sequence[int], states: Tensor | None = None, *, bf16_attention: bool = False
    ) -> Tensor:
        """The last hidden state.

        Args:
            x: [tokens, H], fp32 on the CPU: sequences one after the other, without padding.
            lengths: of each sequence; their sum is the number of tokens.
            states: [layers, tokens, H], fp32, contiguous, or None: gets the hidden state after each layer.
            bf16_attention: multiply queries, keys, probabilities and values in bf16, and add in fp32.

        Raises:
            InputError: for an x of another shape, dtype or device, and for bf16_attention where
                `why_no_bf16_attention` gives a reason.
            MemoryError: if there is no memory for what is between two steps.
        """
        starts = [0, *itertools.accumulate(lengths)]
        if (
            x.shape != (starts[-1], self.hidden)
            or x.dtype != torch.float32
            or not x.is_cpu
            or min(lengths, default=0) < 0
        ):
            raise InputError(
                f"encoder: x must be fp32 on the CPU, of shape ({starts[-1]}, {self.hidden}) for these lengths, not "
                f"{x.dtype} on {x.device}, of shape {tuple(x.shape)}"
            )
        shape = (len(self._layers), *x.shape)
        if states is not None and not (
            states.shape == shape and states.dtype == torch.float32 and states.is_cpu and states.is_contiguous()
        ):
            raise InputError(f"encoder: states must be contiguous fp32 on the CPU, of shape {shape}")
        if bf16_attention and (reason := why_no_bf16_attention(self.library)) is not None:
            raise InputError(f"encoder: attention cannot multiply in bf16: {reason}")
        y = x.detach().clone(memory_format=torch.contiguous_format)
        self._run(y.data_ptr(), (_I64 * len(starts))(*starts), len(lengths), starts[-1], states, bf16_attention)
        return y

    def encode_(self, x: Tensor, tokens: Tokens, states: Tensor | None = None, bf16_attention: bool = False) -> None:
        """Replaces the tokens' rows in x by the last hidden state.

        Args:
            x: fp32 on the CPU, contiguous, [rows, H] with a row for each token first. Not checked.
            tokens: which sequence each is of.
            states, bf16_attention: as above, and not checked.
        """
        self._run(x.data_ptr(), tokens.starts_at, tokens.batch, tokens.count, states, bf16_attention)

    def _run(
        self, x_at: int, starts: Any, sequences: int, tokens: int, states: Tensor | None, bf16_attention: bool
    ) -> None:
        states_at = None if states is None else states.data_ptr()
        encoder = ctypes.addressof(self._encoders[bf16_attention])
        if self.library.sparseq_encode(encoder, x_at, starts, sequences, states_at, native.threads()):
            raise MemoryError(f"no memory for the encoder's {tokens} tokens")

    @property
    def in_blocks(self) -> tuple[tuple[str, ...], ...]:
        """Of each layer, the names of the products whose weight is stored in blocks."""
        names = ("qkv", "out", "up", "down")
        return tuple(tuple(name for name in names if not getattr(layer, name).panels) for layer in self._layers)

    def _keep(self, tensor: Tensor) -> int:
        """The address of a tensor that lives as long as this encoder."""
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _layer(self, layer: EncoderLayer) -> _Layer:
        linears = [self._linear(linear) for linear in (layer.qkv, layer.out, layer.up, layer.down)]
        return _Layer(*linears, self._norm(layer.attention_norm), self._norm(layer.output_norm))

    def _linear(self, linear: EncoderLinear) -> Linear:
        weight = NativeWeight(linear, self.library)
        self._weights.append(weight)
        return weight.linear

    def _norm(self, norm: EncoderNorm) -> _Norm:
        weight, bias = (
            self._keep(tensor.detach().to(torch.float32).contiguous()) for tensor in (norm.weight, norm.bias)
        )
        return _Norm(weight, bias, norm.eps)


def _check_layers(layers: Sequence[EncoderLayer], heads: int) -> None:
    if not layers:
        raise InputError("encoder: there must be at least one layer")
    H, wide = layers[0].qkv.weight.shape[1], layers[0].up.weight.shape[0]
    if heads < 1 or H % heads:
        raise InputError(f"encoder: {H} features cannot be shared by {heads} heads")
    for number, layer in enumerate(layers):
        shapes = {"qkv": (3 * H, H), "out": (H, H), "up": (wide, H), "down": (H, wide)}
        for name, shape in shapes.items():
            check_linear(f"encoder: layer {number}'s {name}", getattr(layer, name), shape)
        for norm in (layer.attention_norm, layer.output_norm):
            if any(tensor.shape != (H,) or not tensor.is_cpu for tensor in (norm.weight, norm.bias)):
                raise InputError(f"encoder: layer {number}'s LayerNorm must be of {H} features, on the CPU")
