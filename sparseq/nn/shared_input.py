"""One quantization of an input that several layers get one after the other, as an attention's query, key and value."""

import threading
import weakref
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from sparseq_kernels import backends, qat_linear
from sparseq_kernels.instruction_sets import instruction_set
from sparseq_kernels.ops.qat_linear import OP
from sparseq_kernels.torch_internals import is_observed, is_plain_tensor


class _Found(weakref.ref[Tensor]):
    """A tensor, weakly, and what was found for it while its state was `key`; nothing of it outlives the tensor."""

    __slots__ = ("key", "memory", "rows")

    key: tuple[Any, ...]
    # The tensor's memory, without the tensor. It is held so that no other can get its address.
    memory: Tensor | None
    rows: tuple[Tensor, ...]

    def holds(self, x: Tensor, key: tuple[Any, ...]) -> bool:
        return self() is x and self.key == key and self.memory is not None and x.is_set_to(self.memory)

    def forget(self) -> None:
        self.memory, self.rows = None, ()


class _Last(threading.local):
    found: _Found | None = None


_last = _Last()


def shared_qat_linear(*arguments: Any) -> Tensor:
    """`qat_linear` of its arguments up to `block_index`, which uses the integers that this thread's last call found, if
    that was of the same x: the results are the same to the bit, and the backward keeps the integers once.

    Layers share in training on a CPU, with scales by row that are not learned. x must be the result of an operation
    that autograd recorded: each forward makes a new one, and torch's operations on it count in its version. A leaf, or
    an x outside autograd, may be memory that its owner fills again without torch's knowledge, such as a NumPy array.
    """
    x: Tensor = arguments[0]
    if is_compiling() or x.grad_fn is None or not torch.is_grad_enabled():
        return qat_linear(*arguments)
    if not (x.is_cpu and is_plain_tensor(x)) or is_observed():
        return qat_linear(*arguments)
    weight_scale, input_scale, _, input_bits = arguments[4:8]
    if weight_scale is not None or input_scale is not None:
        return qat_linear(*arguments)
    # All backends and instruction sets give the same integers, but the one that is forced is to be the one that runs.
    name = backends.in_use("cpu")
    key = (x._version, x.dtype, input_bits, name, instruction_set() if name == "native" else None)
    last = _last.found
    if last is not None and last.holds(x, key):
        return qat_linear(*arguments, *last.rows)
    y, q, scale, *_ = OP(*arguments)
    if q.numel():
        found = _Found(x, _Found.forget)
        found.key, found.memory, found.rows = key, x.detach(), (q.view(x.shape), scale.view(x.shape[:-1]))
        _last.found = found
    return y
