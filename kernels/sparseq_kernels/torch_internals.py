"""Every private function of torch that this package uses, each under a name of its own.

A new release of torch may change any of them: this is the module to look at then.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor as FakeTensor
from torch.autograd import forward_ad
from torch.nn.modules import module
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils._pytree import tree_map_only as tree_map_only

PLAIN_CLASSES = (Tensor, torch.nn.Parameter)
"""The classes whose tensors hold their values as they are. Others are subclasses, which may override any operation."""


def _python_any_requires_grad(*args: Any) -> bool:
    """As torch's own, which torch 2.6 does not have."""
    for arg in args:
        if isinstance(arg, Tensor):
            if arg.requires_grad:
                return True
        elif isinstance(arg, list | tuple) and _python_any_requires_grad(*arg):
            return True
    return False


# Bound once: looking a name up in torch takes as long as calling it.
dispatch_modes = torch._C._len_torch_dispatch_stack
tracing_state = torch._C._get_tracing_state
functorch_active = torch._C._are_functorch_transforms_active
any_autocast = torch._C._is_any_autocast_enabled
any_requires_grad: Any = getattr(torch._C, "_any_requires_grad", _python_any_requires_grad)
is_legacy_batched = torch._C._functorch.is_legacy_batchedtensor
is_functorch_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
mkldnn_enabled = torch._C._get_mkldnn_enabled
is_zerotensor = Tensor._is_zerotensor
int_mm = torch._int_mm
has_compatible_shallow_copy_type = torch._has_compatible_shallow_copy_type


def is_plain(args: Sequence[Any]) -> bool:
    """Whether an op may run on these arguments without torch's dispatcher.

    True if every tensor is plain (see `is_plain_tensor`) and nothing observes or transforms the call.
    """
    for arg in args:
        if isinstance(arg, Tensor) and not is_plain_tensor(arg):
            return False
    return not is_observed()


def is_plain_tensor(x: Tensor) -> bool:
    """Whether x is a dense CPU or CUDA tensor, no subclass, and no lazily negated or zero tensor."""
    return type(x) in PLAIN_CLASSES and (x.is_cpu or x.is_cuda) and not x.is_neg() and not x._is_zerotensor()


def is_observed() -> bool:
    """Whether a trace, a torch.func transform, a dispatch mode or forward-mode autograd is active."""
    active: bool = (
        dispatch_modes() != 0 or tracing_state() is not None or functorch_active() or forward_ad._current_level >= 0
    )
    return active


def has_global_hooks() -> bool:
    """Whether forward hooks are registered for all modules at once."""
    return bool(module._global_forward_pre_hooks or module._global_forward_hooks)


def has_values(tensor: Tensor) -> bool:
    """Whether the tensor's values can be read: it is no meta or fake tensor, and is not traced or transformed."""
    if tensor.is_meta or isinstance(tensor, FakeTensor) or torch.compiler.is_compiling():
        return False
    return not is_functorch_wrapped(tensor)


def forward_mode_active() -> bool:
    """Whether forward-mode autograd is active, at any level."""
    return forward_ad._current_level >= 0


def is_differentiated(args: Sequence[Any]) -> bool:
    """Whether autograd records an op on these arguments, in reverse or in forward mode."""
    if torch.is_grad_enabled() and any_requires_grad(*args):
        return True
    return forward_mode_active() and torch._C._is_fwd_grad_enabled() and any(map(_has_tangent, args))


def _has_tangent(arg: Any) -> bool:
    if isinstance(arg, list | tuple):
        return any(map(_has_tangent, arg))
    return isinstance(arg, Tensor) and forward_ad.unpack_dual(arg).tangent is not None


def redispatch_below_autograd(overload: Any, keyset: Any, args: tuple[Any, ...]) -> Any:
    """Calls the op's kernels below autograd, from a kernel that was registered for autograd."""
    with torch._C._AutoDispatchBelowAutograd():
        return overload.redispatch(keyset & torch._C._after_autograd_keyset, *args)


def own_memory(result: Tensor) -> Tensor:
    """The result of an op as it is returned: contiguous, and not a view for autograd.

    Autograd forbids in-place changes of views that an op returns. Backends return views of memory that they allocated,
    such as a reshaped product, never of an argument.
    """
    result = result.contiguous()
    return torch.ops.aten._unsafe_view(result, result.shape) if result._is_view() else result


def parse_schema(schema: str) -> list[tuple[str, str, Any]]:
    """(name, type, default) of each argument of a schema such as "sparseq::op(Tensor x, int bits=8) -> Tensor".

    Types are as in torch's schemas: "Tensor", "Optional[Tensor]", "List[bool]". The default is None if there is none.
    """
    return [(a.name, str(a.real_type), a.default_value) for a in torch._C.parse_schema(schema).arguments]


def has_amx() -> bool:
    """Whether the processor has AMX, whose tiles oneDNN multiplies by."""
    found: bool = torch.cpu._is_amx_tile_supported()
    return found


def has_avx512_bf16() -> bool:
    """Whether the processor has AVX-512 BF16."""
    found: bool = torch.cpu._is_avx512_bf16_supported()
    return found


def has_vnni() -> bool:
    """Whether the processor has AVX-512 VNNI."""
    found: bool = torch.cpu._is_vnni_supported()
    return found
