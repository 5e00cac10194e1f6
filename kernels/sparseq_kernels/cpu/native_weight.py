"""A linear layer's weight, scales and bias as native code multiplies by them: packed for this processor."""

import ctypes

import torch
from torch import Tensor

from ..encoder import EncoderLinear
from ..errors import InputError
from ..instruction_sets import instruction_set
from ..numerics import check_depth
from ..torch_internals import has_amx
from . import native
from .int8_matmul import why_not_int_mm

# A weight is stored in blocks if no more than this part of them holds values: from 16 rows on they are then faster than
# panels; for fewer rows only up to about half of them (bench/results/blocks-*).
BLOCKS_UP_TO = 0.75
# Where the processor has AMX, batches of more tokens are left to torch's int8 product: oneDNN multiplies by its tiles,
# which do several times as many products a cycle as the vector instructions of the native code.
MOST_TOKENS_BESIDE_AMX = 64
ACTIVATIONS = ("none", "relu", "gelu")  # In the order of native/linear.h's enum.
_P, _I64, _F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


def is_wanted(tokens: int) -> bool:
    """Whether native code can be had, and is to multiply so many rows by packed weights: an encoder's tokens, or the
    rows of a layer by itself."""
    return native.why_not() is None and why_not_wanted(tokens) is None


def why_not_wanted(tokens: int) -> str | None:
    """Why native code is not to multiply so many rows by packed weights here; None if it is."""
    if instruction_set() == "portable":
        return "in portable C the op's product, which compilers vectorize, is faster than that of packed weights"
    if tokens <= MOST_TOKENS_BESIDE_AMX or not has_amx() or why_not_int_mm() is not None:
        return None
    return f"torch has a faster int8 product for {tokens} tokens, by this processor's AMX"


class Linear(ctypes.Structure):
    """native/linear.h's `struct linear`."""

    _fields_ = (
        ("panels", _P),
        ("starts", _P),
        ("block_places", _P),
        ("block_sums", _P),
        ("block_values", _P),
        ("scale", _P),
        ("bias", _P),
        ("outputs", _I64),
        ("inputs", _I64),
        ("static_scale", _F),
        ("activation", ctypes.c_int32),
    )


class NativeWeight:
    """An `EncoderLinear`, copied for native code of one instruction set; what changes in it later is not seen.

    A pruned weight is stored in blocks of 4 x 4 where few enough of them hold values, and otherwise in panels.

    linear: what native code is given. nbytes: of the copy, on the CPU.
    """

    def __init__(self, linear: EncoderLinear, library: ctypes.CDLL) -> None:
        """library: the native code that is given it, and packs it: of one instruction set."""
        self._library = library
        self._kept: list[Tensor] = []
        N, K = linear.weight.shape
        # Native code reads whole panels of them. Minus zero added to a number leaves its bits.
        columns = self._library.sparseq_panel_columns()
        scale, bias = (
            torch.full((-(-N // columns) * columns,), value, dtype=torch.float32, device=native.CPU)
            for value in (0.0, -0.0)
        )
        scale[:N] = linear.weight_scale.detach()
        if linear.bias is not None:
            bias[:N] = linear.bias.detach()
        static = 0.0 if linear.input_scale is None else float(linear.input_scale)
        activation = ACTIVATIONS.index(linear.activation)
        weight = self._packed(linear.weight.contiguous())
        self.linear = Linear(*weight, self._keep(scale), self._keep(bias), N, K, static, activation)

    @property
    def in_blocks(self) -> bool:
        return not self.linear.panels

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._kept)

    def _keep(self, tensor: Tensor) -> int:
        """The address of a tensor that lives as long as this weight."""
        self._kept.append(tensor)
        return tensor.data_ptr()

    def _packed(self, weight: Tensor) -> tuple[int | None, ...]:
        """The addresses of its panels, and of its blocks' starts, places, sums and values."""
        (N, K), at = weight.shape, weight.data_ptr()
        block = self._library.sparseq_block_size()
        groups, per_row = -(-N // block), -(-K // block)
        threads = native.threads()
        starts = torch.empty(groups + 1, dtype=torch.int32, device=native.CPU)
        count = self._library.sparseq_count_blocks(at, N, K, starts.data_ptr(), threads)
        if count > BLOCKS_UP_TO * groups * per_row:
            panels = torch.empty(self._library.sparseq_panel_bytes(N, K), dtype=torch.int8, device=native.CPU)
            self._library.sparseq_pack_panels(at, N, K, panels.data_ptr(), threads)
            return self._keep(panels), None, None, None, None
        # A place is the number of a block's first input / `block`: with `check_depth`'s limit it needs 16 bits.
        places = torch.empty(count + self._library.sparseq_blocks_past(), dtype=torch.int16, device=native.CPU)
        sums = torch.empty(groups * block, dtype=torch.int32, device=native.CPU)
        # Compilers let loops of plain C load some bytes past the last block.
        values = torch.empty(count + 1, self._library.sparseq_block_bytes(), dtype=torch.int8, device=native.CPU)
        found = tuple(map(self._keep, (starts, places, sums, values)))
        self._library.sparseq_pack_blocks(at, N, K, *found, threads)
        return None, *found


def check_linear(name: str, linear: EncoderLinear, shape: tuple[int, int]) -> None:
    """Raises InputError for what has no `NativeWeight`, or a weight of another shape."""
    if not all(shape):
        raise InputError(f"{name} must have inputs and outputs, not {shape[1]} and {shape[0]}")
    if linear.weight.shape != shape or linear.weight.dtype != torch.int8:
        given = f"{linear.weight.dtype} of shape {tuple(linear.weight.shape)}"
        raise InputError(f"{name} must have an int8 weight of shape {shape}, not {given}")
    if linear.weight_scale.shape != shape[:1] or (linear.bias is not None and linear.bias.shape != shape[:1]):
        raise InputError(f"{name} must have a scale and a bias, if any, of shape {shape[:1]}")
    tensors = (linear.weight, linear.weight_scale, linear.bias, linear.input_scale)
    if any(tensor is not None and not tensor.is_cpu for tensor in tensors):
        raise InputError(f"{name} must be on the CPU")
    if linear.input_scale is not None and not bool((linear.input_scale > 0).all()):
        raise InputError(f"{name} must have a positive static scale")
    if linear.activation not in ACTIVATIONS:
        raise InputError(f"{name} must have one of the activations {', '.join(ACTIVATIONS)}, not {linear.activation!r}")
    check_depth(shape[1])
