"""One quantization of an input that several layers get one after the other, as an attention's query, key and value."""

import threading
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from sparseq_kernels import backends, quantize_rows
from sparseq_kernels.instruction_sets import instruction_set
from sparseq_kernels.torch_internals import is_observed, is_plain_tensor

# q and scale, or neither.
Rows = tuple[Tensor, Tensor] | tuple[None, None]
NOT_SHARED: Rows = (None, None)


class _Found(weakref.ref[Tensor]):
    """A tensor, weakly, and what was found for it while its state was `key`; nothing of it outlives the tensor."""

    __slots__ = ("key", "memory", "rows")

    key: tuple[Any, ...]
    # The tensor's memory, without the tensor. It is held so that no other can get its address.
    memory: Tensor | None
    rows: Rows

    def holds(self, x: Tensor, key: tuple[Any, ...]) -> bool:
        return self() is x and self.key == key and self.memory is not None and x.is_set_to(self.memory)

    def forget(self) -> None:
        self.memory, self.rows = None, NOT_SHARED


class _Last(threading.local):
    found: _Found | None = None


_last = _Last()


def quantized_once(x: Tensor, bits: int) -> Rows:
    """`quantize_rows(x, bits)`, found once for the layers of this thread that get x in turn; (None, None) for an
    x that each layer is to quantize for itself.

    They share it in training on a CPU, and of one input at a time. x must be the result of an operation that autograd
    recorded: each forward makes a new one, and torch's operations on it count in its version. A leaf, or an x outside
    autograd, may be memory that its owner fills again without torch's knowledge, such as a NumPy array.
    """
    if is_compiling() or x.grad_fn is None or not torch.is_grad_enabled():
        return NOT_SHARED
    if not (x.is_cpu and is_plain_tensor(x)) or is_observed():
        return NOT_SHARED
    # All backends and instruction sets give the same integers, but the one that is forced is to be the one that runs.
    key = (x._version, x.dtype, bits, backends.in_use("cpu"), instruction_set())
    last = _last.found
    if last is not None and last.holds(x, key):
        return last.rows
    with torch.no_grad():
        rows = quantize_rows(x, bits)
    found = _Found(x, _Found.forget)
    found.key, found.memory, found.rows = key, x.detach(), rows
    _last.found = found
    return rows
