"""Whether an op may run without torch's dispatcher, which on the host takes longer than launching a kernel."""

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad

_PLAIN_TENSORS = (Tensor, torch.nn.Parameter)
# Every call of a layer asks these, and to look them up takes as long as to call them.
_dispatch_modes = torch._C._len_torch_dispatch_stack
_tracing_state = torch._C._get_tracing_state
_functorch_transforms = torch._C._are_functorch_transforms_active


def plain(args: tuple[Any, ...]) -> bool:
    """Whether all tensors hold their values as they are and nothing looks on: no subclasses, modes, traces, or
    transforms, and no views of negated or absent values."""
    for arg in args:
        if isinstance(arg, Tensor) and not plain_tensor(arg):
            return False
    return nothing_looks_on()


def plain_tensor(x: Tensor) -> bool:
    """`plain` of one tensor, for itself."""
    return type(x) in _PLAIN_TENSORS and (x.is_cpu or x.is_cuda) and not x.is_neg() and not x._is_zerotensor()


def nothing_looks_on() -> bool:
    """Whether what runs is neither traced, nor transformed, nor seen by a dispatch mode or forward-mode autograd."""
    return (
        _dispatch_modes() == 0
        and _tracing_state() is None
        and not _functorch_transforms()
        and forward_ad._current_level < 0
    )


def has_values(tensor: Tensor) -> bool:
    """Whether the tensor's values can be looked at: they are there, and nothing traces or transforms it."""
    if tensor.is_meta or isinstance(tensor, FakeTensor) or torch.compiler.is_compiling():
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
